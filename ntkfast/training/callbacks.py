"""Callbacks: functions of the trainer, called after every iteration."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .trainer import Trainer

Callback = Callable[["Trainer"], None]


class Checkpoints:
    """Save the trainer every so many seconds, always to the same path; each save replaces the last one atomically.

    Args:
        path: the checkpoint.
        seconds: between two saves; 0 saves after every iteration.
    """

    def __init__(self, path: str | Path, seconds: float = 300.0) -> None:
        self.path = Path(path)
        self.seconds = seconds
        self._last = time.monotonic()

    def __call__(self, trainer: Trainer) -> None:
        """Save if it is time."""
        if time.monotonic() - self._last >= self.seconds:
            trainer.save(self.path)
            self._last = time.monotonic()


class Progress:
    """A progress bar on standard error that shows the newest recorded losses.

    Args:
        total: iterations of the run.
        label: shown in front.
    """

    def __init__(self, total: int, label: str = "") -> None:
        from tqdm import tqdm  # only those who see a bar need it

        self.bar: Any = tqdm(total=total, desc=label or None, unit="it", mininterval=0.5, dynamic_ncols=True)
        self._shown = -1

    def __call__(self, trainer: Trainer) -> None:
        """Advance by one iteration."""
        self.bar.update(1)
        newest = next(reversed(trainer.history.records), -1)
        if newest != self._shown:
            self._shown = newest
            losses = trainer.history.records[newest].get("loss", {})
            self.bar.set_postfix({name: f"{loss:.1e}" for name, loss in losses.items()}, refresh=False)

    def close(self) -> None:
        """Leave the bar as it stands."""
        self.bar.close()


def shows_progress(progress: bool | None) -> bool:
    """Whether to show a bar: as asked, or if None, when standard error is a terminal."""
    return sys.stderr.isatty() if progress is None else progress
