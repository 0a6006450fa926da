"""The benchmarks on a GPU run here on the CPU at a tiny size: every side is verified, timed and recorded."""

import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
QUICK = {"rounds": 1, "repeats": 1}

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*")  # raised inside torch.func


@pytest.fixture(autouse=True)
def _path(monkeypatch):
    """Benchmarks are scripts, not part of the package: their folder goes on the path for these tests alone."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield
    for name, module in list(sys.modules.items()):
        if str(BENCHMARKS) in str(getattr(module, "__file__", "")):
            del sys.modules[name]


def load(name):
    return importlib.import_module(name)


@pytest.fixture
def top():
    return load("floors").ceilings("cpu", copied=2**16, shrink=128)


def complete(record, graphs):
    """All sides are there but those in a graph, each of which says why; the record goes through JSON."""
    assert all(t["median"] > 0 for t in record["seconds"].values())
    assert set(record["errors"]) == set(record["seconds"])
    assert set(record["missing"]) == {name + ", CUDA graph" for name in graphs}
    assert all("expected a CUDA device" in reason for reason in record["missing"].values())
    assert set(record["peak_bytes"].values()) == {None}
    json.dumps(record, allow_nan=False)


def test_trace(top):
    record = load("bench_gpu_trace").compare(6, 9, "cpu", top, megabytes=(1,), **QUICK)
    complete(record, {"ntkfast", "unfused", "torch.func"})
    assert set(record["seconds"]) == {"ntkfast", "unfused", "torch.func"}
    assert 0 < record["shares"]["ntkfast"]["floor_seconds"]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gram(top, dtype):
    record = load("bench_gpu_gram").compare(6, 9, dtype, "cpu", top, megabytes=(1,), **QUICK)
    complete(record, set())
    assert set(record["seconds"]) == {"ntkfast", "unfused", "torch.func"}


def test_step_with_compiled_rivals(top):
    rows, compilers = {"u": 4, "ut": 3, "r": 5}, {"one": {"backend": "eager"}, "two": {"backend": "eager"}}
    record = load("bench_gpu_step").compare(6, "cpu", top, rows, compilers, **QUICK)
    ways = [f"compiled, {way}, one" for way in ("forward-mode", "reverse-mode", "mixed")]
    nested = [f"nested autograd, {way}" for way in ("separate", "packed", "forward-mode")]
    complete(record, {"ntkfast", "ntkfast with traces", "unfused with traces", *nested, *ways})
    assert {"nested autograd", *ways} < set(record["seconds"])
    assert sum(name.endswith(", two") for name in record["seconds"]) == 1
    assert not record["strongest"].startswith("ntkfast")


def test_a_compiler_that_fails_is_left_out_with_its_reason(top):
    def broken(graph, inputs):
        raise RuntimeError("no code for this device")

    rows = {"u": 2, "ut": 2, "r": 2}
    record = load("bench_gpu_step").compare(4, "cpu", top, rows, {"one": {"backend": broken}}, **QUICK)
    reasons = {name: why for name, why in record["missing"].items() if name.startswith("compiled")}
    assert len(reasons) == 3 and all("no code for this device" in why for why in reasons.values())
    assert not any(name.startswith("compiled") for name in record["seconds"])


def test_memory():
    record = load("bench_gpu_memory").compare(6, 128, "1MB", "cpu", piece=32, **QUICK)
    complete(record, set())


def test_training():
    record = load("bench_gpu_training").iterations(6, "cpu", count=3, warm_up=2, repeats=1)
    assert set(record["seconds"]) == {"ntkfast", "ntkfast, no weights"}


def test_whole_run():
    record = load("bench_gpu_training").whole_run("cpu", ["--smoke"])
    assert record["settings"]["iterations"] == 40 and record["run_seconds"] > 0


def test_a_wrong_side_is_never_timed():
    measure, sides = load("measure"), load("sides")
    expected = torch.ones(3)

    def check(name, got):
        return measure.verified({name: got}, expected, 1e-5)[name]

    found = sides.Sides("cpu", check)
    with pytest.raises(ValueError, match="expected wrong within"):
        found.add("wrong", lambda: 2 * expected)
    assert not found.attempt("also wrong", lambda: lambda: 2 * expected)
    assert found.calls == {} and "expected also wrong within" in found.missing["also wrong"]


def test_the_fastest_way_is_one_that_fits():
    def too_large():
        raise torch.OutOfMemoryError("no room")

    measure = load("measure")
    assert measure.fastest({"large": too_large, "small": lambda: None}) == "small"
    with pytest.raises(ValueError, match="to fit the memory of cpu"):
        measure.fastest({"large": too_large})


@pytest.mark.parametrize(("each", "calls"), [(1.0, 7), (0.004, 7), (0.001, 10), (0.0, 200)])
def test_a_burst_has_its_calls_and_lasts(monkeypatch, each, calls):
    measure = load("measure")
    monkeypatch.setattr(measure, "seconds_of", lambda side, device: each)
    assert measure.burst(lambda: None, 7) == [each] * calls


def test_reference_refuses_a_device_that_computes_something_else(monkeypatch):
    exact, setting = load("exact"), load("setting")
    net, x = setting.network(4), setting.points(5)
    assert exact.gram(net, x).shape == (5, 5)
    results = iter([torch.ones(5, 5, dtype=torch.float64), 2 * torch.ones(5, 5, dtype=torch.float64)])
    monkeypatch.setattr(exact.unfused_kernels, "gram", lambda sweep, points: next(results))
    with pytest.raises(ValueError, match="expected float64 on the device within"):
        exact.gram(net, x)


def test_results_are_kept_by_section_and_machine(monkeypatch, tmp_path):
    results, machine = load("results"), load("machine")
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    monkeypatch.delenv("NTKFAST_BENCH_WRITE", raising=False)
    monkeypatch.setattr(machine, "describe", lambda device="cpu": {"gpu": "one", "device": str(device)})
    for section, key in (("trace", "a"), ("trace", "b"), ("gram", "a")):
        results.keep("gpu", section, key, {"size": key}, "cpu")
    content = results.read("gpu")
    assert content["machine"] == {"gpu": "one", "device": "cpu"}
    assert content["measurements"] == {"trace": {"a": {"size": "a"}, "b": {"size": "b"}}, "gram": {"a": {"size": "a"}}}
    monkeypatch.setattr(machine, "describe", lambda device="cpu": {"gpu": "another"})
    results.keep("gpu", "step", "c", {"size": "c"}, "cpu")
    assert results.read("gpu")["measurements"] == {"step": {"c": {"size": "c"}}}
    monkeypatch.setenv("NTKFAST_BENCH_WRITE", "0")
    results.keep("gpu", "step", "d", {"size": "d"}, "cpu")
    assert set(results.read("gpu")["measurements"]["step"]) == {"c"}


def test_table_of_tiny_results(top):
    trace = load("bench_gpu_trace").compare(6, 9, "cpu", top, megabytes=(1,), **QUICK)
    step = load("bench_gpu_step").compare(6, "cpu", top, {"u": 4, "ut": 3, "r": 5}, {}, **QUICK)
    memory = load("bench_gpu_memory").compare(6, 64, "1MB", "cpu", piece=32, **QUICK)
    run = {"paper": {"run_seconds": 50.0, "relative_l2_error": 0.01}}
    measurements = {"trace": {"500x300": trace}, "step": {"6": step}, "memory": {"m": memory}, "whole_run": run}
    tables = load("gpu_tables")
    table = tables.gpu_table({"machine": {"torch": "2.13.0"}, "measurements": measurements})
    assert "width 6, N = 9 each of 3" in table and "width 6, 4 + 3 + 5 rows" in table
    assert "The paper's wave run: 50 s, relative error 1.0e-02." in table
    verdicts = {what: met for what, _, _, met in tables.required(measurements)}
    assert verdicts["the paper's wave run"] and not verdicts["its relative error"]
    assert any(
        "trace 500x300: ntkfast, CUDA graph: expected a CUDA device" in line for line in tables.left_out(measurements)
    )


def test_a_gpu_is_timed_by_its_events_from_idle_to_idle(monkeypatch):
    log, measure = [], load("measure")

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            log.append("record")

        def synchronize(self):
            log.append("wait")

        def elapsed_time(self, end):
            return 250.0

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: log.append("idle"))
    assert measure.seconds_of(lambda: log.append("call"), "cuda") == 0.25
    assert log == ["idle", "record", "call", "record", "wait"]


def test_peak_is_what_a_call_needs_beyond_what_was_there(monkeypatch):
    measure, held = load("measure"), [100]
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: held.append(100))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 100)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: max(held))
    assert measure.peak_bytes(lambda: held.append(130), "cuda") == 30


def test_the_machine_names_its_gpu(monkeypatch):
    machine = load("machine")
    properties = {"name": "a GPU", "major": 9, "minor": 0, "multi_processor_count": 132, "total_memory": 2**37}
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(**properties))
    found = machine.describe("cuda")
    assert found["gpu"] == "a GPU" and found["capability"] == "9.0" and found["gpu_memory_gib"] == 128.0
    assert found["tf32"] is False and "driver" in found
    properties["clock_rate"] = 1_980_000
    assert load("floors")._nominal("cuda", "float32") == pytest.approx(66.9e12, rel=1e-3)
    json.dumps(found, allow_nan=False)
