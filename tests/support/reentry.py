# SPDX-License-Identifier: BSD-3-Clause
"""Other code in the middle of a call, for a process of its own.

Integers whose ``__index__`` closes the arena, names with a ``__str__`` of their own,
finalisers that the collector runs, get_mem and put_mem, threads.
"""

import contextlib
import gc
import sys
import threading
import time
from collections.abc import Callable

from support.calls import CALLS, Call
from support.scene import ENGINES, Scene
from xmem import Arena, ArenaClosed, Pool, PoolDestroyed, XmemError


def deeds(scene: Scene) -> dict[str, Callable[[], object]]:
    """What other code can do in the middle of a call."""
    return {
        "closes": scene.arena.close,
        "destroys": lambda: scene.pool.destroy(force=True),
        "frees": lambda: scene.pool.xfree(scene.live),
        "frees the run": lambda: scene.arena.page_free(scene.run),
        "allocates": lambda: [scene.pool.xmalloc(3000) for _ in range(5)],
    }


def sound(scene: Scene) -> None:
    """Whatever was refused or done, the rest passes every check."""
    if scene.arena.closed:
        return
    scene.arena.check()
    for name in scene.arena.pools():
        Pool.open(scene.arena, name).check()


def attempt(call: Callable[[], object]) -> None:
    """Make a call that may be refused by a typed error and nothing else."""
    with contextlib.suppress(XmemError, BufferError):
        call()


def sly_integers() -> None:
    """Integers whose ``__index__`` does a deed, in every integer parameter."""

    class Sly:
        def __index__(self) -> int:
            attempt(self.deed)
            return self.value

    for engine in ENGINES:
        for name, call in CALLS.items():
            if engine not in call.engines:
                continue
            for place in range(len(call.good)):
                for deed in deeds(Scene(engine)):
                    scene = Scene(engine)
                    arguments = call.arguments(scene)
                    if not isinstance(arguments[place], int):
                        continue
                    sly = Sly()
                    sly.value = arguments[place]
                    sly.deed = deeds(scene)[deed]
                    arguments[place] = sly
                    print(engine, name, place, deed, flush=True)
                    attempt(lambda c=call, s=scene, a=arguments: c.make(s, *a))
                    sound(scene)


def sly_texts() -> None:
    """A name whose ``__str__`` or ``__hash__`` closes the arena."""

    class Sly(str):
        def __str__(self) -> str:
            attempt(self.deed)
            return "other"

        def __hash__(self) -> int:
            attempt(self.deed)
            return str.__hash__(self)

    for name in ("mine", "new", "tlsf"):
        for deed in deeds(Scene("tlsf")):
            for make in (
                lambda s, n: Pool.open(s.arena, n),
                lambda s, n: Pool.open(s.arena, n, verify=False),
                lambda s, n: Pool(s.arena, name=n),
                lambda s, n: Pool(s.arena, engine=n),
            ):
                scene = Scene("tlsf")
                sly = Sly(name)
                sly.deed = deeds(scene)[deed]
                print(name, deed, flush=True)
                attempt(lambda m=make, s=scene, n=sly: m(s, n))
                sound(scene)
    scene = Scene("tlsf")
    sly = Sly("mine")
    sly.deed = lambda: None
    assert Pool.open(scene.arena, sly).name == "mine"


def finalisers() -> None:
    """Every call while the collector runs a finaliser that does a deed.

    The collector starts at the n-th allocation, for each n: in the middle of
    whatever the call allocates. (From Python 3.12 on it never does so.)
    """

    class Bomb:
        def __init__(self, deed: Callable[[], object]) -> None:
            self.me = self
            self.deed = deed

        def __del__(self) -> None:
            attempt(self.deed)

    gc.disable()
    gc.freeze()
    for engine in ENGINES:
        for name, call in {**CALLS, **REFUSALS}.items():
            if engine not in call.engines or name == "Arena.create":
                continue
            for deed in ("closes", "destroys", "frees"):
                for n in (3, 4, 5, 6, 7, 8, 10, 13, 17, 25):
                    scene = Scene(engine)
                    arguments = call.arguments(scene)
                    print(engine, name, deed, n, flush=True)
                    gc.collect()
                    Bomb(deeds(scene)[deed])
                    gc.set_threshold(n, 1, 1)
                    gc.enable()
                    attempt(lambda c=call, s=scene, a=arguments: c.make(s, *a))
                    gc.disable()
                    sound(scene)


