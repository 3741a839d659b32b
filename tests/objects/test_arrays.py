# SPDX-License-Identifier: BSD-3-Clause
"""NumPy arrays in the arena: as NumPy makes them, and alive as long as needed."""

import gc
import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from xmem import Arena, BadArgument, BadArgumentType, Heap, Pool
from xmem.allocator import BlockExport

MAKERS = {
    "tlsf": lambda arena: Pool(arena),
    "firstfit": lambda arena: Pool(arena, engine="firstfit"),
    "hardened": lambda arena: Pool(arena, hardened=True),
    "quick": lambda arena: Pool(arena, quick=True),
    "array": lambda arena: Heap(arena, "array"),
    "merged": lambda arena: Heap(arena, "merged"),
}


@pytest.fixture(params=MAKERS)
def maker(request):
    """Pools and heaps of every kind; nothing is left of what the test made."""
    arena = Arena.anonymous(8 << 20, page_size=4096)
    allocator = MAKERS[request.param](arena)
    yield allocator
    gc.collect()
    if not allocator.closed:
        allocator.check()
        assert allocator.stats().live_blocks == 0


@pytest.fixture
def pool():
    return Pool(Arena.anonymous(8 << 20, page_size=4096))


def inside(pool, array):
    """Whether all of an array lies in the pool's arena."""
    low, high = np.lib.array_utils.byte_bounds(array)
    base = pool.arena.address(0)
    return base <= low and high <= base + pool.arena.n_bytes


# As NumPy's ------------------------------------------------------------------

