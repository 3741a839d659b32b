# SPDX-License-Identifier: BSD-3-Clause
"""The numbers of codes.pxd: what Python and the documents say of them agrees."""

import re
from pathlib import Path

import numpy as np
import pytest

from xmem.measure import codes
from xmem.measure.counts import path_name
from xmem.measure.trace import __doc__ as TRACE_PAGE

ROOT = Path(__file__).resolve().parents[2]
HEADER = ROOT / "xmem" / "measure" / "codes.pxd"


def enumerators() -> dict[str, int]:
    """The names of the enum for Python, from the header's text."""
    block = HEADER.read_text().split("cpdef enum:")[1].split("\ncdef ")[0]
    return {
        name: int(value)
        for name, value in re.findall(r"^    ([A-Z_]+) = (\d+)", block, re.MULTILINE)
    }


def of(prefix: str) -> dict[str, int]:
    return {
        name: value
        for name, value in vars(codes).items()
        if name.startswith(prefix) and isinstance(value, int)
    }


@pytest.mark.skipif(not HEADER.is_file(), reason="no header is here")
def test_python_has_the_header_s_numbers() -> None:
    found = {**of("OP_"), **of("VERB_"), **of("PATH_")}
    assert found == enumerators()


def test_the_trace_s_fields_are_those_of_the_struct() -> None:
    assert (
        np.dtype(
            [
                ("op", "u1"),
                ("align_log2", "u1"),
                ("thread", "<u2"),
                ("id", "<u4"),
                ("size", "<u8"),
            ]
        )
        == codes.TRACE_DTYPE
    )
    assert codes.TRACE_DTYPE.itemsize == 16


def test_the_documented_numbers_of_operations() -> None:
    stated = re.findall(r"(\d)\s(malloc|free|realloc|calloc|memalign)", TRACE_PAGE)
    assert {f"OP_{name.upper()}": int(n) for n, name in stated} == of("OP_")


def test_verbs_are_named_after_their_numbers() -> None:
    assert {f"VERB_{name.upper()}": i for i, name in enumerate(codes.VERBS)} == of(
        "VERB_"
    )
    assert codes.TRACE_VERBS == ("xmalloc", "xfree", "xrealloc")
    named = {
        name: codes.VERBS[codes.VERB_OF_OP[number]]
        for name, number in of("OP_").items()
    }
    assert named == {
        "OP_MALLOC": "xmalloc",
        "OP_FREE": "xfree",
        "OP_REALLOC": "xrealloc",
        "OP_CALLOC": "xmalloc",
        "OP_MEMALIGN": "xmalloc",
    }


def test_each_path_bit_is_one_bit_and_changes_a_name() -> None:
    bits = of("PATH_").values()
    assert sorted(bits) == [1 << i for i in range(8)]
    verbs = range(len(codes.VERBS))
    for bit in bits:
        assert any(path_name(verb, bit) != path_name(verb, 0) for verb in verbs)
