"""Harnesses compiled for one instruction-set level each, as the build compiles it, where this processor has it."""

from __future__ import annotations

import ctypes
import functools
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "build_support"))

from ninja_file import CPU  # noqa: E402
from toolchain import X86_LEVELS as LEVELS  # noqa: E402

HEADERS = ROOT / "csrc" / "cpu"
# The base level as a processor that is no x86-64 compiles it: the headers of this folder see to that.
ELSEWHERE = Path(__file__).with_name("elsewhere")
NO_X86 = [f"-I{ELSEWHERE}", "-include", str(ELSEWHERE / "before.h")]


def definitions(level: str) -> list[str]:
    """What a source knows of its level, as in build_support/ninja_file.py."""
    return [f"-DNTKFAST_ISA={level}", f"-DNTKFAST_VECTOR_BYTES={LEVELS[level][0]}"]


@functools.cache
def cpu_features() -> frozenset[str]:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return frozenset(next((line.split(":")[1].split() for line in lines if line.startswith("flags")), []))


def needed_features(flags: list[str]) -> set[str]:
    """The names that Linux has for what -mavx512bf16, -mamx-tile … ask for."""
    names = {flag.removeprefix("-m").replace("-", "_") for flag in flags if "=" not in flag}
    return {"avx512_bf16" if name == "avx512bf16" else name for name in names}


def compiled(harness: Path, level: str, folder: Path) -> ctypes.CDLL:
    """The harness as a library, of a level or "elsewhere".

    Skips where there is no compiler; where there is no such processor, too, but checks first that the harness compiles.
    """
    elsewhere = level == ELSEWHERE.name
    name = "base" if elsewhere else level
    flags = LEVELS[name][1]
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++")
    command = [compiler, *CPU, *definitions(name), *flags, *(NO_X86 if elsewhere else []), f"-I{HEADERS}", str(harness)]
    missing = needed_features(flags) - cpu_features()
    if missing:
        if platform.machine() == "x86_64":
            subprocess.run([*command, "-fsyntax-only"], check=True)
        pytest.skip(f"this CPU has no {' '.join(sorted(missing))}")
    target = folder / f"{harness.stem}.{level}.so"
    subprocess.run([*command, "-fPIC", "-shared", "-o", str(target)], check=True)
    return ctypes.CDLL(str(target))
