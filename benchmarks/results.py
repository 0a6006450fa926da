"""Results as JSON files, ``results/<name>.json``, with machine and versions: written atomically, when asked for."""

from __future__ import annotations

import json
import os
from pathlib import Path

import machine
from setting import Device

FOLDER = Path(__file__).parent / "results"


def wanted() -> bool:
    """Whether ``NTKFAST_BENCH_WRITE=1`` asks benchmarks to write."""
    return os.environ.get("NTKFAST_BENCH_WRITE") == "1"


def write(name: str, content: dict, device: Device = "cpu") -> Path:
    """Replace ``results/<name>.json`` in one step: a reader sees the old file or the new one."""
    FOLDER.mkdir(exist_ok=True)
    path, draft = FOLDER / f"{name}.json", FOLDER / f".{name}.{os.getpid()}.tmp"
    draft.write_text(json.dumps({"machine": machine.describe(device), **content}, indent=1, default=float) + "\n")
    os.replace(draft, path)
    return path


def read(name: str) -> dict:
    """The content of ``results/<name>.json``, empty if there is none."""
    path = FOLDER / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def record(name: str, key: str, measurement: dict) -> None:
    """Add one measurement to ``results/<name>.json``; those of another machine or version are dropped."""
    if not wanted():
        return
    before = read(name)
    kept = before.get("measurements", {}) if before.get("machine") == machine.describe() else {}
    write(name, {"measurements": {**kept, key: measurement}})


def keep(name: str, section: str, key: str, measurement: dict, device: Device) -> None:
    """Add one measurement to a section of ``results/<name>.json``; those of another machine or version are dropped.

    For benchmarks that are run for this file alone: they write it unless ``NTKFAST_BENCH_WRITE=0``.
    """
    if os.environ.get("NTKFAST_BENCH_WRITE") == "0":
        return
    before, here = read(name), json.loads(json.dumps(machine.describe(device), default=float))
    sections = before.get("measurements", {}) if before.get("machine") == here else {}
    kept = {**sections, section: {**sections.get(section, {}), key: measurement}}
    write(name, {"measurements": kept}, device)
