# SPDX-License-Identifier: BSD-3-Clause
"""Retired instructions: exact, the same each time and on every machine.

The history of commits rests on these. Scenarios are heaps built so that the call
takes its worst path (xmem/measure/scenarios.py), with two sizes of backdrop. Only the
first operations of a trace are counted, because each takes milliseconds.
"""

from .common import ENGINES, load_trace, module, need_replay

insn = module("xmem.measure.insn", "xmem.insn")
scenarios = module("xmem.measure.scenarios", "xmem.scenarios")
Arena = getattr(module("xmem.arena"), "Arena", None)
SCENARIOS = getattr(scenarios, "SCENARIOS", [])
EXTREMES = getattr(scenarios, "EXTREMES", [])

# Named here, not read from the package: a commit may have others.
NAMES = [
    "isolated",
    "left",
    "right",
    "both",
    "keeping a region",
    "emptying a region",
    "merging pages",
]
FREE_BLOCKS = [10, 1000]
HARDENED = [
    "canaries",
    "checksums",
    "safe_links",
    "poison",
    "quarantine",
    "all",
]
VERBS = ["xmalloc", "xfree", "xrealloc", "page_alloc", "page_free"]
KINDS = ["plain", "quick", "hardened"]
TRACES = ["redis", "sqlite", "tmem"]
N_OPS = 400


def need_insn():
    """End a benchmark's setup where instructions cannot be counted."""
    need_replay()
    if insn is None:
        raise NotImplementedError("this commit cannot count instructions")
    if not insn.is_available():
        raise NotImplementedError("the system does not allow tracing a child")


def worst_of(verb, engine, n_free, **settings):
    """Return the most instructions of a verb over its scenarios."""
    worst = 0
    for found in SCENARIOS:
        if found.verb == verb and engine in found.engines:
            pool, arguments = found.make(n_free, engine, **settings)
            with pool.arena:
                worst = max(worst, insn.cost(pool, verb, *arguments)[0])
    return worst


class Worst:
    """The worst over all scenarios of a verb."""

    params = [ENGINES, FREE_BLOCKS]
    param_names = ["engine", "free_blocks"]
    unit = "instructions"
    version = "1"
    timeout = 120

    def setup(self, engine, free_blocks):
        need_insn()

    def track_xfree_worst_instructions(self, engine, free_blocks):
        return worst_of("xfree", engine, free_blocks)

    def track_xmalloc_worst_instructions(self, engine, free_blocks):
        return worst_of("xmalloc", engine, free_blocks)


class Shared:
    """The worst over all scenarios, in an arena that processes share."""

    params = [FREE_BLOCKS]
    param_names = ["free_blocks"]
    unit = "instructions"
    version = "1"

    def setup(self, free_blocks):
        need_insn()
        if Arena is None or not hasattr(Arena, "memfd"):
            raise NotImplementedError("this commit cannot share an arena")

    def worst_of(self, verb, free_blocks):
        worst = 0
        for found in SCENARIOS:
            if found.verb == verb and "tlsf" in found.engines:
                pool, arguments = found.make(free_blocks, shared=True)
                with pool.arena:
                    worst = max(
                        worst, sum(1 for _ in insn.Steps(pool, verb, *arguments))
                    )
        return worst

    def track_xfree_worst_instructions(self, free_blocks):
        return self.worst_of("xfree", free_blocks)

    def track_xmalloc_worst_instructions(self, free_blocks):
        return self.worst_of("xmalloc", free_blocks)


class Hardened:
    """The worst calls of a hardened pool, for each kind of hardening."""

    params = [HARDENED, FREE_BLOCKS]
    param_names = ["hardened", "free_blocks"]
    unit = "instructions"
    version = "1"

    def setup(self, hardened, free_blocks):
        need_insn()
        self.flags = True if hardened == "all" else [hardened]

    def track_xfree_worst_instructions(self, hardened, free_blocks):
        return worst_of("xfree", "tlsf", free_blocks, hardened=self.flags)

    def track_xmalloc_worst_instructions(self, hardened, free_blocks):
        return worst_of("xmalloc", "tlsf", free_blocks, hardened=self.flags)


class Extremes:
    """The most that a verb is known to take, in an arena of ``2**20`` pages."""

    params = [VERBS, KINDS]
    param_names = ["verb", "pool"]
    unit = "instructions"
    version = "1"

    def setup(self, verb, pool):
        need_insn()
        self.found = [e for e in EXTREMES if (e.verb, e.kind) == (verb, pool)]
        if not self.found:
            raise NotImplementedError(f"no extreme of {verb}, {pool}, on this commit")

    def track_worst_instructions(self, verb, pool):
        worst = 0
        for found in self.found:
            heap, arguments = found.make(0)
            with heap.arena:
                worst = max(worst, insn.cost(heap, verb, *arguments)[0])
        return worst


class Paths:
    """One xfree for each path."""

    params = [NAMES]
    param_names = ["path"]
    unit = "instructions"
    version = "1"

    def setup(self, path):
        need_insn()
        found = [s for s in SCENARIOS if (s.verb, s.name) == ("xfree", path)]
        if not found:
            raise NotImplementedError(f"no scenario {path!r} on this commit")
        self.pool, self.arguments = found[0].make(1000)

    def teardown(self, path):
        if hasattr(self, "pool"):
            self.pool.arena.close()

    def track_xfree_instructions(self, path):
        return insn.cost(self.pool, "xfree", *self.arguments)[0]


class Traces:
    """Worst and mean over the beginning of a trace."""

    params = [ENGINES, TRACES]
    param_names = ["engine", "trace"]
    unit = "instructions"
    version = "1"
    timeout = 120

    def setup(self, engine, trace):
        need_insn()
        self.counts = insn.count(load_trace(trace)[:N_OPS], engine=engine)

    def track_xfree_worst_instructions(self, engine, trace):
        return self.counts.summary("xfree").most

    def track_xmalloc_worst_instructions(self, engine, trace):
        return self.counts.summary("xmalloc").most

    def track_xmalloc_mean_instructions(self, engine, trace):
        return self.counts.summary("xmalloc").mean
