"""The levels do not meet at link time: what one of them compiles has a name of its own."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from levels import HEADERS, definitions

OWN = re.compile(r"\bntkfast::base::|__vector\(")  # the level's namespace, lambdas and vectors


@pytest.mark.skipif(not (shutil.which("g++") and shutil.which("nm")), reason="no g++ or no nm")
@pytest.mark.parametrize("source", sorted(HEADERS.glob("*.cpp")), ids=lambda source: source.stem)
def test_no_function_is_shared_by_levels(source: Path, tmp_path: Path) -> None:
    """Of weak functions the linker takes any copy. Without optimization, as inlining would hide some of them."""
    made = tmp_path / "object.o"
    command = ["g++", "-std=c++17", "-O0", "-Wno-psabi", *definitions("base"), "-c", str(source), "-o", str(made)]
    subprocess.run(command, check=True)
    command = ["nm", "-C", "--defined-only", "--format=posix", str(made)]  # name, type, value, size
    symbols = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert any("ntkfast::base::" in line for line in symbols)
    weak = [line for line in symbols if re.search(r" [WVu] [0-9a-f]+ ", line) and "ntkfast::" in line.split("(")[0]]
    assert [line for line in weak if not OWN.search(line)] == []
