"""Compiler, ninja and platform: found, or refused with one sentence."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

OLDEST_GCC = 11

AVX512 = ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx2", "-mfma", "-mprefer-vector-width=512"]
# Flags of each instruction-set level and the bytes of its vector registers; the level is chosen at run time.
X86_LEVELS: dict[str, tuple[int, list[str]]] = {
    "base": (16, []),
    "avx2": (32, ["-mavx2", "-mfma"]),
    "avx512": (64, AVX512),
    "amx": (64, [*AVX512, "-mavx512bf16", "-mamx-tile", "-mamx-bf16", "-mamx-int8"]),
}


def check_platform() -> None:
    """Refuse everything but Linux."""
    if sys.platform != "linux":
        raise SystemExit(f"ntkfast: expected Linux, the only supported platform, got {sys.platform}.")


def cpu_levels() -> dict[str, tuple[int, list[str]]]:
    """Return the instruction-set levels to compile: four on x86-64, the baseline elsewhere."""
    if platform.machine() in ("x86_64", "AMD64"):
        return X86_LEVELS
    return {"base": X86_LEVELS["base"]}


def compiler() -> list[str]:
    """Return the command of a GCC that is new enough: $CXX or g++."""
    command = shlex.split(os.environ.get("CXX", "")) or ["g++"]
    if shutil.which(command[0]) is None:
        raise SystemExit(
            f"ntkfast: no C++ compiler: expected GCC {OLDEST_GCC} or newer as $CXX or g++, got none at {command[0]!r}."
        )
    macros = subprocess.run([*command, "-dM", "-E", "-x", "c++", os.devnull], capture_output=True, text=True).stdout
    defined = dict(re.findall(r"#define (\w+) (\d+)$", macros, flags=re.MULTILINE))
    if "__clang_major__" in defined:
        found = f"clang {defined['__clang_major__']}"
    else:
        found = f"GCC {defined['__GNUC__']}" if "__GNUC__" in defined else "an unknown compiler"
    if not found.startswith("GCC") or int(defined["__GNUC__"]) < OLDEST_GCC:
        raise SystemExit(f"ntkfast: expected GCC {OLDEST_GCC} or newer, got {found} ({shlex.join(command)}).")
    return command


def ninja() -> list[str]:
    """Return the command of ninja: the program, or the module of the running interpreter."""
    program = shutil.which("ninja")
    if program is not None:
        return [program]
    if importlib.util.find_spec("ninja") is not None:
        return [sys.executable, "-m", "ninja"]
    raise SystemExit("ntkfast: no ninja: expected the program on PATH or the Python package `ninja`, got neither.")


def python_include() -> Path:
    """Return the folder of Python.h."""
    folder = Path(sysconfig.get_path("include"))
    if not (folder / "Python.h").is_file():
        raise SystemExit(f"ntkfast: no Python headers: expected {folder / 'Python.h'} (package python3-dev), got none.")
    return folder
