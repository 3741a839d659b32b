# SPDX-License-Identifier: BSD-3-Clause
"""The four stress commands with random seeds, engines and interfaces: ``make soak``.

Runs for the given seconds, and reports operations done and faults found. The exit
status is 1 if there was a fault; its operations are in ``soak-faults``. Each sixth
session is of ``proofs.objects``: blocks, arrays and views, from Python.
"""

import json
import os
import random
import re
import shlex
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from xmem.base.engines import ENGINES
from xmem.heap import INTERFACES
from xmem.stress.loads import FRAME_LOADS, LOADS

PART_SECONDS = 60
#: The number of sessions, at least.
LEAST_SESSIONS = 12
FOLDER = Path("soak-faults")


def heap_options(chosen: random.Random) -> list[str]:
    """Options for what a command that keeps blocks runs on."""
    kind = chosen.choice(["tlsf", *ENGINES, "interface"])
    if kind == "interface":
        return ["--interface", chosen.choice(list(INTERFACES))]
    return ["--engine", kind]


def command(chosen: random.Random) -> list[str]:
    """A command and its options."""
    program = chosen.choice(
        [
            "xmem-stress",
            "xmem-stress",
            "xmem-stress-frames",
            "xmem-stress-tmem",
            "xmem-stress-diffengine",
        ]
    )
    options = ["--threads", str(chosen.choice([1, 1, 2, 4]))]
    if program == "xmem-stress-frames":
        return [program, *options, "--load", chosen.choice(list(FRAME_LOADS))]
    options += heap_options(chosen)
    if program == "xmem-stress":
        options += ["--load", chosen.choice(list(LOADS))]
        if "firstfit" in options:
            # The time is looked at after each batch, and its calls have no bound.
            options += ["--check-every", "1024"]
        if "tlsf" in options:
            options += chosen.choice([[], [], ["--hardened", "all"], ["--quick"]])
    else:
        options += ["--compression", chosen.choice(["lz4", "zstd"])]
    return [program, *options]


def objects(seconds: float, seed: int) -> tuple[int, str]:
    """Operations that proofs.objects did, and what it found."""
    end = subprocess.run(
        [
            *(sys.executable, "-P", "-X", "faulthandler", "-m", "proofs.objects"),
            *("--seconds", f"{seconds:.0f}", "--seed", str(seed)),
        ],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    done = re.search(r"objects: ([\d,]+) operations", end.stdout)
    n_ops = int(done[1].replace(",", "")) if done else 0
    return n_ops, "" if end.returncode == 0 else end.stderr[-3000:] or "it died"


def main(seconds: float) -> int:
    """Run until time is up; the number of faults."""
    seed = random.SystemRandom().getrandbits(32)
    chosen = random.Random(seed)
    print(f"soak for {seconds:.0f} s, seed {seed}", flush=True)
    FOLDER.mkdir(exist_ok=True)
    n_ops: Counter[str] = Counter()
    n_faults = n_sessions = 0
    start = time.monotonic()
    while time.monotonic() - start < seconds:
        left = max(seconds - (time.monotonic() - start), 1)
        part = min(left, PART_SECONDS, seconds / LEAST_SESSIONS)
        n_sessions += 1
        if n_sessions % 6 == 0:
            seed = chosen.getrandbits(32)
            done, found = objects(max(part, 1), seed)
            n_ops["proofs.objects"] += done
            n_faults += bool(found)
            print(f"{found}{done:>15,} operations, proofs.objects --seed {seed}")
            continue
        fault = FOLDER / f"fault-{n_sessions}.npz"
        line = [
            *command(chosen),
            *(
                "--seconds",
                f"{max(part, 1):.0f}",
            ),
            *("--seed", str(chosen.getrandbits(32))),
            *("--fault-file", str(fault), "--json", "-"),
        ]
        where = Path(sys.executable).parent / line[0]
        end = subprocess.run(
            [where, *line[1:]], capture_output=True, text=True, check=False
        )
        if end.returncode == 2:
            print(end.stderr)
            return 1
        record = json.loads(end.stdout)
        n_ops[line[0]] += record["ops"]
        report = f"{record['ops']:>15,} operations, {shlex.join(line[:-2])}"
        if end.returncode:
            n_faults += 1
            report = f"FAULT {record['fault']}\n{report}"
        print(report, flush=True)
    for program, count in sorted(n_ops.items()):
        print(f"{program:24} {count:>18,} operations")
    print(
        f"{n_sessions} sessions, {sum(n_ops.values()):,} operations, {n_faults} faults"
    )
    if not n_faults:
        FOLDER.rmdir()
    return min(n_faults, 1)


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1])))
