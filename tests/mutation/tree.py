# SPDX-License-Identifier: BSD-3-Clause
"""A copy of the repository that has every chosen change, each asleep until it is named.

A change and the original stand side by side, and the environment variable ``MUTANT``
says at the start of a process which change is in force: 0 is none. So one build serves
all changes of behaviour. Constants of C have to be known to the compiler: `Single`
changes one in a copy, and builds the modules that the tests see it in.
"""

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from mutation.operators import Mutant
from mutation.sources import end_of_head

ROOT = Path(__file__).parents[2]
#: How a process of a copy learns its mutant. Tests clear XMEM_ and PYTHON for builds.
VARIABLE = "MUTANT"

C_HEAD = '''
cdef extern from *:
    """
    #ifndef MUTANT_CHOSEN
    #define MUTANT_CHOSEN
    #include <stdlib.h>
    static int mutant_chosen = 0;
    __attribute__((constructor)) static void mutant_read(void)
    {
        const char *number = getenv("MUTANT");
        mutant_chosen = number ? atoi(number) : 0;
    }
    #endif
    """
    int {name} "mutant_chosen"

'''
PYTHON_HEAD = """
import os as _os

{name} = int(_os.environ.get("MUTANT", "0"))

"""


class BuildFailed(Exception):
    """A build that ended with an error, and what it printed."""


def replacement(mutant: Mutant, chosen: str, column: int) -> str:
    """What stands in the place of the original: both, and the choice."""
    if mutant.kind == "header":
        return (
            f"(not not ({mutant.changed}) if {chosen} else not not ({mutant.original}))"
        )
    if mutant.kind == "value":
        return f"(({mutant.changed}) if {chosen} else ({mutant.original}))"
    assert mutant.kind == "statement"
    margin = " " * column
    return (
        f"if {chosen}:\n{margin}    {mutant.changed}\n"
        f"{margin}else:\n{margin}    {mutant.original}"
    )


def woven(text: str, path: str, mutants: dict[int, Mutant]) -> str:
    """The text of a file with its changes by number. No two overlap."""
    if not mutants:
        return text
    name = "_MUTANT_" + hashlib.sha256(path.encode()).hexdigest()[:8]
    for number, mutant in sorted(
        mutants.items(), key=lambda item: item[1].start, reverse=True
    ):
        assert text[mutant.start : mutant.end] == mutant.original
        column = mutant.start - (text.rfind("\n", 0, mutant.start) + 1)
        text = (
            text[: mutant.start]
            + replacement(mutant, f"{name} == {number}", column)
            + text[mutant.end :]
        )
    head = PYTHON_HEAD if path.endswith(".py") else C_HEAD
    at = end_of_head(text)
    return text[:at] + head.replace("{name}", name) + text[at:]


def sources() -> list[str]:
    """Files of the working tree that git knows or would know."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return sorted(name for name in listed.stdout.split("\0") if name)


def digest(names: list[str]) -> str:
    """Digest of the contents of files."""
    whole = hashlib.sha256()
    for name in names:
        whole.update(name.encode() + b"\0" + (ROOT / name).read_bytes())
    return whole.hexdigest()


def is_built(name: str) -> bool:
    """Whether a file takes part in a build of xmem."""
    return name.startswith(("xmem/", "pyx/", "arena/")) or name in (
        "setup.cfg",
        "pyproject.toml",
    )


def is_shared(name: str) -> bool:
    """Whether many tests use a file."""
    return name.startswith("tests/support/") or name == "tests/conftest.py"


def clean_environment(**more: str) -> dict[str, str]:
    """The environment without variables of ours, and with these."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("XMEM_", "PYTHON", "PYTEST", VARIABLE))
    }
    return kept | more


