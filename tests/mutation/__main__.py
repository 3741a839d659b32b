# SPDX-License-Identifier: BSD-3-Clause
"""Try the mutants that have no result yet, print the survivors, write the table.

``make mutants`` runs it; ``MUTANTS="--retry"`` and the like are its options. It can be
stopped at any time and goes on where it was.
"""

import argparse
import json
import os
import queue
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from mutation.chosen import Area, areas, choose
from mutation.operators import Mutant
from mutation.results import (
    RESULTS,
    Result,
    equivalents,
    read_results,
    result,
    short,
    write_page,
    write_results,
)
from mutation.tree import (
    ROOT,
    Behaviours,
    BuildFailed,
    Single,
    digest,
    is_built,
    is_shared,
    sources,
)
from mutation.trials import Baseline, Outcome, take_baseline, try_mutant

FOLDER = ROOT / ".venv-mutants"


@dataclass
class Run:
    """What is to be tried, by whom, and what came of it."""

    seed: int
    deadline: float
    n_jobs: int
    file: Path
    results: dict[str, Result]
    lock: threading.Lock = field(default_factory=threading.Lock)
    errors: list[BaseException] = field(default_factory=list)

    @property
    def is_over(self) -> bool:
        """Whether to begin nothing more."""
        return time.monotonic() > self.deadline or bool(self.errors)

    def keep(self, mutant: Mutant, area: Area, outcome: Outcome) -> None:
        """Record and print one result."""
        with self.lock:
            self.results[mutant.name] = result(mutant, area.name, outcome)
            write_results(self.results, self.file)
            print(
                f"{outcome.verdict:9} {mutant.name} {mutant.path}:{mutant.line}"
                f" {short(mutant.original)[:60]} -> {short(mutant.changed)[:60]}"
                f"  {outcome.by[:100]}",
                flush=True,
            )


class Baselines:
    """What the tests of a copy do without a change, kept between runs."""

    def __init__(self, file: Path) -> None:
        self.file = file
        names = [name for name in sources() if is_built(name) or is_shared(name)]
        self.shared = digest(names)
        self.kept: dict[str, Baseline] = {}
        self.lock = threading.Lock()
        self.busy: dict[str, threading.Lock] = {}
        if file.exists():
            self.kept = {
                key: Baseline(one["seconds"], set(one["failing"]))
                for key, one in json.loads(file.read_text()).items()
            }

    def of(self, tree: Behaviours | Single, area: Area) -> Baseline:
        """The baseline of an area's tests; each file of tests is run once."""
        whole = Baseline()
        for test in area.tests:
            with self.lock:
                busy = self.busy.setdefault(test, threading.Lock())
            with busy:
                one = self.of_file(tree, test)
            whole.seconds |= one.seconds
            whole.failing |= one.failing
        return whole

    def of_file(self, tree: Behaviours | Single, test: str) -> Baseline:
        """The baseline of one file of tests, for what it and xmem are now."""
        key = f"{test} {self.shared[:12]} {digest([test])[:12]}"
        if key not in self.kept:
            one = Baseline()
            take_baseline(tree, [test], one)
            print(f"{sum(one.seconds.values()):9.1f} s without a change: {test}")
            for failing in sorted(one.failing):
                print(f"  fails without a change: {failing}", flush=True)
            with self.lock:
                self.kept[key] = one
                tests = {key: kept.to_dict() for key, kept in self.kept.items()}
                self.file.write_text(json.dumps(tests))
        return self.kept[key]


Work = tuple[Area, Mutant, int]


def try_singles(run: Run, works: list[Work]) -> None:
    """Build and try the changes of constants, one after the other."""
    if not works or run.is_over:
        return
    tree = Single(FOLDER)
    print("building a copy without a change", flush=True)
    tree.prepare()
    baselines = Baselines(FOLDER / "single.json")
    for area, mutant, _ in works:
        if run.is_over:
            return
        baseline = baselines.of(tree, area)
        try:
            with tree.changed(mutant, area.modules):
                outcome = try_mutant(tree, area.tests, 0, baseline)
        except BuildFailed:
            outcome = Outcome("dead", "it does not compile")
        run.keep(mutant, area, outcome)


def try_behaviours(
    run: Run, tree: Behaviours, works: "queue.SimpleQueue[Work]", baselines: Baselines
) -> None:
    """Try changes of behaviour until none is left."""
    while not run.is_over:
        try:
            area, mutant, number = works.get_nowait()
        except queue.Empty:
            return
        baseline = baselines.of(tree, area)
        run.keep(mutant, area, try_mutant(tree, area.tests, number, baseline))


def guarded(run: Run, function: object, *arguments: object) -> None:
    """Keep the error that ends a thread, so that the others end too."""
    try:
        function(run, *arguments)  # type: ignore[operator]
    except BaseException as error:
        run.errors.append(error)


