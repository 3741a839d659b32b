# SPDX-License-Identifier: BSD-3-Clause
"""Directories are layers: modules import downwards only, and never in a circle.

The order is one line of docs/developing.md, so that page and code agree; the rank of
a module is the directory that it lies in. Of the modules at the root of ``xmem/``,
``verbs`` is a layer of its own and the others are the objects.
"""

import ast
import graphlib
import re
import tomllib
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "developing.md"
#: Where sources lie, and the directory of their headers.
SOURCES = {"pyx": "xmem", "arena": "xmem/arena"}
#: A directory of files that are read, without code that imports anything.
DATA = "data"
#: Lines of code of a compiled function but three checkers, at most.
LONGEST = 40
#: Modules that a file cimports from, at most.
MOST_CIMPORTS = 11
#: Where files lie that cimport from xmem, with the files of xmem itself.
USERS = ("tests", "docs")
#: What of xmem is usable where nothing is compiled.
PLAIN = {"xmem.base.errors", "xmem.stats"}

pytestmark = pytest.mark.skipif(
    not PAGE.is_file(), reason="the pages are in a checkout only"
)


# What is there -------------------------------------------------------------------


def order():
    """Layers from the lowest up; those that share a rank do not know each other."""
    (line,) = re.findall(r"^    (base < .*)$", PAGE.read_text(), re.MULTILINE)
    return [rank.split(", ") for rank in line.split(" < ")]


def ranks():
    return {layer: i for i, names in enumerate(order()) for layer in names}


def files():
    """Headers, sources and Python files of xmem, with the dotted name of each."""
    found = []
    for suffix in ("*.pxd", "*.py", "*.pyi"):
        found += [
            (path.relative_to(ROOT), path) for path in ROOT.glob(f"xmem/**/{suffix}")
        ]
    for folder, headers in SOURCES.items():
        for path in (ROOT / folder).rglob("*.pyx"):
            found.append((headers / path.relative_to(ROOT / folder), path))
    return sorted(
        (".".join(name.with_suffix("").parts).removesuffix(".__init__"), path)
        for name, path in found
    )


def compiled():
    return [(name, path) for name, path in files() if path.suffix in (".pxd", ".pyx")]


def layer_of(name):
    """Layer of a module, by the directory that it lies in."""
    parts = name.split(".")
    if (ROOT / "xmem" / parts[1] if len(parts) > 1 else ROOT / "none").is_dir():
        return parts[1]
    return "verbs" if parts[1:] == ["verbs"] else "objects"


def code_of(path):
    """Text of a Cython file without its docstrings and comments."""
    text = re.sub(r'"""(?:.|\n)*?"""', "", path.read_text())
    text = re.sub(r"^\s*#.*", "", text, flags=re.MULTILINE)
    return re.sub(r"\\\n", " ", text)


def names_of(text):
    """Names in the list of an import, without those that they get here."""
    return re.findall(r"\w+", re.sub(r"\bas \w+", "", text))


