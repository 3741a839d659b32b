# SPDX-License-Identifier: BSD-3-Clause
"""Libraries that replace malloc: which are found, and under which names."""

import ctypes

import numpy as np
import pytest
from support import malloc
from support.tracing import trace

from xmem.measure.libraries import KNOWN, definer, defines, installed, loadable
from xmem.measure.trace import OP_FREE, OP_MALLOC
from xmem.measure.versus import libraries, run_child

# Its children preload allocators, not ASan's runtime.
pytestmark = pytest.mark.no_asan


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder in which the linker looks before it looks anywhere else."""
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("soname", [names[0] for names in KNOWN.values()])
def test_each_known_library_is_found(folder, soname):
    file = malloc.build(folder, soname)
    assert loadable(soname) == str(file)
    assert loadable("libmissing.so") is None
    (name,) = [name for name, sonames in KNOWN.items() if soname in sonames]
    assert installed()[name] == soname


def test_versions_enter_next_to_each_other_and_one_file_once(folder):
    malloc.build(folder, "libmimalloc.so.2")
    three = malloc.build(folder, "libmimalloc.so.3")
    (folder / "libmimalloc.so").symlink_to(three)
    found = installed()
    assert found["mimalloc 2"] == "libmimalloc.so.2"
    assert found["mimalloc 3"] == "libmimalloc.so.3"
    assert "mimalloc" not in found


def test_the_first_of_several_builds_enters(folder):
    malloc.build(folder, "libtcmalloc.so.4")
    malloc.build(folder, "libtcmalloc_minimal.so.4")
    assert installed()["tcmalloc"] == "libtcmalloc_minimal.so.4"


def test_a_library_without_a_malloc_does_not_enter(folder):
    malloc.build(folder, "librpmallocwrap.so", malloc.NOTHING)
    malloc.build(folder, "librpmalloc.so", malloc.NOTHING)
    assert "rpmalloc" not in installed()
    malloc.build(folder, "librpmalloc.so")
    assert installed()["rpmalloc"] == "librpmalloc.so"


def test_what_is_found_is_run_under_its_name(folder):
    malloc.build(folder, "libsnmallocshim.so")
    (contender,) = [c for c in libraries() if c.name == "snmalloc"]
    ops = trace((OP_MALLOC, 0, 100), (OP_FREE, 0, 0))
    np.save(folder / "one.npy", ops)
    (record,) = run_child(contender, [folder / "one.npy"])
    assert (record["engine"], record["failed"]) == ("snmalloc", 0)


def test_a_symbol_belongs_to_the_file_that_defines_it(folder):
    file = malloc.build(folder, "libsome.so")
    assert defines(file, "malloc") is True
    # It is linked with the C library, which has this.
    assert defines(file, "printf") is False
    assert defines(file, "no_such_symbol") is False
    assert defines(folder / "missing.so", "malloc") is None
    assert definer(ctypes.CDLL(None), "no_such_symbol") is None