SHAPES = [(), 0, 1, 7, (3, 4), (0, 3), (3, 0), (2, 3, 4), [5, 6], (1,) * 32]
DTYPES = [
    *("?", "i1", "<u2", ">i4", "f2", "f4", "f8", "f16", "c8", "c16"),
    *("S5", "U3", "V7", "M8[ns]", "m8[s]"),
    np.float32,
    int,
    [("a", "u1"), ("b", "f8", (2, 3))],
    np.dtype([("a", "u1"), ("b", "<f8")], align=True),
    "(2,3)i4",
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("order", ["C", "F"])
def test_empty_has_the_layout_of_numpys(maker, shape, order):
    ours, theirs = maker.empty(shape, "i4", order), np.empty(shape, "i4", order)
    assert type(ours) is np.ndarray
    assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
    for flag in ("C_CONTIGUOUS", "F_CONTIGUOUS", "ALIGNED", "WRITEABLE"):
        assert ours.flags[flag] == theirs.flags[flag], flag
    if ours.size:
        assert ours.strides == theirs.strides
    assert not ours.flags.owndata
    assert inside(maker, ours)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_plain_dtype(maker, dtype):
    ours, theirs = maker.zeros((3, 2), dtype), np.zeros((3, 2), dtype)
    assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
    assert ours.tobytes() == theirs.tobytes()
    assert inside(maker, ours)


@pytest.mark.parametrize(
    ("dtype", "why"),
    [
        (object, "references"),
        ("O", "references"),
        ([("a", "i4"), ("b", "O")], "references"),
        (getattr(np.dtypes, "StringDType", lambda: object)(), "references"),
        ("S", "no size"),
        ("U0", "no size"),
        ("V", "no size"),
        ([], "no size"),
    ],
    ids=str,
)
def test_dtypes_that_no_arena_can_hold(maker, dtype, why):
    for make in (
        lambda: maker.empty(3, dtype),
        lambda: maker.zeros(3, dtype),
        lambda: maker.full(3, 1, dtype),
        lambda: maker.array([], dtype),
    ):
        with pytest.raises(BadArgument, match=why):
            make()


def test_arrays_of_objects_are_refused_whoever_made_them(maker):
    for make in (maker.array, maker.copy_of):
        with pytest.raises(BadArgument, match="references"):
            make(np.array([1, "a", None], dtype=object))
    with pytest.raises(BadArgument, match="references"):
        maker.full(3, None)


@pytest.mark.parametrize("align", [1, 16, 64, 256, 4096])
def test_alignment(pool, align):
    for _ in range(5):
        made = [
            pool.empty(3, align=align),
            pool.zeros(3, align=align),
            pool.full(3, 1, align=align),
            pool.array([1, 2], align=align),
            pool.copy_of(np.ones(3), align=align),
        ]
        assert all(array.ctypes.data % align == 0 for array in made)
    assert pool.empty(5).ctypes.data % 64 == 0


@pytest.mark.parametrize(
    ("fill", "dtype"),
    [(7, None), (2.5, None), (2.5, "i4"), (b"ab", "S4"), ([1, 2], None), (True, "f4")],
)
def test_full(maker, fill, dtype):
    ours, theirs = maker.full((3, 2), fill, dtype), np.full((3, 2), fill, dtype)
    assert ours.dtype == theirs.dtype
    assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("source", [5, [1, 2.5], [[1], [2]], "text", b"b", (), [True]])
def test_array_of_anything(maker, source):
    ours, theirs = maker.array(source), np.array(source)
    assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
    assert np.array_equal(ours, theirs)
    assert maker.array([1, 2], dtype="f4").dtype == "f4"


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_copies_are_those_of_numpy(data):
    pool = Pool(Arena.anonymous(8 << 20, page_size=4096))
    dtype = data.draw(
        npst.boolean_dtypes() | npst.integer_dtypes() | npst.floating_dtypes()
    )
    array = data.draw(npst.arrays(dtype, npst.array_shapes(max_dims=4, max_side=5)))
    axes = data.draw(st.permutations(range(array.ndim)))
    array = array.transpose(axes)
    steps = [slice(None, None, data.draw(st.sampled_from([1, 2, -1]))) for _ in axes]
    array = array[tuple(steps)]
    for order in "KACF":
        ours = pool.copy_of(array, order)
        theirs = np.array(array, order=order)
        assert ours.tobytes() == theirs.tobytes()
        assert ours.shape == theirs.shape
        for flag in ("C_CONTIGUOUS", "F_CONTIGUOUS"):
            assert ours.flags[flag] == theirs.flags[flag], (order, array.strides)
        if array.size and min(array.shape) > 1:
            assert ours.strides == theirs.strides, order
        assert inside(pool, ours)
    del ours
    assert pool.stats().live_blocks == 0


def test_copy_of_takes_arrays_only(maker):
    for wrong in ([1, 2], 5, None, b"x", memoryview(b"x")):
        with pytest.raises(BadArgumentType):
            maker.copy_of(wrong)


# Alive -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "look",
    [
        lambda array: array[1:],
        lambda array: array.T,
        lambda array: array.reshape(-1)[::3],
        lambda array: array.view("u1"),
        lambda array: memoryview(array[0]),
        lambda array: np.lib.stride_tricks.sliding_window_view(array, (2, 2)),
        lambda array: np.asarray(memoryview(array)),
        lambda array: array.flat,
        lambda array: iter(array),
        lambda array: np.from_dlpack(array),
        lambda array: np.broadcast_to(array, (3, *array.shape)),
    ],
)
def test_views_keep_the_memory(maker, look):
    array = maker.full((4, 6), 3.5)
    view, before = look(array), np.array(list(look(array))).tobytes()
    del array
    gc.collect()
    others = [maker.zeros((4, 6)) for _ in range(10)]
    for act in (maker.arena.close, lambda: maker.destroy(force=True)):
        with pytest.raises(BufferError):
            act()
    assert maker.stats().live_blocks == 11
    assert np.array(list(view)).tobytes() == before
    del view, others
    assert maker.stats().live_blocks == 0


def test_the_base_is_a_loan_that_nobody_can_end(pool):
    array = pool.empty(5)
    assert type(array.base) is BlockExport
    block = array.base.block
    assert block is pool.block_of(array)
    with pytest.raises(BufferError):
        block.release()
    with pytest.raises(BufferError):
        block.resize(400)
    with pytest.raises(AttributeError):
        array.base.block = None
    with pytest.raises(BadArgumentType):
        BlockExport()
    with pytest.raises(ValueError, match="own"):
        array.resize(10, refcheck=False)
    del array
    block.release()


def test_block_of_finds_the_owner(pool):
    array = pool.empty((4, 4))
    block = pool.block_of(array)
    assert pool.block_of(array[1:, ::2].T[1:]) is block
    raw = pool.block(64)
    assert pool.block_of(np.frombuffer(raw, "f8")[2:]) is raw
    other = Pool(pool.arena)
    for wrong in (np.zeros(3), other.empty(3), np.frombuffer(b"abc", "u1")):
        with pytest.raises(BadArgument):
            pool.block_of(wrong)
    offset = pool.xmalloc(64)
    with pytest.raises(BadArgument):
        pool.block_of(pool.from_offset(offset, 3))
    for wrong in (raw, None, b"abc"):
        with pytest.raises(BadArgumentType):
            pool.block_of(wrong)


def test_results_of_arithmetic_are_not_in_the_arena(pool):
    array = pool.full(5, 2.0)
    assert not inside(pool, array + 1)
    array += 1
    assert inside(pool, array)
    assert array.tolist() == [3.0] * 5