class Tree:
    """A copy of the repository in a folder of its own, which can be built."""

    def __init__(self, folder: Path, flags: str) -> None:
        self.folder = folder
        self.flags = flags
        self.builds = folder.with_name(folder.name + "-builds")

    def copy(self) -> None:
        """Bring the copy up to date: what is built is left where it is."""
        names = sources()
        for name in names:
            self.write(name, (ROOT / name).read_bytes())
        for path in [*self.folder.glob("xmem/**/*"), *self.folder.glob("tests/**/*")]:
            name = str(path.relative_to(self.folder))
            if path.suffix in (".py", ".pyx", ".pxd") and name not in names:
                path.unlink()

    def write(self, name: str, content: bytes) -> None:
        """Write a file unless it is so already, for the sake of its time."""
        path = self.folder / name
        if not path.exists() or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def build(self, modules: tuple[str, ...] = ()) -> None:
        """Compile what has changed, or only these modules."""
        settings = {"XMEM_MODULES": " ".join(modules)} if modules else {}
        if self.flags:
            settings["XMEM_FLAGS"] = self.flags
        done = subprocess.run(
            [
                *(sys.executable, "-c", "from setuptools import setup; setup()"),
                *("-q", "build_ext", "--inplace"),
            ],
            cwd=self.folder,
            env=clean_environment(**settings),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            raise BuildFailed(done.stdout)
        shutil.rmtree(self.builds, ignore_errors=True)
        self.builds.mkdir(parents=True)

    def place_of(self, module: str) -> Path:
        """Where the build of a module lies."""
        suffix = sysconfig.get_config_var("EXT_SUFFIX")
        return self.folder / (module.replace(".", "/") + suffix)


class Behaviours(Tree):
    """The copy that has all changes of behaviour."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "behaviours", "-O1 -g0")
        self.stamp = folder / "behaviours.stamp"

    def weave(self, mutants: dict[int, Mutant]) -> set[int]:
        """Copy, change and build; the numbers of those that do not compile."""
        names = [name for name in sources() if is_built(name)]
        state = digest(names) + repr(
            sorted((number, mutant.name) for number, mutant in mutants.items())
        )
        if self.stamp.exists():
            stamped, *refused = self.stamp.read_text().split("\n")
            if stamped == hashlib.sha256(state.encode()).hexdigest():
                self.copy_tests()
                return {int(number) for number in refused if number}
            self.stamp.unlink()
        refused = self.compile(mutants)
        lines = [hashlib.sha256(state.encode()).hexdigest(), *map(str, sorted(refused))]
        self.stamp.write_text("\n".join(lines))
        return refused

    def copy_tests(self) -> None:
        """Bring all but what is built up to date."""
        for name in sources():
            if not is_built(name):
                self.write(name, (ROOT / name).read_bytes())

    def compile(self, mutants: dict[int, Mutant]) -> set[int]:
        """Build, leaving out one change after another that the compiler refuses."""
        self.copy_tests()
        for name in sources():
            if is_built(name) and name not in {one.path for one in mutants.values()}:
                self.write(name, (ROOT / name).read_bytes())
        refused: set[int] = set()
        while True:
            left = {n: one for n, one in mutants.items() if n not in refused}
            for path in {one.path for one in mutants.values()}:
                here = {n: one for n, one in left.items() if one.path == path}
                text = woven((ROOT / path).read_text(), path, here)
                self.write(path, text.encode())
            try:
                self.build()
            except BuildFailed as error:
                found = self.accused(str(error), left)
                if not found:
                    raise
                refused |= found
            else:
                return refused

    def accused(self, output: str, mutants: dict[int, Mutant]) -> set[int]:
        """The changes in the places that Cython complains about."""
        found = set()
        for path, line in re.findall(r"^(\S+\.p(?:yx|xd)):(\d+):\d+: ", output, re.M):
            for n, mutant in mutants.items():
                if not path.endswith(mutant.path):
                    continue
                text = (self.folder / mutant.path).read_text()
                chosen = f" == {n}"
                for match in re.finditer(rf"_MUTANT_\w+{chosen}\b", text):
                    at = text.count("\n", 0, match.start()) + 1
                    if at - 1 <= int(line) <= at + 3 + mutant.original.count("\n") * 2:
                        found.add(n)
        return found


class Single(Tree):
    """A copy built as users build it, for changes that the compiler has to know."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "single", "")

    def prepare(self) -> None:
        """Bring it up to date and build it whole, without a change."""
        self.copy()
        self.build()

    @contextlib.contextmanager
    def changed(self, mutant: Mutant, modules: tuple[str, ...]) -> Iterator[None]:
        """The copy with one change built into some modules, as long as it lasts."""
        path = self.folder / mutant.path
        text = path.read_text()
        assert text[mutant.start : mutant.end] == mutant.original
        saved = {module: self.place_of(module).read_bytes() for module in modules}
        path.write_text(text[: mutant.start] + mutant.changed + text[mutant.end :])
        try:
            self.build(modules)
            yield
        finally:
            path.write_text(text)
            for module, content in saved.items():
                # A new file: the one that a process may have open stays whole.
                place = self.place_of(module)
                place.unlink(missing_ok=True)
                place.write_bytes(content)
