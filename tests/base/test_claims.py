# SPDX-License-Identifier: BSD-3-Clause
"""What the compiler decides: false claims do not compile, and no constant is unused."""

import re
import subprocess
import sysconfig
from collections import Counter
from pathlib import Path

import pytest
from Cython.Build import cythonize
from support.builds import INCLUDE, ROOT

CLAIMS = """
from libc.stdint cimport uint64_t

from xmem.base.checks cimport claim

cdef struct pair_t:
    uint64_t first
    uint64_t second

cdef enum:
    HERE = 8

def check():
    claim({})
"""


def compiles(folder: Path, condition: str) -> tuple[bool, str]:
    """Whether a module with a claim passes the C compiler, and what that says."""
    source = folder / "claims.pyx"
    source.write_text(CLAIMS.format(condition))
    (extension,) = cythonize(
        str(source), include_path=[str(INCLUDE)], quiet=True, force=True
    )
    done = subprocess.run(
        [
            *sysconfig.get_config_var("CC").split(),
            "-fsyntax-only",
            f"-I{sysconfig.get_path('include')}",
            *extension.sources,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode == 0, done.stderr


@pytest.mark.builds
@pytest.mark.parametrize(
    ("true", "false"),
    [
        ("sizeof(pair_t) == 16", "sizeof(pair_t) == 24"),
        (
            "<uint64_t>&(<pair_t*>NULL).second == HERE",
            "<uint64_t>&(<pair_t*>NULL).first == HERE",
        ),
        ("HERE < 9", "HERE < 8"),
    ],
    ids=["size", "place", "constant"],
)
def test_a_false_claim_does_not_compile(true: str, false: str, tmp_path: Path) -> None:
    assert compiles(tmp_path, true)[0]
    compiled, errors = compiles(tmp_path, false)
    assert not compiled
    assert "static assertion failed" in errors


def unused_constants(files: dict[str, str]) -> list[str]:
    """Constants of cdef enums in the text of files that no line of code uses."""
    code = {
        name: re.sub(r'"""(?:.|\n)*?"""|#.*', "", text) for name, text in files.items()
    }
    imports = re.compile(r"^\s*from .* cimport (?:\([^)]*\)|.*)$", re.MULTILINE)
    words = Counter(
        re.findall(r"\w+", "\n".join(imports.sub("", text) for text in code.values()))
    )
    enums = re.compile(r"^cdef enum.*:\n((?: {4}.*\n|\s*\n)+)", re.MULTILINE)
    return [
        f"{name}: {constant}"
        for name, text in code.items()
        for enum in enums.findall(text)
        for constant in re.findall(r"^ {4}(\w+) =", enum, re.MULTILINE)
        if words[constant] < 2
    ]


def test_unused_constants_are_found() -> None:
    header = (
        '"""USED and UNUSED."""\n'
        "cdef enum:\n    USED = 1    # not UNUSED\n\n    UNUSED = 2\n"
        "cdef enum kind_t:\n    SUM = (\n        1 + USED\n    )\n"
    )
    user = "from header cimport (\n    SUM,\n    UNUSED,\n)\nx = SUM\n"
    assert unused_constants({"header": header, "user": user}) == ["header: UNUSED"]


def test_every_constant_is_used() -> None:
    """The faces of the layers, which name everything, use nothing."""
    files = {
        str(path.relative_to(ROOT)): path.read_text()
        for top in ("xmem", "pyx", "arena")
        for suffix in ("*.pxd", "*.pyx")
        for path in sorted((ROOT / top).rglob(suffix))
        if path.name != "__init__.pxd"
    }
    assert unused_constants(files) == []
