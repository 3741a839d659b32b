# SPDX-License-Identifier: BSD-3-Clause
"""Layers: compiled modules and headers import downwards only.

The order is the table of docs/developing.md, so that page and code agree.
"""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "developing.md"
SOURCES = {"pyx": "xmem.", "arena": "xmem.arena."}
PLAIN = {"xmem.measure.counts", "xmem.base.errors", "xmem.stats", "xmem.measure.trace"}

pytestmark = pytest.mark.skipif(
    not PAGE.is_file(), reason="the pages are in a checkout only"
)


def layers():
    """Rank of each module in the table of the page."""
    text = PAGE.read_text().split("## Who may import whom")[1].split("##")[0]
    lines = [line.split() for line in text.splitlines() if line.startswith("    ")]
    return {f"xmem.{name}": rank for rank, line in enumerate(lines) for name in line}


def files():
    """Headers and sources, with the dotted name of each."""
    found = []
    for path in (ROOT / "xmem").rglob("*.pxd"):
        if path.name != "__init__.pxd":
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            found.append((name, path))
    for folder, prefix in SOURCES.items():
        found += [(prefix + path.stem, path) for path in (ROOT / folder).glob("*.pyx")]
    return sorted(found)


def imports(path, word):
    """Modules of xmem that a file imports, and what it takes of each."""
    pattern = rf"^\s*from (xmem[\w.]*) {word} (\((?:[^)]*)\)|.*)$"
    found = re.findall(pattern, path.read_text(), re.MULTILINE)
    return {
        module: set(re.findall(r"\w+", re.sub(r"\w+ as ", "", names)))
        for module, names in found
    }


def test_the_table_has_every_module_and_no_other():
    assert {name for name, _ in files()} == set(layers())


@pytest.mark.parametrize(("name", "path"), files(), ids=lambda value: str(value)[-30:])
def test_cimports_go_down(name, path):
    ranks = layers()
    for module in imports(path, "cimport"):
        assert ranks[module] < ranks[name] or module == name, (name, module)


def test_python_imports_of_sources_go_down():
    ranks = layers()
    ranks["xmem.arena"] = ranks["xmem.arena.arena"]
    for name, path in files():
        for module in imports(path, "import"):
            if module not in PLAIN:
                assert ranks[module] < ranks[name] or name.startswith(module)


def test_the_arena_knows_no_blocks_and_engines_no_pages():
    knows_blocks = {"block", "mapping", "freelists", "tlsf", "firstfit", "startbits"}
    for name, path in files():
        for module, names in imports(path, "cimport").items():
            last = module.removeprefix("xmem.")
            if name.startswith("xmem.arena.") and last in knows_blocks:
                assert (last, names) == ("block", {"offset_t"}), (name, module)
            if name.removeprefix("xmem.") in knows_blocks - {"startbits"}:
                assert not last.startswith("arena"), (name, module)


def test_plain_modules_import_no_compiled_one():
    for module in PLAIN:
        path = ROOT.joinpath(*module.split(".")).with_suffix(".py")
        assert set(imports(path, "import")) <= PLAIN


def test_system_calls_are_in_one_file():
    for name, path in files():
        text = path.read_text()
        calls = re.findall(r"posix\.\w+ cimport|sys/mman\.h|^import fcntl", text, re.M)
        assert not calls or name == "xmem.arena.vm", (name, calls)
