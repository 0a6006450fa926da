"""What stops a run before its last iteration: Ctrl-C, and numbers that are not finite."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Callable, Mapping
from types import FrameType, TracebackType
from typing import Any


class Interrupts:
    """Let Ctrl-C wait for the end of an iteration, then save: an optimizer that stops half-way cannot be resumed.

    A callback of the trainer that is also a context. A second Ctrl-C does not wait, and nothing is saved then.

    Args:
        save: called when a KeyboardInterrupt leaves the context.
    """

    def __init__(self, save: Callable[[], object]) -> None:
        self._save = save
        self._handler: Any = None  # the one that was there before; None where Ctrl-C is not ours to hold back
        self._waiting = self._urgent = False

    def __enter__(self) -> Interrupts:
        handler = signal.getsignal(signal.SIGINT)
        if callable(handler) and threading.current_thread() is threading.main_thread():
            self._handler = handler
            signal.signal(signal.SIGINT, self._hold)
        return self

    def _hold(self, number: int, frame: FrameType | None) -> None:
        if self._waiting:
            self._urgent = True
            self._handler(number, frame)
        self._waiting = True

    def __call__(self, trainer: object = None) -> None:
        """Hand on a Ctrl-C that waits, to what Python would have called."""
        if self._waiting:
            self._waiting = False
            self._handler(signal.SIGINT, None)

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        try:
            if kind is not None and issubclass(kind, KeyboardInterrupt) and not self._urgent:
                self._save()
        finally:
            if self._handler is not None:
                signal.signal(signal.SIGINT, self._handler)
        if kind is None:
            self()


def not_finite(iteration: int, what: str, values: Mapping[str, float], lam: Mapping[str, float]) -> FloatingPointError:
    """The error that stops training.

    Args:
        iteration: where.
        what: what the values are.
        values: by loss group; some of them, or their sum, are not finite.
        lam: the loss weights.
    """
    bad = [f"{group!r} is {value}" for group, value in values.items() if not math.isfinite(value)]
    return FloatingPointError(
        f"training stopped at iteration {iteration}: the {what} of group {', '.join(bad) or 'their sum overflows'} "
        f"(loss weights {dict(lam)}); the history up to here is kept"
    )
