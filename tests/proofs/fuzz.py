# SPDX-License-Identifier: BSD-3-Clause
"""Coverage-guided fuzzing of replay and of opening a damaged file (atheris).

``replay``: bytes become a trace, which is run with every block's contents
verified and all invariants checked, on an engine that the first byte picks.

``open``: bytes become changes to the file of a sound arena, with its checksums
made right again. It opens with everything verified, and then every verb works;
or it is refused with a typed error. Never does the process die.

``make fuzz`` builds the package with gcc's coverage for it, see coverage.c.
Without that build only the Python code guides the fuzzer.
"""

import ctypes
import os
import struct
import sys
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

import xmem
from xmem import Arena, OutOfMemory, Pool, XmemError
from xmem.measure.replay import Replayer
from xmem.measure.trace import (
    OP_CALLOC,
    OP_FREE,
    OP_MALLOC,
    OP_MEMALIGN,
    OP_REALLOC,
    TRACE_DTYPE,
)

from . import Refuted

PAGE = 4096
SETTINGS = [
    {"engine": "tlsf", "grow_pages": None, "max_pages": None},
    {"engine": "tlsf", "grow_pages": 1, "max_pages": None},
    {"engine": "tlsf", "grow_pages": 16, "max_pages": 40},
    {"engine": "firstfit", "grow_pages": 1, "max_pages": None},
    {"interface": "strict", "grow_pages": 1, "max_pages": None},
    {"interface": "array", "grow_pages": 1, "max_pages": None},
    {"interface": "subpage", "grow_pages": 1, "max_pages": None},
    {"interface": "legacy", "grow_pages": 1, "max_pages": None},
    {"interface": "merged", "grow_pages": 2, "max_pages": 60},
]
N_SLOTS = 64
MAX_OPS = 400


def trace_of(data: bytes) -> np.ndarray:
    """A trace from bytes, four for each operation: always a legal one."""
    live: dict[int, int] = {}  # slot of the bytes: object of the trace
    n_objects = 0
    ops = []
    for i in range(0, min(len(data) - 3, 4 * MAX_OPS), 4):
        kind, name, low, high = data[i : i + 4]
        size = low + 256 * (high & 31)
        if high & 32:
            size = size * 16 % 70_000
        name %= N_SLOTS
        if name not in live:
            op = (OP_MALLOC, OP_CALLOC, OP_MEMALIGN)[kind % 3]
            align = kind // 3 % 14 if op == OP_MEMALIGN else 0
            live[name] = n_objects
            n_objects += 1
        elif kind & 1:
            op, align, size = OP_FREE, 0, 0
        else:
            op, align = OP_REALLOC, 0
        ops.append((op, align, 0, live[name], size))
        if op == OP_FREE:
            del live[name]
    return np.array(ops, dtype=TRACE_DTYPE)


class FuzzReplay:
    """One arena for all inputs."""

    def __init__(self) -> None:
        self.arena = Arena.anonymous(1 << 20, page_size=PAGE, max_pools=3)

    def __call__(self, data: bytes) -> None:
        if len(data) < 5:
            return
        ops = trace_of(data[1:])
        settings = SETTINGS[data[0] % len(SETTINGS)]
        replayer = Replayer(ops, self.arena, settings, 1, None)
        replayer.run_pass(None, True)
        replayer.verify_end()
        if replayer.seen()["content_errors"]:
            raise Refuted(f"contents are wrong: {settings} {ops.tolist()}")


# Offsets of the format that the checksums and their repair need.
FIXED_CRC, STATE, PAGE_CRC = 112, 120, 136
CLEAN = 0x443C


