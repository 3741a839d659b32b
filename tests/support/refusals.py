# SPDX-License-Identifier: BSD-3-Clause
"""Refused calls: of exactly the expected class, and without any effect."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import pytest

from support.wrong import Wrong


class Refusing(Protocol):
    """What a scene of a misuse test can do."""

    def snapshot(self) -> object:
        """All that a caller can see, and every byte of the arena."""

    def check(self) -> None:
        """Run every checker."""

    def close(self) -> None:
        """Close the arena, which fails while memory of it is viewed."""


S = TypeVar("S", bound=Refusing)


def refused(
    scene: Refusing, error: type[BaseException], call: Callable[[], object]
) -> BaseException:
    """The exception of exactly class ``error``; nothing has changed."""
    before = scene.snapshot()
    with pytest.raises(error) as caught:
        call()
    assert type(caught.value) is error, caught.value
    assert scene.snapshot() == before
    scene.check()
    return caught.value


class Refusals:
    """Refuses whole tables of values, and counts the calls that were refused."""

    def __init__(self) -> None:
        self.n_calls = 0

    def expect(
        self,
        make_scene: Callable[[], S],
        call: Callable[[S, Any], object],
        table: Sequence[Wrong],
    ) -> None:
        """Fail with a line for each value that is not refused as it should be.

        The values share a scene as long as each is refused. After each of them the
        scene is as it was and every checker passes. In the end the arena closes: no
        value has left a view behind.
        """
        failures = []
        scene = None
        for wrong in table:
            if scene is None:
                scene = make_scene()
                before = scene.snapshot()
            failure = judged(scene, before, call, wrong)
            if failure:
                failures.append(f"{wrong.label}: {failure}")
                scene = None
            else:
                self.n_calls += 1
        if scene is not None:
            try:
                scene.close()
            except BufferError as error:
                failures.append(f"a value of the table left memory held: {error}")
        assert not failures, "\n".join(failures)
        assert self.n_calls >= len(table)


def judged(
    scene: S, before: object, call: Callable[[S, Any], object], wrong: Wrong
) -> str:
    """What is wrong with the refusal of one value; nothing if all is well."""
    expected = wrong.error if isinstance(wrong.error, tuple) else (wrong.error,)
    try:
        call(scene, wrong.in_scene(scene))
    except Exception as error:
        if type(error) not in expected:
            return f"raises {error!r}, not {wrong.error}"
        if not str(error):
            return f"raises {type(error).__name__} without a message"
    else:
        return f"is accepted, instead of {wrong.error}"
    if scene.snapshot() != before:
        return "changes the arena, although it is refused"
    try:
        scene.check()
    except Exception as error:
        return f"leaves damage behind: {error!r}"
    return ""
