# SPDX-License-Identifier: BSD-3-Clause
"""Layers: a module imports from its own directory and from layers below it.

The directory gives a module its layer. The order of the layers is the line of
docs/developing.md that starts with ``base <``, so that page and code agree.
"""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "developing.md"
#: Modules at the root of the package, by their layer; `data` holds no code.
AT_THE_ROOT = {
    "verbs": {"verbs"},
    "objects": {
        *("allocator", "capi", "datamem", "defaults", "heap", "pool", "stats"),
        "data",
    },
}
#: The package itself: its face, on which only the layers above the objects rest.
FACE = "xmem"

pytestmark = pytest.mark.skipif(
    not PAGE.is_file(), reason="the pages are in a checkout only"
)


def layers():
    """Rank of each layer; those in one place of the order share it."""
    (line,) = re.findall(r"^[ `]*(base < [^`\n]*)`?$", PAGE.read_text(), re.MULTILINE)
    places = [place.split(", ") for place in line.strip().split(" < ")]
    return {name: rank for rank, place in enumerate(places) for name in place}


def module_of(path):
    """Dotted name of a file: of its header, if it is a source."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    if parts[0] == "pyx":
        parts = ("xmem", *parts[1:])
    elif parts[0] == "arena":
        parts = ("xmem", *parts)
    return ".".join(parts).removesuffix(".__init__")


def layer_of(module):
    """Name of a module's layer."""
    name = module.split(".")[1] if module != FACE else "objects"
    for layer, names in AT_THE_ROOT.items():
        if name in names:
            return layer
    return name


def files():
    """Every file of the package with code, and its dotted name."""
    found = [
        (module_of(path), path)
        for folder in ("xmem", "pyx", "arena")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {".pxd", ".pyx", ".py"} and path.name != "build_ext.py"
    ]
    return sorted(found)


def imports(path, word="c?import"):
    """Modules of xmem that a file imports, wherever it does so."""
    text = path.read_text()
    return set(re.findall(rf"^\s*from (xmem[\w.]*) {word} ", text, re.MULTILINE)) | set(
        re.findall(rf"^\s*{word} (xmem[\w.]*)", text, re.MULTILINE)
    )


def test_every_directory_is_a_layer():
    of_the_tree = {layer_of(name) for name, _ in files()}
    assert of_the_tree | {"verbs"} == set(layers())


@pytest.mark.parametrize(("name", "path"), files(), ids=lambda value: str(value)[-30:])
def test_imports_go_down(name, path):
    ranks = layers()
    upwards = [
        module
        for module in imports(path)
        if layer_of(module) != layer_of(name)
        and ranks[layer_of(module)] >= ranks[layer_of(name)]
    ]
    assert not upwards, f"{name} imports {upwards}"


def test_the_legacy_engine_and_tlsf_do_not_know_each_other():
    for one, other in (("tlsf", "firstfit"), ("firstfit", "tlsf")):
        header = ROOT / "xmem" / "engine" / f"{one}.pxd"
        assert f"xmem.engine.{other}" not in imports(header)


def test_plain_modules_import_no_compiled_one():
    """What a compiled module imports when it is imported itself."""
    compiled = {
        module_of(path)
        for name in ("pyx", "arena")
        for path in (ROOT / name).rglob("*.pyx")
    }
    for folder in ("pyx", "arena"):
        for path in (ROOT / folder).rglob("*.pyx"):
            for module in imports(path, "import") - compiled - {FACE, "xmem.arena"}:
                plain = ROOT.joinpath(*module.split(".")).with_suffix(".py")
                assert plain.exists(), (path, module)
                assert not imports(plain) & compiled, module


def test_system_calls_are_in_one_file():
    for name, path in files():
        if path.suffix == ".py":
            continue
        text = path.read_text()
        calls = re.findall(r"posix\.\w+ cimport|sys/mman\.h|^import fcntl", text, re.M)
        assert not calls or name == "xmem.arena.vm", (name, calls)
