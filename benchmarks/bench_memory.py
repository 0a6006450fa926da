"""Peak memory of a trace, in a process of its own, and a trace over a million points within a budget."""

import json
import statistics
import subprocess
import sys
from pathlib import Path

import measure
import pytest
import results
import torch

PROBE = Path(__file__).with_name("memory_probe.py")
BUDGET = "512MB"
BUDGET_BYTES = 512 * 10**6
MILLION = 10**6
MEGABYTE = 10**6


def probe(side: str, width: int, n: int, memory: str | None = None) -> dict:
    """One fresh process."""
    command = [sys.executable, str(PROBE), "--side", side, "--width", str(width), "--n", str(n)]
    command += ["--memory", memory] if memory else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the memory probe failed: {done.stderr.strip().splitlines()[-1:]}")
    return json.loads(done.stdout)


def compare(width: int = 500, n: int = 300, repeats: int = 3) -> dict:
    """Peak bytes of every side, median of a few processes."""
    runs = {side: [probe(side, width, n) for _ in range(repeats)] for side in ("ntkfast", "unfused", "torch.func")}
    values = {side: torch.tensor(r[0]["value"]) for side, r in runs.items()}
    errors = measure.verified(values, values["unfused"], 1e-4)
    peaks = {side: statistics.median(r["peak_bytes"] for r in rs) for side, rs in runs.items()}
    source = runs["ntkfast"][0]["source"]
    return {"size": {"width": width, "n": n}, "peak_bytes": peaks, "errors": errors, "source": source}


def million(width: int = 128, repeats: int = 3) -> dict:
    """The trace over a million points under a budget: peak and time, one cold call per process."""
    runs = [probe("ntkfast", width, MILLION, BUDGET) for _ in range(repeats)]
    return {
        "size": {"width": width, "n": MILLION},
        "budget_bytes": BUDGET_BYTES,
        "peak_bytes": {"ntkfast": max(r["peak_bytes"] for r in runs)},
        "cold_seconds": {"ntkfast": statistics.median(r["seconds"] for r in runs)},
    }


@pytest.mark.parametrize("case", ["peak", "million"])
def test_memory(benchmark, case):
    record = benchmark.pedantic(compare if case == "peak" else million, kwargs={"repeats": 1}, rounds=1)
    results.record("memory", case, record)
    benchmark.extra_info.update(record)
