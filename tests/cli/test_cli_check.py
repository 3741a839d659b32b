# SPDX-License-Identifier: BSD-3-Clause
"""`xmem check`: what it prints and changes, and how it ends."""

import shutil
from pathlib import Path

import pytest
import support.damage as fmt
from click.testing import CliRunner, Result
from support.damage import Words

from xmem import Arena, Pool
from xmem.cli.group import xmem

pytestmark = pytest.mark.damages

PAGE = 4096


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    """A closed file with two pools."""
    path = tmp_path / "sound"
    with Arena.create(path, 1 << 20, page_size=PAGE) as arena:
        Pool(arena, name="it").xmalloc(100)
        Pool(arena, name="old", engine="firstfit").xmalloc(100)
    return path


def left(path: Path, *spoils: str) -> Path:
    """A copy of the file, damaged, as a process that died would leave it."""
    copy = path.with_name("left")
    with Arena.open(path) as arena:
        pool = Pool.open(arena, "it")
        words = Words(arena)
        block = int(pool.walk()["offset"][0])
        for spoil in spoils:
            if spoil == "start bit":
                words.flip_start(block)
            elif spoil == "header":
                words.flip(block - 8, fmt.SIZE << 9)
            elif spoil == "frames":
                words.set(fmt.N_FREE_PAGES, 3)
            else:
                words.set(words.frame(arena.first_page), 0)
        shutil.copy(path, copy)
        words.repair()
    return copy


def run(*args: object) -> Result:
    return CliRunner().invoke(xmem, ["check", *map(str, args)])


@pytest.mark.parametrize("options", [[], ["--repair"]])
def test_a_sound_file(sound: Path, options: list[str]) -> None:
    before = sound.read_bytes()
    done = run(*options, sound)
    assert done.exit_code == 0, done.output
    assert done.output.splitlines() == [
        f"{sound}: 1048576 bytes in 256 pages of 4096",
        "page frames: sound",
        "pool 'it' (tlsf): sound",
        "pool 'old' (firstfit): sound",
    ]
    assert sound.read_bytes() == before


def test_what_is_broken_is_said_and_repaired(sound: Path) -> None:
    path = left(sound, "start bit", "frames")
    before = path.read_bytes()
    done = run(path)
    assert done.exit_code == 1
    assert path.read_bytes() == before
    lines = done.output.splitlines()
    assert lines[1].startswith("page frames: P6 at offset ")
    assert lines[2].startswith("pool 'it': V1 at offset ")
    assert all(line.endswith("; not repaired") for line in lines[1:3])
    assert lines[3] == "pool 'old' (firstfit): sound"
    assert lines[4] == (
        "Error: 2 broken: xmem check --repair repairs what can be repaired."
    )
    done = run("--repair", path)
    assert done.exit_code == 0, done.output
    assert "records, lists and counts of the page frames were written" in done.output
    assert "1 block given back, lists and counters written anew" in done.output
    done = run(path)
    assert done.exit_code == 0
    assert done.output.count("sound") == 3


def test_what_cannot_be_repaired(sound: Path) -> None:
    path = left(sound, "header")
    for options in ([], ["--repair"]):
        done = run(*options, path)
        assert done.exit_code == 1
        assert "not repaired" in done.output
        assert "pool 'old' (firstfit): sound" in done.output
        assert ("--repair repairs" in done.output) == (not options)
    path = left(sound, "records")
    for options in ([], ["--repair"]):
        done = run(*options, path)
        assert done.exit_code == 1
        assert "page frames: P1 at offset " in done.output


def test_wrong_files(sound: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_bytes(b"no arena" * 1000)
    for path, message in (
        (wrong, "not an arena"),
        (tmp_path, "is a directory"),
        (tmp_path / "none", "does not exist"),
    ):
        done = run(path)
        assert done.exit_code == 2
        assert message in done.output
    with Arena.open(sound):
        done = run(sound)
    assert done.exit_code == 2
    assert "already open" in done.output
