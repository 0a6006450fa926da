"""The history of a training run: series by iteration, streamed to disk while the run goes on."""

from __future__ import annotations

import json
import operator
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from .checkpoint import replace_file, writable_folder

FILE = "history.jsonl"


class Series(Sequence[float]):
    """Values at iterations: a sequence of numbers (``series[-1]`` is the newest) that knows its ``iterations``."""

    def __init__(self, iterations: list[int], values: list[float]) -> None:
        self.iterations = iterations
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: Any) -> Any:
        return self.values[index]

    def __repr__(self) -> str:
        newest = f", newest {self.values[-1]:.4g} at {self.iterations[-1]}" if self.values else ""
        return f"Series({len(self)} values{newest})"


class History:
    """What a run recorded: losses, loss weights, traces, errors, eigenvalues, seconds.

    A record belongs to an iteration k and describes the parameters after k steps: the losses and the mean diagonal of
    each group's kernel on the points of step k, and the weights that count from step k + 1 on.

    Example:
        >>> from ntkfast.training import History
        >>> history = History()
        >>> history.add(0, loss={"u": 2.0}, error=1.0)
        >>> history.add(100, loss={"u": 0.5})
        >>> history.loss["u"][-1], history.loss["u"].iterations, history.error.iterations
        (0.5, [0, 100], [0])
    """

    def __init__(self) -> None:
        self.records: dict[int, dict[str, Any]] = {}
        self._stream: IO[str] | None = None
        self._file: Path | None = None  # what it was last streamed to
        self._resumed = False

    def __getstate__(self) -> dict[str, Any]:
        # The stream is not copied: two histories would write to one file.
        return {**self.__dict__, "_stream": None, "_file": None}

    def add(self, iteration: int, **fields: Any) -> None:
        """Add fields, numbers or dicts of them by group, to the record of an iteration, and to the stream."""
        self.records.setdefault(iteration, {}).update(fields)
        if self._stream is not None:
            self._stream.write(_line(iteration, fields))
            self._stream.flush()

    def _scalars(self, field: str) -> Series:
        pairs = [(k, record[field]) for k, record in self._sorted() if field in record]
        return Series([k for k, _ in pairs], [v for _, v in pairs])

    def _by_group(self, field: str) -> dict[str, Series]:
        series: dict[str, Series] = {}
        for k, record in self._sorted():
            for group, number in record.get(field, {}).items():
                one = series.setdefault(group, Series([], []))
                one.iterations.append(k)
                one.values.append(number)
        return series

    def _sorted(self) -> Iterator[tuple[int, dict[str, Any]]]:
        return iter(sorted(self.records.items()))

    @property
    def loss(self) -> dict[str, Series]:
        """Unweighted loss of each group."""
        return self._by_group("loss")

    @property
    def weights(self) -> dict[str, Series]:
        """Loss weight λ of each group."""
        return self._by_group("weights")

    @property
    def trace(self) -> dict[str, Series]:
        """Trace over rows of each group's kernel, tr K / N: the mean of its diagonal (``ntk.trace`` is the sum)."""
        return self._by_group("trace")

    @property
    def error(self) -> Series:
        """Relative L2 error on a grid."""
        return self._scalars("error")

    @property
    def seconds(self) -> Series:
        """Seconds spent in ``fit`` so far, over all its calls."""
        return self._scalars("seconds")

    @property
    def spectrum(self) -> dict[str, dict[int, list[float]]]:
        """Eigenvalues of each group's kernel, descending, by group and iteration."""
        spectra: dict[str, dict[int, list[float]]] = {}
        for k, record in self._sorted():
            for group, eigenvalues in record.get("spectrum", {}).items():
                spectra.setdefault(group, {})[k] = eigenvalues
        return spectra

    def stream(self, folder: str | Path) -> None:
        """Write all records to ``folder/history.jsonl``, and from now on every new one as it comes."""
        self.close()
        path = self.save(folder)
        self._stream = open(path, "a", encoding="utf-8")
        self._file = path.resolve()

    def continues(self, folder: str | Path, iteration: int) -> bool:
        """Whether the history in a folder, if there is one, is that of this run, perhaps from before it was killed.

        Args:
            folder: where it may be.
            iteration: the run has come so far; what was recorded beyond may differ. A run that was resumed where
                nothing was recorded yet goes on with any history, a new one with none.
        """
        path = Path(folder) / FILE
        if not path.is_file() or path.resolve() == self._file:
            return True
        theirs = History.load(folder).records
        if not theirs:
            return True
        if not self._resumed and min(self.records, default=iteration) >= iteration:
            return False
        return all(
            _line(k, record) == _line(k, self.records.get(k, {})) for k, record in theirs.items() if k < iteration
        )

    def close(self) -> None:
        """Stop streaming."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def save(self, folder: str | Path) -> Path:
        """Write ``folder/history.jsonl``, one record a line, replacing an older one atomically.

        Args:
            folder: made if it does not exist.

        Returns:
            The path of the file.

        Raises:
            ValueError: if the folder cannot be written.
        """
        path = writable_folder(folder) / FILE
        text = "".join(_line(k, record) for k, record in self._sorted())
        replace_file(path, lambda file: file.write(text.encode()))
        if self._stream is not None and path.resolve() == self._file:  # it wrote to the file that was replaced
            self._stream.close()
            self._stream = open(path, "a", encoding="utf-8")
        return path

    @classmethod
    def load(cls, folder: str | Path) -> History:
        """Read what :meth:`save` or a stream wrote; an unfinished last line, from a killed run, is left out.

        Raises:
            ValueError: if the folder has no history, or a file that is none.
        """
        path = Path(folder) / FILE
        if not path.is_file():
            raise ValueError(f"History.load: expected a file {path}, got none")
        history = cls()
        for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
            if line.endswith("\n"):
                try:
                    record = json.loads(line)
                    history.add(operator.index(record.pop("iteration")), **record)
                except (ValueError, AttributeError, KeyError, TypeError) as error:
                    raise ValueError(f"History.load: expected a record a line in {path}, got {line[:60]!r}") from error
        return history

    def state_dict(self) -> dict[str, Any]:
        """Return the records as plain data, for a checkpoint."""
        return {"records": json.dumps(list(self._sorted()))}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the records of a checkpoint."""
        self.records = {int(k): record for k, record in json.loads(state["records"])}
        self._resumed = True

    def __repr__(self) -> str:
        return f"History({len(self.records)} records, groups {tuple(self.loss)})"


def _line(iteration: int, fields: Mapping[str, Any]) -> str:
    return json.dumps({"iteration": iteration, **fields}) + "\n"