def offset_of(place: str) -> Callable[[Scene], int]:
    return lambda scene: getattr(scene, place) + 16


#: Calls that are refused: their messages read what other code may change.
REFUSALS = {
    "xfree refused": Call(lambda s, o: s.pool.xfree(o), (offset_of("live"),)),
    "xfree of another's": Call(
        lambda s, o: s.pool.xfree(o), (offset_of("other_live"),)
    ),
    "page_free refused": Call(lambda s, o: s.arena.page_free(o), (offset_of("run"),)),
    "page_free of a pool's": Call(
        lambda s, o: s.arena.page_free(o), (offset_of("live"),)
    ),
    "no room": Call(lambda s: s.pool.xmalloc(1 << 20)),
    "no run": Call(lambda s: s.arena.page_alloc(20)),
    "no such pool": Call(lambda s: Pool.open(s.arena, "nobody's")),
    "name taken": Call(lambda s: Pool(s.arena, name="mine")),
    "in use": Call(lambda s: s.pool.destroy()),
    "no room to see": Call(lambda s: s.pool.view(s.live, 10**6)),
}


def hooked_scene(deed: str, serves: bool) -> tuple[Scene, dict[str, bool]]:
    """A scene whose pool has hooks that do ``deed`` once, when armed."""
    scene = Scene("tlsf")
    mode = {"armed": False, "serves": True}

    def act() -> None:
        if mode["armed"]:
            mode["armed"] = False
            mode["serves"] = serves
            attempt(deeds(scene)[deed])

    def get_mem(n_pages: int) -> int | None:
        act()
        return scene.arena.page_alloc_exact(n_pages) if mode["serves"] else None

    def put_mem(offset: int, n_pages: int) -> None:
        act()
        scene.arena.page_free(offset)

    scene.pool = Pool(scene.arena, grow_pages=1, get_mem=get_mem, put_mem=put_mem)
    return scene, mode


def hooks_that_act() -> None:
    """get_mem and put_mem that do a deed and then return."""
    sys.unraisablehook = lambda unraisable: None  # of put_mem in a closed arena
    verbs: dict[str, Callable[[Pool, list[int]], object]] = {
        "xmalloc": lambda pool, blocks: pool.xmalloc(3500),
        "xzalloc": lambda pool, blocks: pool.xzalloc(3500),
        "xrealloc": lambda pool, blocks: pool.xrealloc(blocks[-1], 3900),
        "xfree": lambda pool, blocks: [pool.xfree(block) for block in blocks],
        "shrink": lambda pool, blocks: pool.shrink(),
    }
    for deed in deeds(Scene("tlsf")):
        for serves in (False, True):
            for verb, call in verbs.items():
                scene, mode = hooked_scene(deed, serves)
                blocks = [scene.pool.xmalloc(3000) for _ in range(5)]
                scene.live = blocks.pop(1)
                if verb == "shrink":
                    scene.pool.xfree(blocks.pop(2))
                    scene.pool.xfree(blocks.pop(0))
                print(deed, serves, verb, flush=True)
                mode["armed"] = True
                attempt(lambda c=call, p=scene.pool, b=blocks: c(p, b))
                sound(scene)


def threads() -> None:
    """Checkers at work in threads while one arena is closed, one pool destroyed."""
    sys.setswitchinterval(1e-6)

    def loop(
        call: Callable[[], object], over: type[XmemError], wrong: list[BaseException]
    ) -> None:
        try:
            while True:
                call()
        except over:
            pass
        except BaseException as error:
            wrong.append(error)

    def crowd(arena: Arena, pool: Pool, over: type[XmemError]) -> list[BaseException]:
        wrong: list[BaseException] = []
        calls = [pool.check, pool.check, pool.stats, pool.walk]
        calls.append(lambda: pool.xfree(pool.xmalloc(100)))
        if over is ArenaClosed:
            calls += [arena.check, arena.frames]
        crew = [threading.Thread(target=loop, args=(c, over, wrong)) for c in calls]
        for thread in crew:
            thread.start()
        time.sleep(0.005)
        end = arena.close if over is ArenaClosed else lambda: pool.destroy(force=True)
        end()
        for thread in crew:
            thread.join()
        return wrong

    for engine in ENGINES:
        for _ in range(40):
            for over in (ArenaClosed, PoolDestroyed):
                scene = Scene(engine)
                wrong = crowd(scene.arena, scene.pool, over)
                print(engine, over.__name__, flush=True)
                assert not wrong, wrong
                sound(scene)
