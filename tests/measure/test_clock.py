# SPDX-License-Identifier: BSD-3-Clause
"""The clock: it never goes back, and its rate is that of real time."""

import time

import pytest


def test_it_never_goes_back(probe):
    readings = [probe.clock() for _ in range(10_000)]
    assert readings == sorted(readings)
    assert readings[0][1] < readings[-1][1]


def test_nanoseconds_are_those_of_the_system(probe):
    before = time.monotonic_ns()
    assert before <= probe.clock()[1] <= time.monotonic_ns()


def test_the_rate_holds_over_a_longer_time(probe):
    """Once in many times: whoever takes the processor may come between two clocks."""
    overhead, hz = probe.clock_figures()
    rates = []
    for _ in range(100):
        ticks, ns = probe.clock()
        time.sleep(0.01)
        later_ticks, later_ns = probe.clock()
        assert later_ticks - ticks > overhead > 0
        rates.append((later_ticks - ticks) / (later_ns - ns) * 1e9)
        if rates[-1] == pytest.approx(hz, rel=0.02):
            break
    else:
        pytest.fail(f"{hz} in a second, and never in {rates}")