def test_arrays_die_in_other_threads(pool):
    def work():
        for i in range(300):
            array = pool.zeros(i % 70)
            box.append(array[1:])
            if len(box) > 40:
                box.pop(0)

    box = []
    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    box.clear()
    pool.check()
    assert pool.stats().live_blocks == 0


# By offset -------------------------------------------------------------------


def test_from_offset_is_a_view_of_what_is_live(maker):
    offset = maker.xmalloc(800)
    array = maker.from_offset(offset, (10, 10), "f8")
    array[:] = np.arange(100).reshape(10, 10)
    again = maker.from_offset(offset, 100)
    assert again.tolist() == list(range(100))
    fortran = maker.from_offset(offset, (10, 10), order="F")
    assert np.array_equal(fortran, array.T)
    for act in (
        lambda: maker.xfree(offset),
        lambda: maker.xrealloc(offset, 10_000),
        maker.arena.close,
        lambda: maker.destroy(force=True),
    ):
        with pytest.raises(BufferError):
            act()
    del array, again, fortran
    maker.xfree(offset)


def test_from_offset_takes_no_more_than_there_is(pool):
    offset = pool.xmalloc(100)
    room = pool.usable_size(offset)
    assert pool.from_offset(offset, room, "u1").nbytes == room
    for shape in (room + 1, (room, 2), (1 << 40,), (1 << 32, 1 << 32)):
        with pytest.raises(BadArgument):
            pool.from_offset(offset, shape, "u1")
    with pytest.raises(BadArgument, match="references"):
        pool.from_offset(offset, 1, object)
    pool.xfree(offset)
    with pytest.raises(ValueError, match="freed"):
        pool.from_offset(offset, 1)


def test_from_offset_of_what_an_array_owns(pool):
    array = pool.array([1.0, 2.0, 3.0])
    block = pool.block_of(array)
    same = pool.from_offset(block.offset, 3)
    del array, block
    gc.collect()
    assert same.tolist() == [1, 2, 3]
    assert pool.stats().live_blocks == 1
    same[0] = 9
    del same
    assert pool.stats().live_blocks == 0


READER = """
import sys, xmem
with xmem.Arena.open(sys.argv[1]) as arena:
    pool = xmem.Pool.open(arena, "shared")
    array = pool.from_offset(arena.root, (3, 4), "f4")
    print(array.tolist())
    array *= 2
    del array
"""


def test_an_array_goes_to_another_process(tmp_path):
    path = tmp_path / "arena"
    with Arena.create(path, 1 << 20) as arena:
        pool = Pool(arena, name="shared")
        array = pool.array(np.arange(12.0).reshape(3, 4), dtype="f4")
        arena.root = pool.block_of(array).detach()
        expected = array.tolist()
        del array
    done = subprocess.run(
        [sys.executable, "-P", "-c", READER, path], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(expected)
    with Arena.open(path) as arena:
        pool = Pool.open(arena, "shared")
        array = pool.from_offset(arena.root, (3, 4), "f4")
        assert array.tolist() == (np.array(expected) * 2).tolist()
        with pytest.raises(BufferError):
            pool.xfree(arena.root)
        del array
        pool.xfree(arena.root)


# Other libraries -------------------------------------------------------------


def test_dlpack_lends_the_memory(pool):
    """NumPy's own consumer; torch and others take the same capsule."""
    array = pool.array(np.arange(6, dtype="f4").reshape(2, 3))
    other = np.from_dlpack(array)
    other[0, 0] = 99
    assert array[0, 0] == 99
    del array
    gc.collect()
    assert pool.stats().live_blocks == 1
    assert other.tolist() == [[99, 1, 2], [3, 4, 5]]
    with pytest.raises(BufferError):
        pool.arena.close()
    del other
    assert pool.stats().live_blocks == 0


def test_torch_shares_it(pool):
    torch = pytest.importorskip("torch")
    array = pool.zeros(10, "f4")
    tensor = torch.from_dlpack(array)
    tensor += 5
    assert array.tolist() == [5.0] * 10
    del array
    gc.collect()
    assert pool.stats().live_blocks == 1
    assert tensor.sum().item() == 50
    del tensor
    gc.collect()
    assert pool.stats().live_blocks == 0


def test_strict_heaps_have_arrays_below_a_page():
    heap = Heap(Arena.anonymous(1 << 20, page_size=4096), "strict")
    assert heap.zeros(100).sum() == 0
    with pytest.raises(ValueError, match="page_alloc"):
        heap.zeros(1000)
