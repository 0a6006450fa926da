"""Harnesses compiled for one instruction-set level each, where this processor has it."""

from __future__ import annotations

import ctypes
import functools
import shutil
import subprocess
from pathlib import Path

import pytest

HEADERS = Path(__file__).parents[2] / "csrc" / "cpu"
FLAGS = ["-std=c++17", "-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-fPIC", "-shared"]
AVX512 = {"avx512f": "avx512f", "avx512bw": "avx512bw", "avx512vl": "avx512vl", "avx512dq": "avx512dq"}
AVX2 = {"avx2": "avx2", "fma": "fma"}
AMX = {"avx512_bf16": "avx512bf16", "amx_tile": "amx-tile", "amx_bf16": "amx-bf16", "amx_int8": "amx-int8"}
# The bytes of a vector, and the processor's features with the compiler's names for them.
LEVELS: dict[str, tuple[int, dict[str, str]]] = {
    "base": (16, {}),
    "avx2": (32, AVX2),
    "avx512": (64, {**AVX512, **AVX2}),
    "amx": (64, {**AMX, **AVX512, **AVX2}),
}
# The base level as a processor that is no x86-64 compiles it: the headers of this folder see to that.
ELSEWHERE = Path(__file__).with_name("elsewhere")
NO_X86 = [f"-I{ELSEWHERE}", "-include", str(ELSEWHERE / "before.h")]


@functools.cache
def cpu_flags() -> frozenset[str]:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return frozenset(next((line.split(":")[1].split() for line in lines if line.startswith("flags")), []))


def compiled(harness: Path, level: str, folder: Path) -> ctypes.CDLL:
    """The harness as a library, of a level or "elsewhere"; skips where there is no compiler or no such processor."""
    width, needs = LEVELS["base" if level == ELSEWHERE.name else level]
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++")
    if not cpu_flags().issuperset(needs):
        pytest.skip(f"this CPU has no {' '.join(sorted(set(needs) - cpu_flags()))}")
    target = folder / f"{harness.stem}.{level}.so"
    defines = [f"-DNTKFAST_ISA={level}", f"-DNTKFAST_VECTOR_BYTES={width}"]
    defines += NO_X86 if level == ELSEWHERE.name else []
    machine = [f"-m{flag}" for flag in needs.values()] + (["-mprefer-vector-width=512"] if width == 64 else [])
    subprocess.run([compiler, *FLAGS, *defines, *machine, f"-I{HEADERS}", str(harness), "-o", str(target)], check=True)
    return ctypes.CDLL(str(target))
