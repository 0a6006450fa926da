"""The wave problem trained on a GPU: milliseconds an iteration of the trainer, and on demand the paper's whole run.

``NTKFAST_BENCH_FULL=1 pytest --benchmark-only -m gpu -k whole_run`` makes the whole run: 80 001 iterations by
``examples/wave.py --preset paper``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import measure
import pytest
import results
import torch
from setting import Device

pytestmark = pytest.mark.gpu

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "wave.py"
WARM_UP, ITERATIONS, REPEATS = 200, 2000, 3
WIDTHS = (500, 100)
ERROR_EVERY = 800  # as in the example's run of 80 001 iterations
FULL = os.environ.get("NTKFAST_BENCH_FULL") == "1"


def trainer(width: int, rule: str, device: Device):
    """The trainer of ``examples/wave.py``, with NTK weights or none."""
    import ntkfast as ntk
    from ntkfast.training import adam, exponential_decay

    problem = ntk.problems.Wave1D()
    torch.manual_seed(0)
    sizes = [2, width, width, width, 1]
    net = ntk.MLP(
        sizes, activation="tanh", init="glorot_normal", standardize=problem.domain, dtype=torch.float32, device=device
    )
    weights = ntk.NTKWeights(every=100) if rule == "ntk" else None
    return ntk.Trainer(problem, net, weights, adam(net, 1e-3), exponential_decay, seed=0, batch=300)


def iterations(
    width: int, device: Device, count: int = ITERATIONS, warm_up: int = WARM_UP, repeats: int = REPEATS
) -> dict:
    """Seconds an iteration of both rules, in turn: losses recorded every 100 of them, the error every 800."""
    trainers = {"ntkfast": trainer(width, "ntk", device), "ntkfast, no weights": trainer(width, "none", device)}
    for made in trainers.values():
        made.fit(warm_up, error_every=ERROR_EVERY, progress=False)
    seconds: dict[str, list[float]] = {name: [] for name in trainers}
    for _ in range(repeats):
        for name, made in trainers.items():
            call = lambda made=made: made.fit(count, error_every=ERROR_EVERY, progress=False)  # noqa: E731
            seconds[name].append(measure.seconds_of(call, device) / count)
    losses = {name: sum(series[-1] for series in made.history.loss.values()) for name, made in trainers.items()}
    for name, loss in losses.items():
        if not loss < 1e9:
            raise ValueError(f"expected {name} to train, got a loss of {loss}")
    timings = {name: measure.timing_of(values) for name, values in seconds.items()}
    size = {"width": width, "iterations": count, "batch": 300}
    eager = {name: made.eager_because for name, made in trainers.items()}  # None where iterations are CUDA graphs
    return measure.comparison(size, timings, losses=losses, eager_because=eager, device=str(device))


def whole_run(device: Device, arguments: Iterable[str] = ("--preset", "paper")) -> dict:
    """Seconds and relative L2 error of the example's run with NTK weights, in a process of its own.

    They are written when the training ends; the figures that come after need matplotlib, which may not be there.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(EXAMPLE), *arguments, "--device", str(device), "--weights", "ntk"]
        done = subprocess.run([*command, "--out", folder], cwd=folder, capture_output=True, text=True, check=False)
        found = Path(folder) / "ntk-seed0" / "run.json"
        if not found.exists():
            raise RuntimeError(f"the example failed: {done.stderr.strip().splitlines()[-1:]}")
        run = json.loads(found.read_text())
    return {"settings": run["settings"], "run_seconds": run["seconds"], "relative_l2_error": run["l2"]}


@pytest.mark.parametrize("width", WIDTHS)
def test_gpu_iterations(benchmark, gpu, width):
    record = benchmark.pedantic(iterations, (width, gpu), rounds=1)
    results.keep("gpu", "training", str(width), record, gpu)
    benchmark.extra_info.update(record)


@pytest.mark.skipif(not FULL, reason="a whole run takes minutes: asked for by NTKFAST_BENCH_FULL=1")
def test_gpu_whole_run(benchmark, gpu):
    record = benchmark.pedantic(whole_run, (gpu,), rounds=1)
    results.keep("gpu", "whole_run", "paper", record, gpu)
    benchmark.extra_info.update(record)
