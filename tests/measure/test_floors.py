# SPDX-License-Identifier: BSD-3-Clause
"""`xmem.measure.floors`: what is measured next to an allocator."""

import numpy as np
import pytest

try:
    from numpy._core.multiarray import get_handler_name
except ImportError:
    from numpy.core.multiarray import get_handler_name

from xmem import BadArgument, BadArgumentType, NotABlock, Pool
from xmem.measure.floors import Conversions, c_memory


def test_conversions_refuse_what_a_pool_refuses(small_arena):
    floor = Conversions()
    for one in (floor, Pool(small_arena)):
        with pytest.raises(BadArgumentType):
            one.xmalloc("16")
        with pytest.raises(BadArgument):
            one.xmalloc(-1)
        with pytest.raises(BadArgument):
            one.xmalloc(16, 3)
        with pytest.raises(NotABlock):
            one.xfree(1 << 64)
        with pytest.raises(BadArgumentType):
            one.xfree("16")


def test_conversions_count_what_is_live():
    floor = Conversions()
    assert floor.xmalloc(256) == 256
    assert floor.xmalloc(48, align=64) == 48
    assert floor.n_live == 2
    floor.xfree(256)
    assert floor.n_live == 1


def test_arrays_come_from_the_handler_inside_and_not_after():
    with c_memory():
        inside = np.arange(1000)
        assert get_handler_name(inside) == "xmem floor"
        inside.resize(5000, refcheck=False)
    after = np.zeros(1000)
    assert get_handler_name(after) == "default_allocator"
    assert inside[:1000].tolist() == list(range(1000))
    assert not inside[1000:].any()


def test_managers_restore_what_they_found():
    with c_memory():
        with pytest.raises(BadArgument, match="entered"):
            c_memory().__exit__()
        manager = c_memory()
        with manager, pytest.raises(BadArgument, match="already"):
            manager.__enter__()
        assert get_handler_name(np.empty(100)) == "xmem floor"
    assert get_handler_name(np.empty(100)) == "default_allocator"
