# SPDX-License-Identifier: BSD-3-Clause
"""``make lint``, continuous integration and the hooks of a commit check the same."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINT = ROOT / ".ci" / "lint"

pytestmark = pytest.mark.skipif(
    not LINT.is_file() or shutil.which("git") is None,
    reason="the checks are in a checkout only, and need git",
)


def test_hooks_and_make_lint_run_the_same_checks():
    script = LINT.read_text()
    defined = re.findall(r"^(\w+)\(\)", script, re.M)
    (run,) = re.findall(r"^    set -- (.*)$", script, re.M)
    assert run.split() == defined
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()
    assert re.findall(r"entry: \.ci/lint (\w+)$", hooks, re.M) == defined


@pytest.fixture
def clone(tmp_path):
    """A repository of one commit with the script, a module and a changelog."""
    (tmp_path / ".ci").mkdir()
    shutil.copy(LINT, tmp_path / ".ci")
    (tmp_path / "xmem").mkdir()
    (tmp_path / "xmem" / "pool.pyi").write_text("a: int\n")
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n")
    git(tmp_path, "init", "--quiet", "--initial-branch", "main")
    commit(tmp_path, "Begin")
    return tmp_path


def git(folder, *arguments):
    named = {
        f"GIT_{who}_{what}": "x@example.org"
        for who in ("AUTHOR", "COMMITTER")
        for what in ("NAME", "EMAIL")
    }
    outside = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    subprocess.run(["git", *arguments], cwd=folder, check=True, env=outside | named)


def commit(folder, message):
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "--message", message)


def lint(folder, check):
    return subprocess.run(
        [folder / ".ci" / "lint", check],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_first_commit_needs_no_entry(clone):
    assert lint(clone, "changelog").returncode == 0


@pytest.mark.parametrize("name", ["xmem/pool.pyi", "pyx/pool.pyx", "arena/vm.pyx"])
def test_a_change_of_the_library_needs_an_entry_in_the_same_commit(clone, name):
    (clone / name).parent.mkdir(exist_ok=True)
    (clone / name).write_text("b: int\n")
    commit(clone, "Rename it")
    done = lint(clone, "changelog")
    assert done.returncode == 1
    assert "changes xmem and not CHANGELOG.md" in done.stdout
    (clone / "CHANGELOG.md").write_text("# Changelog\n\n- b\n")
    assert lint(clone, "changelog").returncode == 1
    git(clone, "add", "--all")
    git(clone, "commit", "--quiet", "--amend", "--no-edit")
    assert lint(clone, "changelog").returncode == 0


def test_other_changes_need_none(clone):
    (clone / "README.md").write_text("read\n")
    commit(clone, "Explain it")
    assert lint(clone, "changelog").returncode == 0


def test_a_message_may_say_that_nobody_notices(clone):
    (clone / "xmem" / "pool.pyi").write_text("a: int  # bytes\n")
    commit(clone, "Name the unit\n\nChangelog: none")
    assert lint(clone, "changelog").returncode == 0


def test_every_commit_of_a_branch_is_judged(clone):
    git(clone, "checkout", "--quiet", "-b", "mine", "--track", "main")
    (clone / "xmem" / "pool.pyi").write_text("b: int\n")
    commit(clone, "Rename it")
    (clone / "CHANGELOG.md").write_text("# Changelog\n\n- b\n")
    commit(clone, "Say so too late\n\nChangelog: none")
    assert lint(clone, "changelog").returncode == 1
    git(clone, "branch", "--quiet", "--force", "main", "HEAD~1")
    assert lint(clone, "changelog").returncode == 0


def test_blanks_at_the_end_of_a_line_are_found(clone):
    assert lint(clone, "whitespace").returncode == 0
    (clone / "CHANGELOG.md").write_text("# Changelog \n")
    done = lint(clone, "whitespace")
    assert done.returncode == 1
    assert "CHANGELOG.md:1:" in done.stdout
