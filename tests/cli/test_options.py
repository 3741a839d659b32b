# SPDX-License-Identifier: BSD-3-Clause
"""The options of all commands: one meaning for a name, each in docs/commands.md."""

import re
from pathlib import Path

import click
import pytest

import xmem.cli
from xmem.cli.group import COMMANDS
from xmem.cli.group import xmem as group
from xmem.cli.stress.heaps import stress, stress_frames
from xmem.cli.stress.stores import stress_diffengine, stress_tmem

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "commands.md"
SESSION = "Options of every session"

#: Every command, and the sections of the page that hold its options.
SECTIONS = {
    **{f"xmem {name}": (f"xmem {name}",) for name in COMMANDS},
    "xmem check": ("xmem check FILE",),
    "xmem replay": ("xmem replay TRACE...",),
    "xmem-stress": ("xmem-stress", SESSION),
    "xmem-stress-frames": ("xmem-stress-frames", SESSION),
    "xmem-stress-tmem": ("xmem-stress-tmem", SESSION),
    "xmem-stress-diffengine": ("xmem-stress-diffengine", SESSION),
}

needs_page = pytest.mark.skipif(
    not PAGE.is_file(), reason="the page is in a checkout only"
)


def all_commands() -> dict[str, click.Command]:
    """Every command by name."""
    ctx = click.Context(group)
    return {
        **{f"xmem {name}": group.get_command(ctx, name) for name in COMMANDS},
        "xmem-stress": stress,
        "xmem-stress-frames": stress_frames,
        "xmem-stress-tmem": stress_tmem,
        "xmem-stress-diffengine": stress_diffengine,
    }


def context(command: click.Command) -> click.Context:
    """A context in which a command's help would be shown."""
    settings = command.context_settings or group.context_settings
    return click.Context(command, **settings)


def options(command: click.Command) -> list[click.Option]:
    return [param for param in command.params if isinstance(param, click.Option)]


def signature(option: click.Option, ctx: click.Context) -> str:
    """An option as the page writes it: --json FILE."""
    if option.is_flag:
        return option.opts[0]
    return f"{option.opts[0]} {option.make_metavar(ctx).strip('[]')}"


def shown_default(option: click.Option, ctx: click.Context) -> str:
    """The default of an option as ``--help`` shows it, without the brackets."""
    default = option.get_help_extra(ctx).get("default")
    if default is None:
        return "off" if option.is_flag else "none"
    return re.sub(r"^\((.*)\)$", r"\1", default)


# One meaning --------------------------------------------------------------------


def test_an_option_of_one_name_means_the_same_everywhere() -> None:
    #: What may differ: defaults, how many, and which engines or things there are.
    seen: dict[str, dict[str, tuple[object, ...]]] = {}
    for name, command in all_commands().items():
        ctx = context(command)
        for option in options(command):
            text = (option.help or "").removesuffix(" May be given again.")
            text = text.removesuffix(", instead of an engine.").removesuffix(".")
            if option.opts[0] == "--engine":
                text = text.split(";")[0]
            if option.opts[0] in ("--plot", "--load"):
                text = text.split()[0] if option.opts[0] == "--plot" else "load"
            kind = type(option.type).__name__
            bounds = getattr(option.type, "min", None), getattr(option.type, "max", 0)
            metavar = "" if kind == "Choice" else signature(option, ctx)
            meaning = (text, kind, bounds, metavar, option.is_flag)
            seen.setdefault(option.opts[0], {})[name] = meaning
    assert len(seen) > 25
    several = {name: by for name, by in seen.items() if len(set(by.values())) > 1}
    assert not several


def test_choices_of_one_option_are_the_same_or_a_part() -> None:
    choices: dict[str, list[tuple[str, ...]]] = {}
    for name, command in all_commands().items():
        for option in options(command):
            if isinstance(option.type, click.Choice):
                found = tuple(option.type.choices)
                key = f"{name} --load" if "--load" in option.opts else option.opts[0]
                choices.setdefault(key, []).append(found)
    for found in choices.values():
        longest = max(found, key=len)
        assert all(each == longest[: len(each)] for each in found)


def test_whatever_may_be_given_again_says_so() -> None:
    for command in all_commands().values():
        for option in options(command):
            assert option.multiple == (option.help or "").endswith(
                "May be given again."
            )


@pytest.mark.parametrize("name", SECTIONS)
def test_every_option_has_a_help_that_is_a_sentence(name: str) -> None:
    for option in options(all_commands()[name]):
        assert re.match(r"[A-Z].*\.$", option.help or "", re.S), option.opts


# The page -----------------------------------------------------------------------


def rows_of(title: str) -> dict[str, tuple[str, str]]:
    """Meaning and default by option, of the tables in a section of the page."""
    section = re.search(
        rf"^#+ `?{re.escape(title)}`?$(.*?)(?=^#|\Z)", PAGE.read_text(), re.M | re.S
    )
    assert section is not None, title
    rows = re.findall(r"^\| `(--.*?)` \| (.*) \| (.*) \|$", section[1], re.M)
    return {
        option.replace("\\|", "|"): (meaning, plain(default))
        for option, meaning, default in rows
    }


def plain(cell: str) -> str:
    """The text of a cell, without links, quotes and commas in numbers."""
    text = re.sub(r"\[(.*?)\]\(.*?\)", r"\1", cell.strip()).replace("`", "")
    return re.sub(r"(?<=\d),(?=\d)", "", text)


@needs_page
@pytest.mark.parametrize("name", SECTIONS)
def test_the_page_has_every_option_with_its_default(name: str) -> None:
    command = all_commands()[name]
    ctx = context(command)
    rows: dict[str, tuple[str, str]] = {}
    for title in SECTIONS[name]:
        rows |= rows_of(title)
    expected = {
        signature(option, ctx): shown_default(option, ctx)
        for option in options(command)
    }
    assert {option: default for option, (_, default) in rows.items()} == expected
    for option in options(command):
        meaning = rows[signature(option, ctx)][0]
        assert option.multiple == ("may be given again" in meaning), option.opts


@needs_page
def test_the_page_has_no_other_table_of_options() -> None:
    titles = {title for titles in SECTIONS.values() for title in titles}
    n_rows = sum(len(rows_of(title)) for title in titles)
    assert n_rows == len(re.findall(r"^\| `--", PAGE.read_text(), re.M))


# The map ------------------------------------------------------------------------


def test_the_map_of_the_package_names_every_module_once() -> None:
    folder = Path(xmem.cli.__file__).parent
    there = [
        path.relative_to(folder).with_suffix("").as_posix()
        for path in folder.rglob("*.py")
        if path.name != "__init__.py"
    ]
    text = (xmem.cli.__doc__ or "").split("::")[1]
    lines = re.findall(r"^    (\S+(?: \S+)*)(?: {2}|$)", text, re.M)
    drawn = [name for line in lines for name in line.split()]
    assert sorted(drawn) == sorted(there)
