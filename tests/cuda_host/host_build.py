"""Compile CUDA sources for the host run of this folder with g++."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

FOLDER = Path(__file__).parent
CSRC = FOLDER.parents[1] / "csrc"
FLAGS = ["-std=c++17", "-O1", "-g", "-fPIC", "-pthread"]
SANITIZER = "-fsanitize=address"


def compiler() -> list[str]:
    return shlex.split(os.environ.get("CXX", "")) or ["g++"]


def compile_for_host(sources: list[Path], output: Path, *flags: str) -> Path:
    """Build a program, or with -shared a library; this folder's cuda_runtime.h takes the toolkit's place."""
    files = [str(source) for source in sources]
    command = [*compiler(), *FLAGS, *flags, f"-I{FOLDER}", "-x", "c++", *files, "-o", str(output)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return output


def sanitizer_library() -> str:
    """The AddressSanitizer runtime, which has to be preloaded into a Python that loads a sanitized library."""
    command = [*compiler(), "-print-file-name=libasan.so"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