class FuzzOpen:
    """A sound file, and a place for its mutations."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "arena"
        with Arena.create(self.path, 40 * PAGE, page_size=PAGE, max_pools=4) as arena:
            for i, (engine, hard) in enumerate(
                [("tlsf", False), ("tlsf", True), ("firstfit", False)]
            ):
                pool = Pool(arena, name=f"pool {i}", engine=engine, hardened=hard)
                blocks = [pool.xmalloc(n) for n in (10, 200, 3000, 40, 700, 5000)]
                for block in blocks[1::2]:
                    pool.xfree(block)
                arena.root = blocks[0]
            arena.page_alloc(1)
        self.bytes = self.path.read_bytes()

    def mutated(self, data: bytes) -> bytes:
        """The file with changes: each of place, width and value in 7 bytes."""
        held = bytearray(self.bytes)
        for i in range(1, len(data) - 6, 7):
            place, how = struct.unpack_from("<HB", data, i)
            value = data[i + 3 : i + 7]
            # The tables lie in the first pages; headers everywhere.
            place = place % 16_384 if how & 1 else place * 8 % len(held)
            width = (1, 2, 4, 8)[how >> 1 & 3]
            if how & 8:
                held[place] ^= 1 << (value[0] & 7)
            else:
                new = (value * 2)[:width] if not how & 16 else value + bytes(4)
                held[place : place + width] = new[:width]
        if data[0] & 1:
            held = held[: struct.unpack_from("<H", data, 1)[0] * 8]
        return bytes(held) if data[0] & 2 else self.resealed(held)

    def resealed(self, held: bytearray) -> bytes:
        """Checksums that agree, and a state that asks for none of the pages."""
        if len(held) >= 1024:
            crc = zlib.crc32(bytes(held[:FIXED_CRC]))
            struct.pack_into("<I", held, FIXED_CRC, crc)
            struct.pack_into("<I", held, STATE, 0x22D3)
        return bytes(held)

    def __call__(self, data: bytes) -> None:
        if len(data) < 8:
            return
        self.path.write_bytes(self.mutated(data))
        try:
            arena = Arena.open(self.path)
        except (XmemError, OSError):
            return
        try:
            for name in arena.pools():
                self.use(arena, name)
            arena.frames()
        except XmemError:
            pass
        finally:
            arena.close()

    def use(self, arena: Arena, name: str) -> None:
        """Use a pool that was found sound: every verb works."""
        try:
            pool = Pool.open(arena, name)
        except XmemError:
            return
        made = []
        for n in (1, 100, 4000, 9000):
            try:
                made.append(pool.xmalloc(n))
            except OutOfMemory:
                continue
        walked = pool.walk()
        for offset in walked["offset"][walked["used"] & (walked["kind"] < 2)].tolist():
            pool.xfree(offset)
        pool.check()


# With atheris ----------------------------------------------------------------


def connect() -> bool:
    """Tell libFuzzer of the coverage of our modules, if they were built for it."""
    import atheris.core_with_libfuzzer as core

    try:
        bridge = ctypes.CDLL(None).bridge_connect
    except AttributeError:
        return False
    library = ctypes.CDLL(core.__file__)
    names = ["8bit_counters_init", "pcs_init"]
    names += [f"trace_{kind}{n}" for kind in ("cmp", "const_cmp") for n in (1, 2, 4, 8)]
    names += ["trace_switch"]
    table = (ctypes.c_void_p * len(names))(
        *(
            ctypes.cast(getattr(library, f"__sanitizer_cov_{name}"), ctypes.c_void_p)
            for name in names
        )
    )
    bridge(table)
    return True


def main() -> None:
    """``python -m proofs.fuzz replay|open [libFuzzer's options]``."""
    import atheris

    if len(sys.argv) < 2 or sys.argv[1] not in ("replay", "open"):
        sys.exit("usage: python -m proofs.fuzz replay|open [options of libFuzzer]")
    which = sys.argv.pop(1)
    with tempfile.TemporaryDirectory() as folder:
        target: Callable[[bytes], None]
        target = FuzzReplay() if which == "replay" else FuzzOpen(Path(folder))
        atheris.Setup(sys.argv, target)
        native = connect()
        print(
            f"fuzz {which}: xmem {xmem.__version__}, coverage of "
            f"{'compiled' if native else 'no compiled'} code, pid {os.getpid()}",
            flush=True,
        )
        atheris.Fuzz()


if __name__ == "__main__":
    main()
