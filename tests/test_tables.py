"""The README's tables say what the result files say."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture
def tables(monkeypatch):
    """benchmarks/tables.py, which is a script and no part of the package."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location("benchmark_tables", BENCHMARKS / "tables.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    for name, loaded in list(sys.modules.items()):
        if str(BENCHMARKS) in str(getattr(loaded, "__file__", "")):
            del sys.modules[name]


def timing(median):
    return {"median": median, "low": median, "quartiles": [median, median], "runs": 3, "cores": 2.0}


CONTENT = {
    "machine": {"threads": 2, "processor": "a processor", "torch": "2.13.0"},
    "measurements": {
        "trace": {
            "500x300": {
                "size": {"width": 500, "n": 300},
                "seconds": {"ntkfast": timing(0.008), "unfused": timing(0.02), "torch.func": timing(1.6)},
            }
        },
        "memory": {"peak": {"peak_bytes": {"ntkfast": 12 * 10**6, "torch.func": 900 * 10**6}}},
    },
}


def test_readme_is_in_step_with_the_results(tables):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    results = BENCHMARKS / "results"
    main = json.loads((results / "main.json").read_text())
    others = {kind: json.loads((results / f"{name}.json").read_text()) for name, kind in tables.OTHERS.items()}
    gpu = json.loads((results / "gpu.json").read_text()) if (results / "gpu.json").exists() else {}
    assert tables.ACCURACY_BEGIN in text
    assert tables.BEGIN in text and tables.insert_all(text, main, gpu, others) == text


def test_table_states_times_ratios_and_machine(tables):
    table = tables.speed_table(CONTENT)
    expected = "| trace | width 500, N = 300 | 8 ms | 20 ms | 1.6 s (torch.func) | 2.5× | 200× |"
    assert expected in table.splitlines()
    assert "a processor" in table and "ntkfast 12 MB, torch.func 900 MB" in table


def test_summary_states_ranges_and_machine(tables):
    record = CONTENT["measurements"]["trace"]["500x300"]
    step = {"seconds": {"ntkfast": timing(1e-3), "unfused": timing(2e-3), "nested autograd": timing(4e-3)}}
    faster = {"seconds": record["seconds"] | {"ntkfast": timing(0.004)}}
    content = {
        "machine": CONTENT["machine"] | {"instruction_set": "avx512"},
        "measurements": {"trace": {"a": record, "b": faster}, "gram": {"a": record}, "step": {"a": step}},
    }
    assert tables.summary(content, "a kind") == (
        "The same sizes on a processor, a kind, level avx512, torch 2.13.0: "
        "trace 200–400× against torch.func, 2.5–5.0× against unfused; "
        "gram 200–200× against torch.func, 2.5–2.5× against unfused; "
        "training step 4.0–4.0× against nested autograd, 2.0–2.0× against unfused."
    )


def agreement(**errors):
    return {"measurements": {"agreement": {"all": {"errors": {k.replace("_", " "): e for k, e in errors.items()}}}}}


def test_the_largest_error_of_all_results_counts(tables):
    first = agreement(float64_trace_u=6.03e-16, float64_gram_r=1e-16, float32_gram_u=2e-8)
    second = agreement(float64_diag_u=3e-16, float32_diag_r=1.42e-7)
    speeds = {"measurements": {"trace": {}}}
    table = tables.accuracy_table([first, speeds, second]).splitlines()
    assert table[0].endswith("over traces, diagonals and Grams of the wave network:")
    assert table[-2:] == ["| float64 | 6.0e-16 | 1e-10 |", "| float32 | 1.4e-7 | 1e-5 |"]
    gradients = tables.accuracy_table([first, agreement(float32_gradient_u=3e-7)])
    assert "traces, Grams and gradients of losses" in gradients and "| float32 | 3.0e-7 |" in gradients


def test_insert_replaces_only_what_is_between_the_markers(tables):
    text = f"above\n{tables.BEGIN}\nold\n{tables.END}\nbelow\n"
    once = tables.insert(text, "new")
    assert once == f"above\n{tables.BEGIN}\nnew\n{tables.END}\nbelow\n"
    assert tables.insert(once, "new") == once


GPU = {
    "machine": {"torch": "2.11.0", "gpu": "a GPU", "driver": "1", "cuda": "13.0"},
    "measurements": {
        "trace": {
            "500x300": {
                "size": {"width": 500, "n": 300, "groups": 3},
                "seconds": {
                    "ntkfast": timing(5e-4),
                    "ntkfast, CUDA graph": timing(2e-4),
                    "unfused": timing(1e-3),
                    "torch.func": timing(0.05),
                    "torch.func, CUDA graph": timing(0.04),
                },
                "shares": {"ntkfast, CUDA graph": {"share_of_floor": 0.25}},
            }
        },
    },
}


def test_table_of_the_gpu_stands_where_the_readme_has_a_place_for_it(tables):
    gpu = tables.gpu_tables
    text = f"{tables.BEGIN}\n{tables.END}\n"
    assert tables.insert_all(text, CONTENT, GPU) == tables.insert(text, tables.speed_table(CONTENT))
    both = tables.insert_all(text + f"{gpu.BEGIN}\n{gpu.END}\n", CONTENT, GPU)
    cells = ["0.5 ms", "0.2 ms", "1 ms (unfused), 5.0×", "40 ms (torch.func, CUDA graph), 200×", "25 %"]
    assert f"| traces of three groups | width 500, N = 300 each of 3 | {' | '.join(cells)} |" in both.splitlines()
    assert "a GPU, driver 1, CUDA 13.0, torch 2.11.0" in both


def test_required_figures_of_the_gpu(tables):
    ours, ratio = tables.gpu_tables.required(GPU["measurements"])
    assert ours == ("traces, width 500", "≤ 0.4 ms", "0.2 ms", True)
    assert ratio == ("traces, width 500, over torch.func", "≥ 100×", "250×", True)


@pytest.mark.parametrize("text", ["", "<!-- speed:begin -->", "<!-- speed:end --> <!-- speed:begin -->"])
def test_missing_or_swapped_markers_are_an_error(tables, text):
    with pytest.raises(ValueError, match="speed:begin"):
        tables.insert(text, "new")
