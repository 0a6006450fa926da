"""Compile CUDA sources for the host run of this folder with g++."""

from __future__ import annotations

import fcntl
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

FOLDER = Path(__file__).parent
CSRC = FOLDER.parents[1] / "csrc"
# With optimization, and fused multiply–adds where the machine has them: contracted as by nvcc. Debugging information
# beyond lines, and more optimization of sanitized code, cost more time to compile than they save.
FLAGS = ["-std=c++17", "-O2", "-march=native", "-ffp-contract=fast", "-g1", "-fPIC", "-pthread"]
SANITIZED = ["-fsanitize=address", "-O1"]


def compiler() -> list[str]:
    return shlex.split(os.environ.get("CXX", "")) or ["g++"]


def compile_for_host(sources: list[Path], output: Path, *flags: str) -> Path:
    """Build a program, or with -shared a library; this folder's cuda_runtime.h takes the toolkit's place."""
    objects = [output.with_name(f"{output.stem}.{source.stem}.o") for source in sources]

    def run(*arguments: str) -> None:
        done = subprocess.run([*compiler(), *FLAGS, *flags, *arguments], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    def compile_one(source: Path, target: Path) -> None:
        run("-c", f"-I{FOLDER}", "-x", "c++", str(source), "-o", str(target))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(compile_one, sources, objects))
    run(*(str(target) for target in objects), "-o", str(output))
    return output


def built_once(output: Path, build: Callable[[Path], Path]) -> Path:
    """What is built by the first process that comes; others wait for it."""
    with open(output.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = output.with_suffix(".done")
        if not done.exists():
            build(output)
            done.touch()
    return output


def preloaded() -> str:
    """What a Python that loads a sanitized library starts with: AddressSanitizer's runtime, and that of C++.

    The sanitizer looks for C++ exceptions when it starts; one from a library that brings them later would abort.
    """
    commands = [[*compiler(), f"-print-file-name={name}"] for name in ("libasan.so", "libstdc++.so.6")]
    files = [subprocess.run(c, capture_output=True, text=True, check=True).stdout.strip() for c in commands]
    return " ".join(files)


def run_sanitized(library: Path, modules: list[Path], statements: str) -> subprocess.CompletedProcess[str]:
    """Run statements in a Python that may load the sanitized library; `modules` are folders to import from."""
    code = f"import sys; sys.path[:0] = {[str(folder) for folder in modules]!r}\n{statements}\nprint('finished')"
    preload = {"LD_PRELOAD": preloaded(), "ASAN_OPTIONS": "detect_leaks=0", "CUDA_HOST_THREADS": "2"}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=library.parent,  # the installed package, whatever lies in the folder of the tests
        env={**os.environ, **preload},
        capture_output=True,
        text=True,
    )
