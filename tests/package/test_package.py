# SPDX-License-Identifier: BSD-3-Clause
"""What is shipped: the sdist builds, the wheel installs one name, stubs are right."""

import importlib
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from types import ModuleType

import pytest
from support.builds import CLEAN, ROOT, run
from support.built import sources

import xmem

PACKAGE = Path(xmem.__file__).parent

#: Where type checkers find the stubs of an editable install: next to its sources.
#: Those of an ordinary install they find by themselves.
STUBS = {"MYPYPATH": str(ROOT)} if PACKAGE.parent == ROOT else {}

pytestmark = pytest.mark.skipif(
    not (ROOT / "pyproject.toml").exists(), reason="the sources are not here"
)


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def modules(project: dict) -> dict[str, str]:
    """Compiled modules and their sources."""
    table = project["tool"]["setuptools"]["ext-modules"]
    return {entry["name"]: entry["sources"][0] for entry in table}


# The sdist -------------------------------------------------------------------


def test_sdist_has_all_that_the_build_needs(unpacked: Path, modules: dict) -> None:
    names = {str(path.relative_to(unpacked)) for path in unpacked.rglob("*")}
    for source in modules.values():
        assert source in names
    for needed in (
        *("pyproject.toml", "setup.cfg", "LICENSE", "README.md"),
        *("pyx/build_ext.py", "xmem/py.typed", "xmem/__init__.pxd"),
        *("xmem/arena/__init__.pxd", "tests/conftest.py", "PKG-INFO"),
    ):
        assert needed in names, needed
    for folder, suffixes in (
        ("xmem", {".py", ".pxd", ".pyi", ".npz", ".typed"}),
        ("pyx", {".py", ".pyx"}),
        ("arena", {".pyx"}),
        ("tests", {".py", ".pyx"}),
    ):
        shipped = {name for name in names if name.startswith(folder + "/")}
        of_the_tree = {
            name
            for name in sources()
            if name.startswith(folder + "/") and Path(name).suffix in suffixes
        }
        assert of_the_tree - shipped == set()


def test_sdist_has_nothing_that_was_made(unpacked: Path) -> None:
    made = {".c", ".so", ".pyc", ".o", ".html"}
    found = [path for path in unpacked.rglob("*") if path.suffix in made]
    assert found == []
    assert not any(path.name.startswith(".") for path in unpacked.iterdir())


# The wheel -------------------------------------------------------------------


def test_wheel_installs_one_name(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0] for name in names}
    info = {top for top in tops if top.endswith(".dist-info")}
    assert len(info) == 1
    assert tops - info == {"xmem"}


def cimported() -> set[str]:
    """Modules from which a file of the tree cimports: they need a header."""
    found: set[str] = set()
    for name in sources():
        if name.endswith((".pyx", ".pxd", ".md")):
            text = (ROOT / name).read_text()
            found |= set(re.findall(r"^\s*from (xmem[\w.]*) cimport", text, re.M))
    return found


def public_names(module: str) -> set[str]:
    """What users find in a compiled module: they need a stub."""
    made = vars(importlib.import_module(module))
    return {
        name
        for name, value in made.items()
        if not name.startswith("_")
        and getattr(value, "__module__", module) == module
        and not isinstance(value, ModuleType)
    }


def test_wheel_has_modules_headers_and_stubs(wheel: Path, modules: dict) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for module in modules:
        stem = module.replace(".", "/")
        assert any(
            name.startswith(f"{stem}.") and name.endswith(".so") for name in names
        )
        if public_names(module):
            assert f"{stem}.pyi" in names
    for module in cimported():
        stem = module.replace(".", "/")
        assert {f"{stem}.pxd", f"{stem}/__init__.pxd"} & names, module
    for name in sources():
        if name.startswith("xmem/") and Path(name).suffix != ".md":
            assert name in names, f"{name} is not installed"
    assert "xmem/py.typed" in names
    assert not any(name.endswith((".pyx", ".c", ".md")) for name in names)


