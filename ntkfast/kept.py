"""Small tensors that are made once and kept, on a device that may write them later than Python says so."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar, final

import torch

V = TypeVar("V")


@final
class Kept(Generic[V]):
    """What was made of tensors, by key; copies of it are empty.

    A CUDA device writes it on the stream that was current then, and no other stream waits for that: each stream has
    its own. What is made in a capture is not written before the graph is replayed, so it is not kept. A capture takes
    what any stream has made before, since torch begins one when the device has nothing to do, and what it takes stays:
    the graph will read it.

    Args:
        most: that are kept; one more, and all are forgotten.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._made: dict[tuple[Hashable, int], V] = {}
        self._lent: dict[int, V] = {}  # to graphs

    def __len__(self) -> int:
        return len(self._made)

    def __reduce__(self) -> tuple[Any, ...]:
        return Kept, (self._most,)

    def get(self, key: Hashable, device: torch.device, make: Callable[[], V]) -> V:
        """What was made for the key, on that device; no inference tensor, since it outlives the mode."""
        stream, capturing = _stream(device) if device.type == "cuda" else (0, False)
        found = self._made.get((key, stream))
        if capturing:
            if found is None:
                found = next((made for (known, _), made in list(self._made.items()) if known == key), None)
            if found is not None:
                self._lent[id(found)] = found
        if found is not None:
            return found
        with torch.inference_mode(False):
            made = make()
        if not capturing:
            if len(self._made) >= self._most:
                self._made.clear()
            self._made[key, stream] = made
        return made


def _stream(device: torch.device) -> tuple[int, bool]:
    """The current stream of a CUDA device, and whether it is captured."""
    with torch.cuda.device(device):
        return torch.cuda.current_stream().cuda_stream, torch.cuda.is_current_stream_capturing()
