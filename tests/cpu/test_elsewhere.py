"""The base level needs nothing of x86-64: every source of it compiles where nothing says that this is one.

test_elementary.py and test_product.py run what comes of it.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from levels import HEADERS, NO_X86, definitions

SOURCES = [*sorted(HEADERS.glob("*.cpp")), HEADERS.parent / "dispatch.cpp"]


@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")
@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_compiles(source: Path) -> None:
    flags = ["-std=c++17", "-fsyntax-only", "-Wall", "-Werror", "-Wno-psabi", *definitions("base"), *NO_X86]
    command = ["g++", *flags, str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
