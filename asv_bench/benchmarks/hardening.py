# SPDX-License-Identifier: BSD-3-Clause
"""The cost of checks: the proof of an offset, and each kind of hardening.

Reported are the cycles of the slowest xfree and the nanoseconds per operation, each
from the least over the repeats, and the ratio to the same pool without checks.
"""

from .common import TRACES, load_trace, need_replay, replay

KINDS = [
    "plain",
    "checked",
    "canaries",
    "checksums",
    "safe_links",
    "poison",
    "quarantine",
    "all",
]
SOME = ["redis", "tmem", "adversarial"]
REPEATS = 7


def settings_of(kind):
    """Return the parameters of a replay."""
    if kind == "plain":
        return {}
    if kind == "checked":
        return {"checked": True}
    return {"hardened": True if kind == "all" else [kind]}


def measured(ops, kind):
    """Replay once; raise NotImplementedError if the commit has no such check."""
    try:
        return replay(ops, repeats=REPEATS, **settings_of(kind))
    except TypeError as error:
        raise NotImplementedError(f"no {kind} on this commit") from error


class Hardening:
    params = [KINDS, SOME]
    param_names = ["kind", "trace"]
    timeout = 120

    def setup(self, kind, trace):
        need_replay()
        assert trace in TRACES
        self.ops = load_trace(trace)

    def track_xfree_worst_cycles(self, kind, trace):
        return measured(self.ops, kind).summary("xfree")["worst"]

    def track_ns_per_op(self, kind, trace):
        return measured(self.ops, kind).ns_per_op

    def track_ratio_to_plain(self, kind, trace):
        return (
            measured(self.ops, kind).ns_per_op / measured(self.ops, "plain").ns_per_op
        )

    track_xfree_worst_cycles.unit = "cycles"
    track_ns_per_op.unit = "ns"
    track_ratio_to_plain.unit = "ratio"
