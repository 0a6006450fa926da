"""Files that are whole or absent: written beside their place, then moved into it."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch


def writable_folder(folder: str | Path) -> Path:
    """Make a folder if it does not exist and see that files can be written in it.

    Raises:
        ValueError: if they cannot.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(f"expected a folder that can be written, got {str(folder)!r}: {error.strerror}") from error
    return folder


def replace_file(path: str | Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file atomically: a reader, or a run killed half-way, finds the old content or the new, never a part.

    Args:
        path: the file; its folder exists.
        write: writes the content to an open binary file.
    """
    path = Path(path)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp leaves files readable to their owner only
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def save_state(path: str | Path, state: dict[str, Any]) -> None:
    """Save a state of tensors and plain data atomically, in a format that ``torch.load(weights_only=True)`` reads.

    Raises:
        ValueError: if the folder cannot be written, ``path`` is a folder itself, or the state holds objects that could
            not be loaded again; then the file that was there is left alone.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"expected the path of a file to save in, got the folder {str(path)!r}")
    writable_folder(path.parent)
    content = io.BytesIO()
    torch.save(_plain(state), content)
    content.seek(0)
    try:
        torch.load(content, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(
            f"expected a state of tensors, numbers, strings, lists and dicts, got one with {error}"
        ) from error
    replace_file(path, lambda file: file.write(content.getbuffer()))


def _plain(state: Any) -> Any:
    """The state with NumPy's scalars as Python's: a learning rate from ``np.exp`` is one."""
    if isinstance(state, np.generic):
        return state.item()
    if isinstance(state, dict):
        return {_plain(key): _plain(value) for key, value in state.items()}
    return type(state)(map(_plain, state)) if type(state) in (list, tuple) else state


def load_state(path: str | Path) -> dict[str, Any]:
    """Load what :func:`save_state` wrote, tensors on the CPU.

    Raises:
        ValueError: if there is no such file, or one that torch cannot load as plain data.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"expected a checkpoint at {str(path)!r}, got no file")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what torch raises for a file of another kind depends on its bytes
        raise ValueError(f"expected a checkpoint at {str(path)!r}, got a file of another kind") from error