def imports(path):
    """Each import of a file: what it says, the module named, and what is taken."""
    if path.suffix in (".py", ".pyi"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: a relative import"
                yield "import", node.module, [name.name for name in node.names]
            elif isinstance(node, ast.Import):
                for name in node.names:
                    yield "import", name.name, []
        return
    # A statement starts a line, or follows another or a head on the same line.
    start = r"(?:^|[;:])[ \t]*"
    code = code_of(path)
    pattern = start + r"from\s+([\w.]+)\s+(c?import)\s*(\([^)]*\)|[^;#\n]*)"
    for module, word, names in re.findall(pattern, code, re.MULTILINE):
        assert not module.startswith("."), f"{path}: a relative import"
        yield word, module, names_of(names)
    pattern = start + r"(c?import)\s+([\w.]+(?:\s+as\s+\w+)?(?:\s*,\s*[\w.]+)*)"
    for word, modules in re.findall(pattern, code, re.MULTILINE):
        for module in re.sub(r"\s+as\s+\w+", "", modules).split(","):
            yield word, module.strip(), []


def other_ways(path):
    """Whatever lets a file reach another one but an import: none of it is followed."""
    text = path.read_text() if path.suffix in (".py", ".pyi") else code_of(path)
    ways = r"import_module|__import__|sys\.modules|\bexec\(|^\s*include\b"
    return re.findall(ways + r"|from\s+[\"']xmem/[^\"']*", text, re.MULTILINE)


def uses(name, path):
    """Modules of xmem that a file uses, other than itself."""
    known = {known for known, _ in files()}
    for word, module, names in imports(path):
        if module.split(".")[0] != "xmem":
            continue
        # `from xmem.measure import insn` takes a module, not a name of the package.
        taken = {f"{module}.{one}" for one in names} & known or {module}
        for used in taken - {name}:
            yield word, used


# The order -----------------------------------------------------------------------


def test_every_directory_is_a_layer_of_the_line():
    there = {
        path.name
        for path in (ROOT / "xmem").iterdir()
        if path.is_dir() and path.name != "__pycache__"
    }
    assert there - {DATA} == set(ranks()) - {"verbs", "objects"}
    for name, path in files():
        if layer_of(name) == DATA:
            assert not list(uses(name, path)), path


def test_sources_lie_where_they_are_read():
    """Cython's sources apart from the package, nothing in pieces that are included."""
    assert not [*(ROOT / "xmem").rglob("*.pyx"), *ROOT.glob("[axp][mry]*/**/*.pxi")]


def test_there_is_no_other_way_to_a_module_than_an_import():
    """But for the commands, loaded by name, and headers in C of the layer itself."""
    found = {
        (path.relative_to(ROOT).as_posix(), way)
        for _, path in files()
        for way in other_ways(path)
    }
    assert found == {
        ("xmem/cli/group.py", "import_module"),
        ("pyx/capi.pyx", 'from "xmem/xmem.h'),
        ("pyx/measure/peers.pyx", 'from "xmem/measure/peer.h'),
    }


WRITTEN = """
from xmem.a \\
    cimport one
from  xmem.b   cimport (
    two,
    three as four,
)
cimport numpy as cnp, \\
    xmem.c
if True: from xmem.d import five
x = 1; from xmem.e import six; import xmem.f
from libc.stdint cimport uint64_t  # from xmem.g import seven
"""


def test_imports_are_seen_however_they_are_written(tmp_path):
    path = tmp_path / "some.pyx"
    path.write_text(WRITTEN)
    found = [(module, names) for _, module, names in imports(path)]
    assert sorted(found) == [
        ("libc.stdint", ["uint64_t"]),
        ("numpy", []),
        ("xmem.a", ["one"]),
        ("xmem.b", ["two", "three"]),
        ("xmem.c", []),
        ("xmem.d", ["five"]),
        ("xmem.e", ["six"]),
        ("xmem.f", []),
    ]
    for other in (
        'include "some.pxi"',
        'cdef extern from "xmem/xmem.h":',
        'importlib.import_module("xmem.pool")',
    ):
        path.write_text(other + "\n")
        assert other_ways(path), other


@pytest.mark.parametrize("layer", sorted(ranks()) if PAGE.is_file() else [])
def test_imports_go_down(layer):
    rank = ranks()
    rank[DATA] = -1
    upwards = [
        f"{path.relative_to(ROOT)}: {word} {used}"
        for name, path in files()
        if layer_of(name) == layer
        for word, used in uses(name, path)
        if layer_of(used) != layer and rank[layer_of(used)] >= rank[layer]
    ]
    assert upwards == [], "\n".join(upwards)


def test_no_module_imports_itself_by_way_of_others():
    graph = {}
    for name, path in files():
        graph.setdefault(name, set()).update(used for _, used in uses(name, path))
    graphlib.TopologicalSorter(graph).prepare()


def test_everything_named_is_there():
    known = {name for name, _ in files()}
    for name, path in files():
        for _, used in uses(name, path):
            assert used in known, f"{path} imports {used}"


# Who knows what ------------------------------------------------------------------


def knows(first, second):
    """Files of some modules that use others, both given as the start of a name."""
    return [
        path
        for name, path in files()
        if name.startswith(first)
        for _, used in uses(name, path)
        if used.startswith(second)
    ]


def test_engines_know_no_pages_and_the_arena_knows_no_blocks():
    assert knows("xmem.engine.", "xmem.arena") == []
    assert knows("xmem.arena", ("xmem.engine", "xmem.core", "xmem.verbs")) == []


def test_engines_do_not_know_each_other():
    names = {name for name, _ in files()}
    engines = {f"xmem.engine.{name}" for name in ("tlsf", "firstfit")}
    assert engines <= names
    for engine in engines:
        assert knows(engine, tuple(engines - {engine})) == []


def test_system_calls_are_in_three_files():
    homes = {"xmem.arena.vm", "xmem.shared.identity", "xmem.shared.system"}
    for name, path in compiled():
        text = path.read_text()
        calls = re.findall(
            r"posix\.\w+ cimport|sys/mman\.h|sys/syscall\.h|^import fcntl", text, re.M
        )
        assert not calls or name in homes, (path, calls)


def test_plain_modules_import_no_compiled_one():
    for name, path in files():
        if name in PLAIN:
            assert {used for _, used in uses(name, path)} <= PLAIN, path


# Sizes ---------------------------------------------------------------------------


def indent(line):
    return len(line) - len(line.lstrip())


def functions(path):
    """Heads of the functions of a Cython file, and how many lines of code each has.

    Docstrings, comments and empty lines are no code; the head is none either.
    """
    lines = code_of(path).split("\n")
    # A head is a def with a parenthesis that ends in a colon, many lines later
    # perhaps; what has none is a variable or a declaration.
    head = re.compile(
        r"^\s*(?:cdef|cpdef|def)\b"
        r"(?!\s+(?:packed\s+)?(?:struct|union|class|enum|extern)\b).*\("
    )
    i = 0
    while i < len(lines):
        start = i
        i += 1
        if not head.match(lines[start]):
            continue
        depth = 0
        for end in range(start, len(lines)):
            opened = sum(map(lines[end].count, "(["))
            depth += opened - sum(map(lines[end].count, ")]"))
            if depth <= 0:
                break
        if not lines[end].split("#")[0].rstrip().endswith(":"):
            continue
        i = end + 1
        n_lines = 0
        while i < len(lines) and (
            not lines[i].strip() or indent(lines[i]) > indent(lines[start])
        ):
            n_lines += bool(lines[i].strip())
            i += 1
        yield lines[start].strip(), n_lines


def test_functions_are_counted(tmp_path):
    """The count itself, on heads of every kind."""
    path = tmp_path / "some.pyx"
    path.write_text(
        '"""Docstring."""\n'
        "cdef extern from *:\n    int f(int a)\n"
        "cdef struct pair_t:\n    int a\n"
        "cdef int x = min(1, 2)\n"
        "cdef inline int short(\n    int a,\n    int b,\n) noexcept nogil:\n"
        '    """Many\n\n    lines.\n    """\n'
        "    # A comment.\n    a += 1\n\n    return a\n"
        "cdef class Some:\n"
        "    def method(self):\n        if self:\n            return (\n"
        "                1\n            )\n"
        "    cdef int none(self): pass\n"
        "    cpdef other(self):\n        pass\n"
        "cdef int of_class(struct_t* struct) except -1:\n    return 0\n"
    )
    assert list(functions(path)) == [
        ("cdef inline int short(", 2),
        ("def method(self):", 4),
        ("cpdef other(self):", 1),
        ("cdef int of_class(struct_t* struct) except -1:", 1),
    ]


#: Checkers that follow the list of invariants, however long it is.
LONG = {"check_block", "check_identity", "check_slice"}


@pytest.mark.parametrize("layer", sorted(ranks()) if PAGE.is_file() else [])
def test_functions_are_short(layer):
    too_long = [
        f"{path.relative_to(ROOT)}: {n_lines} lines: {head}"
        for name, path in compiled()
        if layer_of(name) == layer
        for head, n_lines in functions(path)
        if n_lines > LONGEST
        and not (layer == "check" and set(re.findall(r"(\w+)\(", head)) & LONG)
    ]
    assert too_long == [], "\n".join(too_long)


def test_no_file_cimports_from_too_many_modules():
    too_many = []
    for name, path in compiled():
        used = {used for word, used in uses(name, path) if word == "cimport"}
        if len(used) > MOST_CIMPORTS:
            too_many.append(f"{path.relative_to(ROOT)}: {len(used)}")
    assert too_many == [], "\n".join(too_many)


# Faces ---------------------------------------------------------------------------


def faces():
    """Headers that re-export names of their directory, but for that of users."""
    return {
        name: path
        for name, path in compiled()
        if path.name == "__init__.pxd" and name != "xmem"
    }


def test_a_face_exports_what_others_cimport_from_it():
    users = {path for _, path in compiled()}
    for folder in USERS:
        users |= {*(ROOT / folder).rglob("*.pyx"), *(ROOT / folder).rglob("*.pxd")}
    taken = {}
    for path in users:
        for word, module, names in imports(path):
            if word == "cimport":
                taken.setdefault(module, set()).update(names)
    assert faces()
    unused = [
        f"{name}: {one}"
        for name, path in faces().items()
        for _, _, names in imports(path)
        for one in sorted(set(names) - taken.get(name, set()))
    ]
    assert unused == [], "\n".join(unused)


# The build -----------------------------------------------------------------------


def entries():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return settings["tool"]["setuptools"]["ext-modules"]


def test_every_source_is_compiled_under_the_name_of_its_header():
    listed = {(entry["name"], *entry["sources"]) for entry in entries()}
    assert len(listed) == len(entries())
    assert listed == {
        (name, path.relative_to(ROOT).as_posix())
        for name, path in files()
        if path.suffix == ".pyx"
    }


def test_flags_come_from_the_hook():
    setuptools = pytest.importorskip("setuptools")
    for entry in entries():
        assert set(entry) <= {"name", "sources", "depends"}
    spec = spec_from_file_location("hook", ROOT / "pyx" / "build_ext.py")
    hook = module_from_spec(spec)
    spec.loader.exec_module(hook)
    modules = [
        setuptools.Extension(entry["name"], entry["sources"]) for entry in entries()
    ]
    command = hook.build_ext(setuptools.Distribution({"ext_modules": modules}))
    command.finalize_options()
    assert command.extensions
    for extension in command.extensions:
        assert extension.extra_compile_args == hook.FLAGS
    assert set(hook.NUMPY_MACROS) <= set(command.define)
