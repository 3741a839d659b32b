# SPDX-License-Identifier: BSD-3-Clause
"""The README and the pages in docs/ tell the truth.

Their Python runs, their links and paths lead somewhere, their signatures are those
of the stubs, the tables of the format are those of an arena made now, and what they
name exists under that name.
"""

import ast
import ctypes
import importlib
import os
import pkgutil
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import xmem
from xmem.measure import replay

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"

pytestmark = pytest.mark.skipif(
    not DOCS.is_dir(), reason="the pages are in a checkout only"
)

#: The section of the commands.
JOBS = "One command per job"
#: Folders that commands make, see .gitignore.
IGNORED = r"\.(?!ci$)|build$|dist$|demo-output$|soak-faults$|__pycache__$|.*\.egg-info$"

#: What a page does on a large scale, done on a small one.
SMALLER = {"founding_load(50_000)": "founding_load(500)"}


def pages():
    return [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]


def all_pages():
    return [
        *pages(),
        *(ROOT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md")),
        *(ROOT / "asv_bench").rglob("README.md"),
        *(ROOT / "xmem").rglob("README.md"),
    ]


def python_of(page):
    """The Python of a page, one program: later blocks go on where others ended.

    All other lines are empty, so that an error names the line in the page.
    """
    text = page.read_text()
    kept = [""] * (text.count("\n") + 1)
    for match in re.finditer(r"^```python\n(.*?)^```$", text, re.M | re.S):
        first = text[: match.start(1)].count("\n")
        lines = match[1].splitlines()
        kept[first : first + len(lines)] = lines
    return "\n".join(kept)


def programs():
    """The pages that hold Python."""
    return [page for page in pages() if python_of(page).strip()]


def section(page, title):
    """Text of a page under a heading, up to the next of any level."""
    text = (DOCS / page).read_text()
    return re.search(rf"^#+ {title}$(.*?)(?=^#|\Z)", text, re.M | re.S)[1]


def rows(text):
    """Cells of the tables in a text, without their head."""
    lines = re.findall(r"^\| (.*) \|$", text, re.M)
    return [[cell.strip() for cell in line.split("|")] for line in lines]


# Code and links --------------------------------------------------------------


@pytest.mark.parametrize("page", programs(), ids=lambda page: page.name)
def test_the_python_runs(page, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    code = python_of(page)
    for large, small in SMALLER.items():
        code = code.replace(large, small)
    exec(compile(code, page, "exec"), {"__name__": "page"})


def test_the_readme_begins_with_ten_lines_of_code():
    text = (ROOT / "README.md").read_text()
    block = re.search(r"^## Ten lines$.*?^```python\n(.*?)^```$", text, re.M | re.S)[1]
    assert len([line for line in block.splitlines() if line.strip()]) == 10


@pytest.mark.parametrize("page", all_pages(), ids=lambda page: str(page)[-24:])
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.*)$", linked.read_text(), re.M)
            slugs = {
                re.sub(r"[^\w -]", "", t).lower().replace(" ", "-") for t in titles
            }
            assert anchor in slugs, target


def test_paths_that_a_page_names_are_there():
    """Those of the source; the rest is made by commands, or stands for any name."""
    folders = "xmem|pyx|arena|tests|docs|asv_bench"
    made = ("docs/_build", "asv_bench/env")
    for page in all_pages():
        for path in re.findall(rf"`((?:{folders})/[\w./-]+)`", page.read_text()):
            if path.startswith(made) or re.search(r"\bP\b|LAYER|\bname\b", path):
                continue
            # A module may be named without the suffix of its header.
            suffixes = ("", ".pxd", ".py")
            assert any((ROOT / f"{path}{end}").exists() for end in suffixes), path


def test_every_page_is_in_the_index_and_in_its_table_of_contents():
    index = (DOCS / "index.md").read_text()
    contents = re.findall(r"^```\{toctree\}\n(.*?)^```$", index, re.M | re.S)
    entries = re.findall(r"^([\w/-]+)$", "\n".join(contents), re.M)
    pages = {page.stem for page in DOCS.glob("*.md")} - {"index"} | {"examples/README"}
    assert sorted(entries) == sorted(pages)
    for page in pages:
        assert f"]({page}.md)" in index, page


# The commands ----------------------------------------------------------------


def phony():
    """The verbs of the Makefile, and the makefile."""
    makefile = (ROOT / "Makefile").read_text().replace("\\\n", "")
    return set(re.search(r"^\.PHONY: (.*)$", makefile, re.M)[1].split()), makefile


def test_every_make_target_is_described():
    targets, makefile = phony()
    helped = re.findall(r"^([\w-]+):.*## \S", makefile, re.M)
    assert len(helped) == len(set(helped))
    assert set(helped) == targets
    listed = re.findall(r"^\| `make ([\w-]+)`", section("developing.md", JOBS), re.M)
    assert listed == helped
    proofs = re.search(r"^PROOFS := (.*)$", makefile, re.M)[1].split()
    assert all((ROOT / "tests" / "proofs" / f"{name}.py").is_file() for name in proofs)
    targets |= {f"proof-{name}" for name in proofs}
    for page in all_pages():
        named = re.findall(r"(?:^|`)make ([\w-]+)(?=`|\s+#|$)", page.read_text(), re.M)
        assert set(named) <= targets, page


def test_make_help_has_every_verb():
    make = shutil.which("make")
    if make is None:
        pytest.skip("there is no make")
    shown = subprocess.run(
        [make, "--no-print-directory", "help"],
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if k != "LD_PRELOAD"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert set(re.findall(r"^  make ([\w-]+)  ", shown, re.M)) == phony()[0]


def test_recipes_are_short():
    for recipe in re.findall(r"(?:^\t.*\n)+", phony()[1], re.M):
        assert recipe.count("\n") <= 3, recipe


def test_scripts_of_ci_are_run_by_someone():
    text = "".join(
        path.read_text()
        for path in (
            ROOT / "Makefile",
            ROOT / ".pre-commit-config.yaml",
            *(ROOT / ".ci").iterdir(),
        )
    )
    for script in (ROOT / ".ci").iterdir():
        assert os.access(script, os.X_OK), script
        assert script.name == "run" or f" .ci/{script.name}" in text, script


def test_tests_that_settings_name_are_there():
    for page in (
        *(ROOT / "pyproject.toml", ROOT / "Makefile", DOCS / "developing.md"),
        *(ROOT / ".ci").iterdir(),
    ):
        for path in re.findall(r"\btests/[\w/]+(?:\.\w+)?", page.read_text()):
            assert "LAYER" in path or (ROOT / path).exists(), f"{page}: {path}"


def test_ci_runs_what_the_page_says():
    run = (ROOT / ".ci" / "run").read_text()
    parts = re.findall(r"^part make (\w+)", run, re.M)
    text = re.search(r"`\.ci/run` is(.*?)\. It", section("developing.md", JOBS), re.S)[
        1
    ]
    assert re.findall(r"`(\w+)`", text) == parts


# The tree --------------------------------------------------------------------


def test_the_tree_is_that_of_the_page():
    listed = re.findall(r"^    ([.\w]+)/ ", section("developing.md", "The tree"), re.M)
    assert len(listed) == len(set(listed))
    there = {
        path.name
        for path in ROOT.iterdir()
        if path.is_dir() and not re.match(IGNORED, path.name)
    }
    assert set(listed) == there


@pytest.mark.parametrize("part", ["verbs", "modules"])
def test_lists_for_developers_are_those_of_the_files(part, monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    figures = importlib.import_module("figures")
    shown = importlib.import_module("measured").part_of(figures.DEVELOPING, part)
    hint = f"python docs/figures.py {part} writes it"
    assert shown == figures.PARTS[figures.DEVELOPING, part](), hint


def test_every_command_that_a_page_names_is_there():
    click = pytest.importorskip("click")
    from xmem.cli.group import xmem as group

    commands = set(group.list_commands(click.Context(group)))
    for page in pages():
        text = page.read_text()
        shell = "\n".join(re.findall(r"^```sh\n(.*?)^```$", text, re.M | re.S))
        named = re.findall(r"^xmem ([a-z]+)", shell, re.M)
        named += re.findall(r"(?:^    |`)xmem ([a-z]+)", text, re.M)
        assert set(named) <= commands, page


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_names_of_the_package_that_a_page_gives_are_there(page):
    for name in re.findall(r"`(xmem\.[A-Za-z_][\w.]*\w)", page.read_text()):
        if name != "xmem.arena.name":  # of how to add a module
            pkgutil.resolve_name(name)


# The interface ---------------------------------------------------------------

#: Section of the interface, the stub of its names, and the class whose methods it has.
SECTIONS = [
    ("Without preparation", "defaults.py", None),
    ("`xmem.Arena`", "arena/arena.pyi", "Arena"),
    ("`xmem.Pool`", "pool.pyi", "Pool"),
    ("`xmem.Heap`", "heap.pyi", "Heap"),
    ("`xmem.Allocator`", "allocator.pyi", "Allocator"),
    ("`xmem.Block`", "allocator.pyi", "Block"),
    ("`xmem.numpy_memory`", "datamem.pyi", "numpy_memory"),
    ("Allocation sites", "arena/sites.pyi", None),
    ("`xmem.measure.replay`", "measure/replay.pyi", None),
    ("`xmem.measure.insn`", "measure/insn.pyi", None),
    ("`xmem.measure.cycles`", "measure/cycles.pyi", None),
    ("`xmem.measure.peers`", "measure/peers.pyi", None),
    ("`xmem.measure.floors`", "measure/floors.pyi", None),
    ("`xmem.measure.waste`", "measure/waste.py", None),
]
#: What those sections name of other modules, and where it is.
ELSEWHERE = {
    "ReplayResult": "measure/trace.py",
    "load": "measure/trace.py",
    "Counts": "measure/counts.py",
    "Scenario": "measure/scenarios.py",
    "xmem.measure.scenarios.scenario": "measure/scenarios.py",
}
#: Calls in a cell that show what to write, not what a function takes.
NOT_SIGNATURES = ("routines_of", "len", "memoryview")


def calls_on_the_page(title):
    """Calls that the tables of a section show: name to its parameters."""
    cells = [cell for row in rows(section("api.md", title)) for cell in row]
    calls = [
        call for cell in cells for call in re.findall(r"`([\w.]+\([^`]*\))`", cell)
    ]
    found = {}
    for call in calls:
        name, _, arguments = call.removesuffix(")").partition("(")
        found[name] = [
            a for a in arguments.split(", ") if a != "" and not a.startswith("*")
        ]
    return found


def stub_signature(stub, cls, name):
    """Parameters of what a section calls ``name``, from the source of its types."""
    parts = name.split(".")
    where = ELSEWHERE.get(name, ELSEWHERE.get(parts[0], stub))
    tree = ast.parse((ROOT / "xmem" / where).read_text())
    defined = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    classes = {node.name: node.body for node in defined}
    bases = {node.name: [ast.unparse(base) for base in node.bases] for node in defined}
    owner = parts[-2] if len(parts) > 1 and parts[-2] in classes else cls
    method = parts[-1]
    if parts[-1] in classes:
        owner, method = parts[-1], "__init__"
    body = tree.body if owner is None else [*classes[owner]]
    for base in bases.get(owner, ()):
        body += classes.get(base, [])
    found = [
        stub_parameters(node.args)
        for node in body
        if isinstance(node, ast.FunctionDef) and node.name == method
    ]
    assert found, name
    return found[0]


@pytest.mark.parametrize(("title", "stub", "cls"), SECTIONS, ids=lambda s: str(s))
def test_signatures_are_those_of_the_stubs(title, stub, cls):
    calls = calls_on_the_page(title)
    assert calls
    for name, shown in calls.items():
        if name not in NOT_SIGNATURES:
            assert shown == stub_signature(stub, cls, name), name


@pytest.mark.parametrize(
    ("title", "stub", "cls"), [s for s in SECTIONS if s[2]], ids=lambda s: str(s)
)
def test_every_public_member_is_in_its_section(title, stub, cls):
    """A method with its signature, a property by its name."""
    text = section("api.md", title)
    calls = {name.split(".")[-1] for name in calls_on_the_page(title)}
    tree = ast.parse((ROOT / "xmem" / stub).read_text())
    body = next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == cls)
    for node in body.body:
        if not isinstance(node, ast.FunctionDef) or node.name.startswith("__"):
            continue
        if any("property" in ast.unparse(d) for d in node.decorator_list):
            assert f"`{node.name}`" in text, node.name
        elif not any("setter" in ast.unparse(d) for d in node.decorator_list):
            assert node.name in calls, node.name
    own = {name for name in vars(getattr(xmem, cls)) if not name.startswith("_")}
    for name in own:
        assert name in calls or f"`{name}`" in text, name


def test_every_public_name_is_in_the_interface():
    text = (DOCS / "api.md").read_text()
    for name in xmem.__all__:
        assert re.search(rf"`(xmem\.)?{name}[`(]", text), name


@pytest.mark.parametrize(("title", "stub"), [s[:2] for s in SECTIONS if not s[2]])
def test_every_public_function_of_a_module_is_in_its_section(title, stub):
    tree = ast.parse((ROOT / "xmem" / stub).read_text())
    calls = calls_on_the_page(title)
    for node in tree.body:
        is_public = isinstance(node, ast.FunctionDef) and node.name[0] != "_"
        assert not is_public or node.name in calls or node.name == "play_touched"


@pytest.mark.parametrize("name", ["ArenaStats", "PoolStats", "HeapStats"])
def test_every_figure_is_in_the_interface(name):
    listed = {row[0]: row[1] for row in rows(section("api.md", "Figures"))}
    fields = re.findall(r"`(\w+)`", listed[f"`{name}`"])
    assert tuple(fields) == getattr(xmem, name)._fields


def stub_parameters(arguments):
    """Parameters of one method, as they would be called."""
    plain = arguments.posonlyargs + arguments.args
    defaults = [None] * (len(plain) - len(arguments.defaults)) + arguments.defaults
    both = [
        *zip(plain, defaults, strict=True),
        *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True),
    ]
    return [
        name.arg
        if default is None
        else f"{name.arg}={ast.unparse(default)}".replace("'", '"')
        for name, default in both
        if name.arg != "self"
    ]


def test_every_error_is_in_the_interface():
    listed = {
        row[0].strip("`"): row[1].strip("`")
        for row in rows(section("api.md", "Errors"))
    }
    errors = {
        name
        for name, value in vars(xmem).items()
        if isinstance(value, type) and issubclass(value, Exception)
    }
    assert set(listed) - {"", "---"} == errors - {"XmemError"}
    for name, base in listed.items():
        if name in errors and base:
            assert base in {cls.__name__ for cls in getattr(xmem, name).__mro__}


def test_the_interface_names_what_replay_has():
    for name in re.findall(
        r"^\| `(\w+)", section("api.md", "`xmem.measure.replay`"), re.M
    ):
        assert hasattr(replay, name)


# The format ------------------------------------------------------------------


@pytest.fixture
def arena():
    """An arena with a pool of each engine, in pages that were used before."""
    with xmem.Arena.anonymous(1 << 20, page_size=4096, max_pools=5) as arena:
        dirt = arena.page_alloc(arena.largest_free_order)
        arena.view(dirt)[:] = b"\xaa" * (arena.run_pages(dirt) * arena.page_size)
        arena.page_free(dirt)
        for engine in ("tlsf", "firstfit"):
            pool = xmem.Pool(arena, name=f"of {engine}", engine=engine, max_pages=100)
            pool.xfree(pool.xmalloc(100))
            pool.xmalloc(200, align=256)
        yield arena


def fields(title):
    """(offset, bytes, what) of a table of the format."""
    found = [row for row in rows(section("format.md", title)) if row[0].isdigit()]
    return [(int(offset), int(size), what) for offset, size, what in found]


def word(arena, offset, n_bytes):
    """A word of an arena."""
    held = ctypes.string_at(arena.address(offset), n_bytes)
    return int.from_bytes(held, "little")


def words_of(arena, title, start=0):
    """Words of an arena by what the format says of them."""
    return {
        what: word(arena, start + offset, size) for offset, size, what in fields(title)
    }


def find(words, text):
    """The one word of which the format says this."""
    found = [value for what, value in words.items() if text in what]
    assert len(found) == 1, (text, found)
    return found[0]


@pytest.mark.parametrize(
    ("title", "end"),
    [("Superblock", 1024), ("Pool directory", 64), ("Control block", 704)],
)
def test_fields_follow_one_another(title, end):
    reached = 0
    for offset, size, what in fields(title):
        assert offset == reached, what
        reached += size
    assert reached == end


def test_the_superblock_is_as_the_page_says(arena):
    words = words_of(arena, "Superblock")
    assert ctypes.string_at(arena.address(0), 8) == b"XMEM\r\n\x1a\n"
    assert find(words, "format version") == 9
    assert find(words, "byte order") == 0x01020304
    assert find(words, "`n_bytes`") == arena.n_bytes
    assert find(words, "bytes of a page") == arena.page_size
    assert find(words, "`n_pages`") == arena.n_pages
    assert find(words, "`first_page`") == arena.first_page
    assert find(words, "`max_pools`") == 5
    assert find(words, "offset of the pool directory") == 1024
    assert find(words, "offset of the frame table") == 1024 + 64 * 5
    assert find(words, "offset of the start bitmap") == (
        1024 + 64 * 5 + 16 * arena.n_pages
    )
    assert find(words, "pools made so far") == 2
    assert find(words, "number of free pages") == arena.n_free_pages
    assert find(words, "reserved: 0") == 0
    assert find(words, "of a shared arena: id of the kernel's boot") == 0
    states = rows(section("format.md", "Superblock"))
    ready = next(int(row[1], 16) for row in states if row[0] == "READY")
    assert words["state"] == ready


def test_directory_and_control_blocks_are_as_the_page_says(arena):
    for number, engine in ((1, "tlsf"), (2, "firstfit")):
        pool = xmem.Pool.open(arena, f"of {engine}")
        start = 1024 + 64 * (number - 1)
        entry = words_of(arena, "Pool directory", start)
        name = ctypes.string_at(arena.address(start), 40)
        assert name.rstrip(b"\0").decode() == pool.name
        assert find(entry, "engine") == number
        assert find(entry, "2 READY") == 2
        at = find(entry, "offset of the control block")
        words = words_of(arena, "Control block", at)
        assert find(words, "magic").to_bytes(4, "little") == b"POOL"
        assert find(words, "number of the pool") == pool.id
        assert find(words, "`max_request`") == arena.n_bytes - arena.page_size
        assert find(words, "`grow_pages`") == pool.grow_pages
        assert find(words, "`max_pages`") == 100
        assert find(words, "room for a lock") == 0
        assert find(words, "interface of the heap") == 0
        stats = pool.stats()
        assert words["pages held"] == stats.n_pages
        assert words["regions"] == stats.n_regions
        kind = "TLSF" if engine == "tlsf" else "legacy"
        assert find(words, f"{kind}: blocks in use") == stats.live_blocks
        assert find(words, f"{kind}: tag") == pool.id << 5
        if engine == "tlsf":
            assert find(words, "offset of the bins") == at + 704


def test_states_of_runs_are_as_the_page_says():
    states = {
        row[1]: int(row[0])
        for row in rows(section("format.md", "Frame table"))
        if row[0].isdigit()
    }
    there = {
        name.removeprefix("FRAME_"): value
        for name, value in vars(xmem.arena).items()
        if name.startswith("FRAME_") and isinstance(value, int)
    }
    assert states == there


def test_every_invariant_is_listed_once_and_checked():
    listed = re.findall(r"^- \*\*([A-Z]\d)\*\*", (DOCS / "format.md").read_text(), re.M)
    assert len(listed) == len(set(listed))
    stated = set()
    checked = set()
    for header in (ROOT / "xmem").rglob("*.pxd"):
        text = header.read_text()
        stated |= set(re.findall(r"^([SPBFVLCHJ]\d)  \w", text, re.M))
        found = re.findall(r'invariant\(c"(\w)", (\d)\)', text)
        checked |= {letter + number for letter, number in found}
    assert set(listed) == stated
    # A superblock is judged in Python before it is mapped, a journal when it is obeyed.
    assert checked == stated - {"S1", "S2", "S3", "J1"}


# The journey -----------------------------------------------------------------


def test_what_the_journey_names_is_in_the_file_it_names():
    text = (DOCS / "xfree.md").read_text()
    sources = {
        path.relative_to(ROOT).as_posix(): path.read_text()
        for folder in ("xmem", "pyx", "arena")
        for suffix in ("*.pxd", "*.pyx")
        for path in (ROOT / folder).rglob(suffix)
    }
    for path in re.findall(r"[\w/]+\.p(?:xd|yx)", text):
        assert path in sources, path
    pairs = re.findall(r"`([\w.]+)`\s\((?:`)([\w/.]+)`\)", text)
    pairs += re.findall(r"^\s+([\w.]+)  .* ([\w/]+\.p(?:xd|yx))$", text, re.M)
    assert len(pairs) > 15
    for name, path in pairs:
        assert re.search(rf"\b{name.split('.')[-1]}\b", sources[path]), (name, path)
    everything = (
        "\n".join(sources.values()) + (ROOT / "xmem/base/errors.py").read_text()
    )
    for name in re.findall(r"`([A-Za-z]\w+(?:\.[a-z_]+)?)`", text):
        last = name.split(".")[-1]
        assert re.search(rf"\b{last}\b", everything), name
