# SPDX-License-Identifier: BSD-3-Clause
"""Run proofs at full length and write what they print into reliability.md.

``python docs/proven.py`` runs all that have a row, which takes hours; ``python
docs/proven.py undo lock`` runs these. A proof that refutes ends the program, and
nothing is written.
"""

import re
import subprocess
import sys

from measured import DOCS, ROOT, part_of, table

PAGE = DOCS / "reliability.md"
PART = "counts"
#: Proofs with their options; what each prints last is its row.
PROOFS = {"lock": [], "undo": [], "soak_kill": []}
SUMMARY = re.compile(r"^[\w-]+: ")


def run(name: str) -> str:
    """Run a proof; return the lines that sum it up."""
    print(f"{name} ...", flush=True)
    done = subprocess.run(
        [sys.executable, "-m", f"proofs.{name}", *PROOFS[name]],
        cwd=ROOT / "tests",
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found = [line for line in done.stdout.splitlines() if SUMMARY.match(line)]
    return "; ".join(SUMMARY.sub("", line) for line in found)


def commit() -> str:
    """Return the commit that is proved, of a tree without changes to it."""
    return subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout.strip()


def main() -> None:
    """Replace the rows of the proofs that the command line names."""
    names = sys.argv[1:] or list(PROOFS)
    if unknown := set(names) - set(PROOFS):
        sys.exit(f"there is no row for {', '.join(unknown)}")
    old = re.findall(
        r"^\| `proof-([\w-]+)` \| (.*?) \| (.*?) \|$",
        part_of(PAGE, PART),
        re.MULTILINE,
    )
    rows = {name: [shown, where] for name, shown, where in old}
    for name in names:
        rows[name.replace("_", "-")] = [run(name), commit()]
        shown = table(
            ["proof", "what it printed", "of"],
            [[f"`proof-{one}`", *row] for one, row in sorted(rows.items())],
            n_text=3,
        )
        text = PAGE.read_text()
        start = text.index(f"<!-- {PART} -->\n") + len(f"<!-- {PART} -->\n")
        end = text.index("<!-- end -->", start)
        PAGE.write_text(f"{text[:start]}\n{shown}\n\n{text[end:]}")


if __name__ == "__main__":
    main()