def carry_out(run: Run, every: list[Work], left: list[Work]) -> None:
    """Build, then try what is left on ``n_jobs`` processors."""
    FOLDER.mkdir(exist_ok=True)
    tree = Behaviours(FOLDER)
    works: queue.SimpleQueue[Work] = queue.SimpleQueue()
    behaviours = [work for work in left if not work[1].is_single]
    if behaviours:
        print(f"building a copy with {len(every)} changes", flush=True)
        refused = tree.weave(
            {number: one for _, one, number in every if not one.is_single}
        )
        for area, one, number in behaviours:
            if number in refused:
                run.keep(one, area, Outcome("not compiled", ""))
            else:
                works.put((area, one, number))
    singles = [work for work in left if work[1].is_single]
    baselines = Baselines(FOLDER / "behaviours.json")

    def first() -> None:
        guarded(run, try_singles, singles)
        guarded(run, try_behaviours, tree, works, baselines)

    def other() -> None:
        guarded(run, try_behaviours, tree, works, baselines)

    threads = [
        threading.Thread(target=first if i == 0 else other) for i in range(run.n_jobs)
    ]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    except KeyboardInterrupt as error:
        print("stopping after the tests that are running", flush=True)
        run.errors.append(error)
        for thread in threads:
            thread.join()


def show_survivors(run: Run, names: set[str]) -> int:
    """Print what no test noticed; how many there are."""
    known = equivalents()
    alive = [
        one
        for one in run.results.values()
        if one.name in names and one.verdict == "survived" and one.name not in known
    ]
    for one in sorted(alive, key=lambda one: (one.area, one.path, one.line)):
        print(f"\n{one.name} {one.path}:{one.line}, {one.function}, {one.area}")
        print(f"    - {short(one.original)}\n    + {short(one.changed)}")
    tried = [one for one in run.results.values() if one.name in names]
    print(
        f"\n{len(tried)} of {len(names)} mutants tried,"
        f" {sum(one.verdict == 'dead' for one in tried)} noticed,"
        f" {len(alive)} not noticed"
    )
    return len(alive)


def main() -> int:
    """Carry out the command; 1 if a mutant has survived that is not explained."""
    parser = argparse.ArgumentParser(prog="mutants", description=__doc__)
    parser.add_argument("areas", nargs="*", help="areas to try instead of all")
    parser.add_argument("--seed", type=int, default=1, help="draw other changes")
    parser.add_argument("--retry", action="store_true", help="try what survived again")
    parser.add_argument("--fresh", action="store_true", help="forget all results")
    parser.add_argument("--minutes", type=float, default=120, help="stop after")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--list", action="store_true", help="only show the changes")
    options = parser.parse_args()
    deadline = time.monotonic() + 60 * options.minutes
    chosen = areas()
    all_names = [area.name for area in chosen]
    if unknown := set(options.areas) - set(all_names):
        parser.error(
            f"{', '.join(sorted(unknown))}: the areas are {', '.join(all_names)}"
        )
    # Only the first seed's results are kept in the repository.
    file = RESULTS if options.seed == 1 else FOLDER / f"seed-{options.seed}.json"
    kept = {} if options.fresh else read_results(file)
    run = Run(options.seed, deadline, options.jobs, file, kept)
    every = [
        (area, one, n)
        for n, (area, one) in enumerate(
            ((area, one) for area in chosen for one in choose(area, run.seed)), 1
        )
    ]
    names = {
        one.name
        for area, one, _ in every
        if not options.areas or area.name in options.areas
    }
    if options.list:
        for area, one, _ in every:
            if one.name in names:
                print(
                    f"{one.name} {area.name:9} {one.path}:{one.line} {one.operator}:"
                    f" {short(one.original)} -> {short(one.changed)}"
                )
        return 0
    known = equivalents()
    done = {
        name
        for name, one in run.results.items()
        if not (options.retry and one.verdict == "survived" and name not in known)
    }
    left = [work for work in every if work[1].name in names - done]
    # In an order without areas, so that a run which is stopped has tried some of each.
    # Survivors come first: somebody waits for them.
    left.sort(key=lambda work: (work[1].name not in run.results, work[1].name))
    # What is no longer in the sources says nothing about them.
    drawn = {one.name for _, one, _ in every}
    run.results = {name: one for name, one in run.results.items() if name in drawn}
    try:
        carry_out(run, every, left)
    finally:
        if file == RESULTS:
            write_page()
    if run.errors:
        raise run.errors[0]
    n_alive = show_survivors(run, names)
    return 1 if n_alive else 0


if __name__ == "__main__":
    sys.exit(main())
