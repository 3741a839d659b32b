# SPDX-License-Identifier: BSD-3-Clause
"""Pools of both engines in one arena: whose a block is does not depend on old bytes.

Headers lie next to payloads in both formats, and pages pass from one engine to the
other. So words that look like the other engine's header lie in front of payloads,
left over from before or written there by the user.
"""

import ctypes

import pytest

import xmem
from xmem.arena import FRAME_FREE

PAGE = 4096


@pytest.fixture
def arena():
    with xmem.Arena.anonymous(1 << 20, page_size=PAGE) as arena:
        yield arena


def word(arena, offset):
    return ctypes.c_uint64.from_address(arena.address(offset))


def leave_in_free_pages(arena, value):
    """Leave a word in every place of every free page."""
    for page, n_pages, state, _, _ in arena.frames().tolist():
        if state == FRAME_FREE:
            words = (ctypes.c_uint64 * (n_pages * PAGE // 8)).from_address(
                arena.address(page * PAGE)
            )
            words[:] = [value] * len(words)


@pytest.mark.parametrize("align", [16, 64, 128, 1024])
@pytest.mark.parametrize("n", [100, 2 * PAGE])
def test_stale_tlsf_headers_do_not_make_a_legacy_block_theirs(arena, n, align):
    tlsf = xmem.Pool(arena, name="tlsf", grow_pages=1)
    legacy = xmem.Pool(arena, name="legacy", engine="firstfit")
    block = tlsf.xmalloc(16)
    leave_in_free_pages(arena, word(arena, block - 8).value)
    payload = legacy.xmalloc(n, align=align)
    legacy.check()
    for verb in (tlsf.xfree, tlsf.usable_size, tlsf.view):
        with pytest.raises(xmem.MismatchedFree, match="legacy"):
            verb(payload)
    with pytest.raises(xmem.MismatchedFree, match="legacy"):
        tlsf.xrealloc(payload, 10)
    legacy.xfree(payload)
    tlsf.check()
    legacy.check()


def test_what_a_user_writes_does_not_make_a_tlsf_block_a_legacy_one(arena):
    tlsf = xmem.Pool(arena, name="tlsf", grow_pages=1)
    legacy = xmem.Pool(arena, name="legacy", engine="firstfit")
    header = word(arena, legacy.xmalloc(100) - 64).value
    left, right = tlsf.xmalloc(200), tlsf.xmalloc(200)
    tlsf.view(left)[:] = header.to_bytes(8, "little") * (tlsf.usable_size(left) // 8)
    assert word(arena, right - 64).value == header
    for verb in (legacy.xfree, legacy.usable_size, legacy.view):
        with pytest.raises(xmem.MismatchedFree, match="tlsf"):
            verb(right)
    tlsf.xfree(right)
    tlsf.check()
    legacy.check()


def test_a_heap_tells_its_two_pools_apart_when_pages_change_hands(arena):
    heap = xmem.Heap(arena, "subpage")
    small = [heap.xmalloc_subpage(16) for _ in range(120)]
    for offset in small:
        heap.xfree_subpage(offset)
    heap.shrink()
    for n in (1, 100, PAGE, 3 * PAGE):
        offset = heap.xmalloc(n)
        assert heap.usable_size(offset) >= n
        assert len(heap.view(offset)) == heap.usable_size(offset)
        with pytest.raises(xmem.MismatchedFree, match=r"free it with xfree$"):
            heap.xfree_subpage(offset)
        heap.xfree(offset)
    heap.check()
