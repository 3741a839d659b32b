# SPDX-License-Identifier: BSD-3-Clause
"""Peers: other allocators, and xmem's engines, on one rig."""

import os
from collections.abc import Callable
from typing import Any, Literal, SupportsIndex

import numpy as np
import numpy.typing as npt

from xmem.measure.trace import PeerResult as PeerResult

__all__ = ["Peer", "PeerResult", "measure"]

class Peer:
    def __init__(self, *args: object, **kwargs: object) -> None: ...
    @property
    def name(self) -> str: ...
    @property
    def needs_arena(self) -> bool: ...
    @staticmethod
    def load(path: str | bytes | os.PathLike[Any]) -> Peer: ...
    @staticmethod
    def library(
        path: str | bytes | os.PathLike[Any], name: str | None = None
    ) -> Peer: ...
    @staticmethod
    def system(name: str = "system") -> Peer: ...
    @staticmethod
    def engine(
        engine: Literal["tlsf", "firstfit"] = "tlsf",
        *,
        name: str | None = None,
        checked: bool = False,
        reserved: bool = False,
        **settings: Any,
    ) -> Peer: ...
    @staticmethod
    def null() -> Peer: ...

def measure(
    peer: Peer,
    ops: npt.NDArray[np.void],
    *,
    repeats: SupportsIndex = 15,
    arena_bytes: SupportsIndex | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> PeerResult: ...
def serves(peer: Peer, ops: npt.NDArray[np.void], n_bytes: SupportsIndex) -> bool: ...
def play_touched(
    peer: Peer,
    ops: npt.NDArray[np.void],
    started: Callable[[], object] | None = None,
) -> int: ...