def test_wheel_says_what_it_is(wheel: Path, project: dict) -> None:
    assert re.fullmatch(r"xmem_tlsf-\S+-cp\d+-cp\d+-\S+\.whl", wheel.name)
    with zipfile.ZipFile(wheel) as archive:
        info = next(n for n in archive.namelist() if n.endswith("/METADATA"))
        metadata = archive.read(info).decode()
        entries = archive.read(info.replace("METADATA", "entry_points.txt")).decode()
        assert info.replace("METADATA", "licenses/LICENSE") in archive.namelist()
    assert "Name: xmem-tlsf\n" in metadata
    assert "License-Expression: BSD-3-Clause\n" in metadata
    assert f"Version: {xmem.__version__}\n" in metadata
    needed = re.findall(r"^Requires-Dist: ([\w-]+)[^;\n]*$", metadata, re.MULTILINE)
    assert needed == ["numpy"]
    assert "xmem = xmem.cli.main:main" in entries
    assert project["project"]["version"] == xmem.__version__


USE = """
import sys
import numpy as np
import xmem, xmem.measure.replay
from xmem.data import demo_trace_path
assert xmem.__file__.startswith(sys.argv[1]), xmem.__file__
with xmem.Arena.create("arena", 1 << 20) as arena:
    pool = xmem.Pool(arena, name="kept")
    block = pool.xmalloc(100)
    pool.view(block)[:5] = b"hello"
with xmem.Arena.open("arena") as arena:
    pool = xmem.Pool.open(arena, "kept")
    assert bytes(pool.view(block, 5)) == b"hello"
    pool.xfree(block)
    pool.check()
ops = xmem.measure.replay.load(demo_trace_path())[:1000]
assert xmem.measure.replay.replay(ops, repeats=1, verify=True).failed == 0
"""


def test_wheel_works_without_the_sources(installed: Path, tmp_path: Path) -> None:
    run(
        *(sys.executable, "-P", "-W", "error", "-c", USE, installed),
        cwd=tmp_path,
        PYTHONPATH=str(installed),
    )


# Types -----------------------------------------------------------------------


#: What the modules have and the stubs do not, and why that is right.
ALLOWED = r"""
# Written by Cython into every module.
xmem\..*\.__test__
xmem\..*\.__pyx_capi__
# They refuse whatever they are given.
xmem\.arena\.arena\.Arena\.__init__
xmem\.allocator\.(Allocator|Block|BlockExport)\.__init__
# Of Python 3.12 on.
xmem\.allocator\.Block\.__buffer__
# The exporter behind memoryviews; nobody makes one.
xmem\.arena\.arena\.View
# Aliases of a Literal, which is a union to mypy and not at run time.
xmem\.cli\.insn\.Engine
xmem\.measure\.bounds\.Kind
# What a dictionary holds, for type checkers only.
xmem\.arena\.arena\.PoolEntry
"""


@pytest.mark.slow
def test_types_are_strict(tmp_path: Path) -> None:
    run(
        *(sys.executable, "-P", "-m", "mypy", "--config-file", ROOT / "pyproject.toml"),
        *("--cache-dir", tmp_path, "--package", "xmem"),
        cwd=ROOT,
        **STUBS,
    )


@pytest.mark.slow
def test_stubs_agree_with_the_modules(tmp_path: Path, modules: dict) -> None:
    allowed = tmp_path / "allowed"
    # A module without public names needs no stub.
    without = [
        re.escape(module)
        for module in modules
        if not public_names(module)
        and not (ROOT / module.replace(".", "/")).with_suffix(".pyi").exists()
    ]
    allowed.write_text("\n".join([ALLOWED, *without]))
    run(
        *(sys.executable, "-P", "-m", "mypy.stubtest", "xmem", "--concise"),
        *("--ignore-disjoint-bases", "--allowlist", allowed),
        *("--mypy-config-file", ROOT / "pyproject.toml"),
        cwd=tmp_path,
        **STUBS,
    )


