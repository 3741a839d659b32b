# SPDX-License-Identifier: BSD-3-Clause
"""The exceptions of xmem.

Each derives from ``XmemError`` and from the built-in exception that a caller
who knows nothing of xmem would expect.
"""

from typing import Any

__all__ = [
    "ArenaBusy",
    "ArenaClosed",
    "ArenaFormatError",
    "ArenaInUse",
    "BadArgument",
    "BadArgumentType",
    "DoubleFree",
    "HeapCorruption",
    "InvalidFree",
    "MismatchedFree",
    "NotABlock",
    "NotInInterface",
    "OutOfMemory",
    "PeerError",
    "PoolDestroyed",
    "PoolInUse",
    "SizeLimitError",
    "TooManyProcesses",
    "TraceFormatError",
    "XmemError",
    "corruption",
]


class XmemError(Exception):
    """Base of all exceptions that xmem raises on its own account."""


class BadArgument(XmemError, ValueError):
    """An argument has the right type and a value that cannot be meant."""


class BadArgumentType(XmemError, TypeError):
    """An argument is of the wrong type."""


class OutOfMemory(XmemError, MemoryError):
    """The arena, or the limit of a pool, has no room for the request."""


class SizeLimitError(XmemError, ValueError):
    """A request is larger than this interface ever serves."""


class InvalidFree(XmemError, ValueError):
    """An offset is not what the routine takes; nothing was changed."""


class DoubleFree(InvalidFree):
    """The memory at the offset is free: freed already, or never allocated."""


class MismatchedFree(InvalidFree):
    """The memory belongs to another routine or another pool."""


class NotABlock(InvalidFree):
    """No block and no page run starts at the offset."""


class NotInInterface(XmemError, AttributeError):
    """The heap's interface has no such routine."""


class PeerError(XmemError, OSError):
    """Another allocator cannot be loaded, or cannot make a heap."""


class PoolDestroyed(XmemError, ValueError):
    """The pool has been destroyed."""


class PoolInUse(XmemError, RuntimeError):
    """A pool that still has live blocks was to be destroyed.

    Parameters
    ----------
    message : str
    live : numpy.ndarray
        The live blocks, as `Pool.walk` gives them.
    """

    def __init__(self, message: str, live: Any) -> None:
        super().__init__(message)
        self.live = live

    def __reduce__(self) -> tuple[type, tuple[str, Any]]:
        """Pickle by message and blocks."""
        return type(self), (str(self), self.live)


class ArenaFormatError(XmemError, ValueError):
    """A file is not an arena, is damaged, or has another format version."""


class TraceFormatError(XmemError, ValueError):
    """A file is not a trace, or its operations break the format of traces."""


class ArenaInUse(XmemError, OSError):
    """The arena's file is open in another place."""


class ArenaBusy(XmemError, TimeoutError):
    """Another process held the lock of a shared arena for longer than one waits."""


class TooManyProcesses(XmemError, OSError):
    """As many processes have a shared arena open as it has slots."""


class ArenaClosed(XmemError, ValueError):
    """The arena has been closed."""


class HeapCorruption(XmemError, RuntimeError):
    """A numbered invariant does not hold.

    Parameters
    ----------
    invariant : str
        Its number in the documentation of the format, such as ``"B5"``.
    offset : int
        Where in the arena, in bytes from its base.
    detail : str
        What was found.
    around : dict, optional
        What lies there: ``bytes`` in hexadecimal, 16 in front of the place and
        16 from it on; ``page``, ``state`` and ``owner`` of the run of pages;
        ``block``, ``before`` and ``after``, the live block whose header it is
        and its neighbours, as ``{"offset", "capacity"}`` or None. The block
        before is the usual culprit. Empty where nothing is known.
    """

    def __init__(
        self,
        invariant: str,
        offset: int,
        detail: str,
        around: dict[str, Any] | None = None,
    ) -> None:
        self.invariant = invariant
        self.offset = offset
        self.detail = detail
        self.around = around or {}
        super().__init__(f"{invariant} at offset {offset:#x}: {detail}{self._say()}")

    def _say(self) -> str:
        """Return what lies around, as the end of the message."""
        if not self.around:
            return ""
        parts = [f"; the bytes there: {self.around['bytes']}"]
        for place, name in (
            ("block", "the live block itself"),
            ("before", "the live block before"),
            ("after", "the live block after"),
        ):
            block = self.around[place]
            if block is not None:
                parts.append(
                    f"; {name}: {block['capacity']} bytes at {block['offset']:#x}"
                )
        return "".join(parts)

    def __reduce__(self) -> tuple[type, tuple[str, int, str, dict[str, Any]]]:
        """Pickle by the parts."""
        return type(self), (self.invariant, self.offset, self.detail, self.around)


def corruption(
    code: int,
    offset: int,
    found: int,
    expected: int,
    around: dict[str, Any] | None = None,
) -> HeapCorruption:
    """Return the exception for what a checker found.

    Parameters
    ----------
    code : int
        100 times the invariant's letter, plus its number.
    offset : int
        Where, in bytes from the arena's base.
    found, expected : int
        The word that is there and the one that should be.
    """
    return HeapCorruption(
        f"{chr(code // 100)}{code % 100}",
        offset,
        f"found {found:#x}, expected {expected:#x}",
        around,
    )
