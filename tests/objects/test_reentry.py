# SPDX-License-Identifier: BSD-3-Clause
"""Other code in the middle of a call: whatever it does, nothing crashes.

Integers whose ``__index__`` closes the arena, names with a ``__str__`` of
their own, finalisers that the collector runs, get_mem and put_mem, threads; and
arguments that are not what they seem. What could crash runs in a process of its own.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
from support.apart import apart
from support.lies import (
    blocks_used_while_moved,
    changing_dtypes,
    emptied_lists,
    initialised_twice,
    lists_emptied_by_put_mem,
    lying_arrays,
    lying_properties,
    lying_shapes,
    lying_texts,
)
from support.reentry import (
    finalisers,
    hooks_that_act,
    sly_integers,
    sly_texts,
    threads,
)
from support.scene import ARENA_BYTES

from xmem import Arena


@pytest.mark.slow
@pytest.mark.parametrize(
    "deed", [sly_integers, sly_texts, finalisers, hooks_that_act, threads]
)
def test_in_a_process_of_its_own(deed: Callable[[], None], tmp_path: Path) -> None:
    """No Python code that runs in the middle of a call can crash the process."""
    Arena.create(tmp_path / "old", ARENA_BYTES).close()
    assert not apart(deed, cwd=tmp_path)


@pytest.mark.parametrize(
    "deed",
    [
        lying_shapes,
        emptied_lists,
        lying_arrays,
        changing_dtypes,
        initialised_twice,
        lying_properties,
        blocks_used_while_moved,
        lists_emptied_by_put_mem,
    ],
)
def test_arguments_are_what_they_are(deed: Callable[[], None]) -> None:
    """No argument that lies, or changes while it is read, is believed twice."""
    assert not apart(deed)


def test_texts_are_what_they_are(tmp_path: Path) -> None:
    """Text is compared as text, whatever its class says."""
    assert not apart(lying_texts, str(tmp_path))