TYPED = """
import numpy as np
from typing import assert_type
from xmem import Arena, Pool
from xmem.stats import PoolStats

with Arena.anonymous(1 << 20, page_size=4096) as arena:
    assert_type(arena, Arena)
    assert_type(arena.root, int)
    arena.root = np.int64(16)
    assert_type(arena.page_alloc(0), int)
    assert_type(arena.path, str | None)
    pool = Pool(arena, name="x", engine="tlsf")
    assert_type(pool.xmalloc(np.uint8(5), align=32), int)
    assert_type(pool.view(pool.xzalloc(5)), memoryview)
    assert_type(pool.stats(), PoolStats)
    assert_type(arena.pools()["x"]["id"], int)
"""
WRONG = {
    'pool.xmalloc("5")': "arg-type",
    "pool.xmalloc(5.0)": "arg-type",
    "pool.xmalloc(n=5)": "call-arg",
    "pool.xfree(None)": "arg-type",
    "pool.xfree()": "call-arg",
    "pool.id = 5": "misc",
    'arena.root = "x"': "assignment",
    'Pool(arena, engine="slab")': "arg-type",
    'Pool(arena, "name")': "call-arg|misc",
    "Pool()": "call-arg",
    "arena.no_such_method()": "attr-defined",
}


@pytest.mark.slow
def test_users_are_checked_against_the_stubs(tmp_path: Path) -> None:
    """Right calls pass a type checker; each wrong one is found on its line."""
    good = tmp_path / "good.py"
    good.write_text(TYPED)
    bad = tmp_path / "bad.py"
    lines = ["from xmem import Arena, Pool", "arena = Arena.anonymous(1 << 20)"]
    lines += ["pool = Pool(arena)", *WRONG]
    bad.write_text("\n".join(lines) + "\n")
    done = subprocess.run(
        [
            *(sys.executable, "-P", "-m", "mypy", "--strict", "--no-error-summary"),
            *("--cache-dir", str(tmp_path / "cache"), str(good), str(bad)),
        ],
        cwd=tmp_path,
        env=CLEAN | STUBS,
        capture_output=True,
        text=True,
        check=False,
    )
    found = {}
    for line in done.stdout.splitlines():
        match = re.match(r"(\w+)\.py:(\d+): error: .*\[([\w-]+)\]$", line)
        if match:
            assert match[1] == "bad", line
            found[int(match[2]) - 4] = match[3]
    for i, (statement, code) in enumerate(WRONG.items()):
        assert re.fullmatch(code, found.get(i, "")), f"{statement}: {found.get(i)}"
    assert set(found) == set(range(len(WRONG))), done.stdout


def defined_names(path: Path) -> list[str]:
    """What a header or a stub states at its top level, docstring and imports apart."""
    lines = re.sub(r'"""(?:.|\n)*?"""|#.*', "", path.read_text()).split("\n")
    return [
        line
        for line in lines
        if re.match(r"(?:cdef|cpdef|ctypedef|class|def|@|\w+\s*[:=])", line)
        and not line.startswith("cimport")
    ]


def test_no_header_and_no_stub_is_a_placeholder() -> None:
    """Only the header of a package may define nothing: it names others' things."""
    headers = sorted((ROOT / "xmem").rglob("*.pxd"))
    stubs = sorted((ROOT / "xmem").rglob("*.pyi"))
    assert headers
    assert stubs
    for path in (*headers, *stubs):
        assert path.name == "__init__.pxd" or defined_names(path), path


def test_every_module_has_a_docstring(modules: dict) -> None:
    for module in (*modules, "xmem", "xmem.arena", "xmem.base.errors", "xmem.stats"):
        assert importlib.import_module(module).__doc__
