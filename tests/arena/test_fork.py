# SPDX-License-Identifier: BSD-3-Clause
"""What a forked child may do with the arenas that it inherits."""

import os
import subprocess
import sys
import textwrap

import pytest

import xmem

pytestmark = pytest.mark.skipif(
    not hasattr(os, "fork"), reason="the system has no fork"
)

# Warnings are errors, but forking with threads alive is what some of this is about.
IGNORE = ["-W", "error", "-W", "ignore::DeprecationWarning"]


def run(script, *arguments):
    """Run a script in a process of its own; it must end well."""
    done = subprocess.run(
        [
            sys.executable,
            "-P",
            *IGNORE,
            "-c",
            textwrap.dedent(script),
            *map(str, arguments),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_use_of_an_inherited_file_is_refused(arena_path):
    run(
        """
        import os, sys, xmem
        arena = xmem.Arena.create(sys.argv[1], 1 << 20)
        pool = xmem.Pool(arena, name="p")
        heap = xmem.Heap(arena, "merged", name="h")
        offset = pool.xmalloc(100)
        pid = os.fork()
        if pid == 0:
            calls = [
                arena.check, arena.pools, arena.sync, arena.trim, arena.frames,
                pool.check, pool.stats, pool.destroy, heap.stats,
                lambda: pool.xmalloc(1), lambda: pool.xfree(offset),
                lambda: pool.view(offset), lambda: heap.xmalloc(1),
                lambda: arena.page_alloc(0), lambda: xmem.Pool(arena),
                lambda: arena.n_free_pages, lambda: arena.__enter__(),
            ]
            for call in calls:
                try:
                    call()
                except xmem.ArenaInUse as error:
                    assert "forked" in str(error) and "open it here" in str(error)
                else:
                    os._exit(1)
            arena.close()
            try:
                pool.xmalloc(1)
            except xmem.ArenaClosed:
                os._exit(0)
            os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert pool.usable_size(offset) >= 100
        pool.xfree(offset)
        pool.check()
        arena.close()
        """,
        arena_path,
    )
    with xmem.Arena.open(arena_path) as arena:
        assert set(arena.pools()) >= {"p"}


@pytest.mark.parametrize("how", ["arena.close()", "del arena, pool", "sys.exit(0)"])
def test_a_child_that_ends_leaves_the_file_to_its_parent(arena_path, how):
    """A child that marked it clean would seal what the parent goes on to change."""
    run(
        f"""
        import os, sys, xmem
        arena = xmem.Arena.create(sys.argv[1], 1 << 20)
        pool = xmem.Pool(arena, name="p")
        pid = os.fork()
        if pid == 0:
            {how}
            sys.exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        late = xmem.Pool(arena, name="late")
        offset = late.xmalloc(100)
        late.view(offset)[:4] = b"kept"
        print(offset, flush=True)
        os._exit(0)        # as a process that was killed
        """,
        arena_path,
    )
    with xmem.Arena.open(arena_path) as arena:
        assert set(arena.pools()) == {"p", "late"}
        pool = xmem.Pool.open(arena, "late")
        (block,) = [row for row in pool.walk() if row["used"]]
        assert bytes(pool.view(int(block["offset"]), 4)) == b"kept"


def test_a_file_may_have_descriptor_0(arena_path):
    """Where standard input was closed, a child still knows that it has a file."""
    run(
        """
        import os, sys, xmem
        os.close(0)
        arena = xmem.Arena.create(sys.argv[1], 1 << 20)
        assert os.path.samestat(os.fstat(0), os.stat(sys.argv[1]))
        pid = os.fork()
        if pid == 0:
            try:
                arena.n_free_pages
            except xmem.XmemError as error:
                assert "forked" in str(error)
                arena.close()
                os._exit(0)
            os._exit(1)
        assert os.waitpid(pid, 0)[1] == 0
        arena.check()
        arena.close()
        """,
        arena_path,
    )


def test_a_child_goes_on_with_its_copy_of_an_anonymous_arena():
    run(
        """
        import os, xmem
        arena = xmem.Arena.anonymous(1 << 20)
        pool = xmem.Pool(arena)
        offset = pool.xmalloc(100)
        pool.view(offset)[:6] = b"parent"
        pid = os.fork()
        if pid == 0:
            assert bytes(pool.view(offset, 6)) == b"parent"
            pool.view(offset)[:6] = b"child!"
            pool.xfree(offset)
            pool.xmalloc(5000)
            pool.check()
            arena.close()
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert bytes(pool.view(offset, 6)) == b"parent"
        pool.xfree(offset)
        pool.check()
        """
    )


def test_a_fork_while_another_thread_is_checking_does_not_hang():
    """The child has no such thread: nobody would ever open the gate."""
    run(
        """
        import os, signal, threading, xmem
        arena = xmem.Arena.anonymous(1 << 30, page_size=4096)
        pool = xmem.Pool(arena)
        for _ in range(2000):
            pool.xmalloc(3000)
        stop = threading.Event()
        def work():
            while not stop.is_set():
                pool.check()
        thread = threading.Thread(target=work)
        thread.start()
        failed = 0
        for _ in range(30):
            pid = os.fork()
            if pid == 0:
                signal.alarm(20)
                pool.xfree(pool.xmalloc(10))
                arena.check()
                arena.close()
                os._exit(0)
            failed += os.waitpid(pid, 0)[1] != 0
        stop.set()
        thread.join()
        assert not failed, failed
        """
    )


def test_a_view_made_before_the_fork_shows_the_file_to_both(arena_path):
    run(
        """
        import os, sys, xmem
        arena = xmem.Arena.create(sys.argv[1], 1 << 20)
        offset = arena.page_alloc(0)
        view = arena.view(offset)
        pid = os.fork()
        if pid == 0:
            view[:5] = b"hello"
            try:
                arena.close()
            except BufferError:
                os._exit(0)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert bytes(view[:5]) == b"hello"
        view.release()
        arena.close()
        """,
        arena_path,
    )
