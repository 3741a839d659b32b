# SPDX-License-Identifier: BSD-3-Clause
"""While one thread works in an arena without the GIL, the others' calls wait.

The thread enters and leaves through the C interface, so it is inside for as long as
the test wants.
"""

import ctypes
import threading
from collections.abc import Callable, Iterator

import pytest

import xmem
from xmem import Arena, Pool


class Api(ctypes.Structure):
    """The beginning of ``xmem_api`` of xmem.h."""

    _fields_ = [
        ("version", ctypes.c_uint32),
        ("n_bytes", ctypes.c_uint32),
        *((name, ctypes.c_void_p) for name in ("xmalloc", "xrealloc", "xfree")),
        ("borrow", ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object)),
        ("give_back", ctypes.PYFUNCTYPE(None, ctypes.c_void_p)),
        ("enter", ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p)),
        ("leave", ctypes.PYFUNCTYPE(None, ctypes.c_void_p)),
    ]


def api() -> Api:
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype = ctypes.c_void_p
    pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    return Api.from_address(pointer(xmem._C_API, b"xmem._C_API"))


@pytest.fixture
def inside() -> Iterator[tuple[Arena, Pool, Callable[[], None]]]:
    """An arena in which this thread works, a pool of it, and the way out."""
    functions = api()
    with Arena.anonymous(1 << 20, page_size=4096) as arena:
        pool = Pool(arena)
        borrowed = functions.borrow(pool)
        assert functions.enter(borrowed) == 0
        left = []

        def leave() -> None:
            left.append(functions.leave(borrowed))

        yield arena, pool, leave
        if not left:
            leave()
        functions.give_back(borrowed)


#: Calls on arena and pool by another thread.
CALLS: dict[str, Callable[[Arena, Pool], object]] = {
    "xmalloc": lambda arena, pool: pool.xmalloc(100),
    "page_alloc": lambda arena, pool: arena.page_alloc(0),
    "frames": lambda arena, pool: arena.frames(),
    "check": lambda arena, pool: arena.check(),
    "stats": lambda arena, pool: pool.stats(),
}


@pytest.mark.parametrize("name", CALLS)
def test_another_thread_s_call_waits(
    inside: tuple[Arena, Pool, Callable[[], None]], name: str
) -> None:
    arena, pool, leave = inside
    done: list[object] = []
    begun = threading.Event()

    def call() -> None:
        begun.set()
        CALLS[name](arena, pool)
        done.append(name)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    begun.wait()
    # A call that does not wait is done long before; one that waits never is.
    thread.join(0.1)
    assert not done
    leave()
    thread.join()
    assert done == [name]
    pool.check()


def test_the_thread_s_own_calls_do_not_wait(
    inside: tuple[Arena, Pool, Callable[[], None]],
) -> None:
    """Not even those that enter once more."""
    arena, pool, _ = inside
    block = pool.xmalloc(100)
    pool.check()
    arena.check()
    pool.xfree(block)
