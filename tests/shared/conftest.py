# SPDX-License-Identifier: BSD-3-Clause
"""What the tests of shared arenas share: an arena, and where it is."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.processes import N_BYTES, PAGE

from xmem import Arena


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "arena"


@pytest.fixture
def arena(path: Path) -> Iterator[Arena]:
    with Arena.create(path, N_BYTES, page_size=PAGE, shared=True) as arena:
        yield arena
