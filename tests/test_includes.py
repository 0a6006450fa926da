"""Native code includes one way: core ← cpu, cuda ← ops, and neither device's code the other's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

CSRC = Path(__file__).parents[1] / "csrc"
MAY_INCLUDE = {"core": {"core"}, "cpu": {"core", "cpu", "."}, "cuda": {"core", "cuda"}}
INCLUDE = re.compile(r'^#include ([<"])([^>"]+)', re.MULTILINE)
FILES = [path for folder in MAY_INCLUDE for path in sorted((CSRC / folder).iterdir())]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CSRC)))
def test_includes_point_one_way(path: Path) -> None:
    found = INCLUDE.findall(path.read_text(encoding="utf-8"))
    assert not [name for kind, name in found if kind == "<" and name.startswith(("torch", "pybind", "ATen"))]
    folders = {str((path.parent / name).resolve().parent.relative_to(CSRC)) for kind, name in found if kind == '"'}
    assert folders <= MAY_INCLUDE[path.parent.name]
