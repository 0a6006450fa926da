"""The README's speed table says what the result files say."""

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
    for name in ("results", "machine"):
        sys.modules.pop(name, None)


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
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8") if readme.exists() else ""
    path = BENCHMARKS / "results" / "main.json"
    if tables.BEGIN not in text or not path.exists():
        pytest.skip(
            "README.md has no speed table yet" if path.exists() else "benchmarks/results/main.json does not exist yet"
        )
    assert tables.insert(text, tables.speed_table(json.loads(path.read_text()))) == text


def test_table_states_times_ratios_and_machine(tables):
    table = tables.speed_table(CONTENT)
    expected = "| trace | width 500, N = 300 | 8 ms | 20 ms | 1.6 s (torch.func) | 2.5× | 200× |"
    assert expected in table.splitlines()
    assert "a processor" in table and "ntkfast 12 MB, torch.func 900 MB" in table


def test_insert_replaces_only_what_is_between_the_markers(tables):
    text = f"above\n{tables.BEGIN}\nold\n{tables.END}\nbelow\n"
    once = tables.insert(text, "new")
    assert once == f"above\n{tables.BEGIN}\nnew\n{tables.END}\nbelow\n"
    assert tables.insert(once, "new") == once


@pytest.mark.parametrize("text", ["", "<!-- speed:begin -->", "<!-- speed:end --> <!-- speed:begin -->"])
def test_missing_or_swapped_markers_are_an_error(tables, text):
    with pytest.raises(ValueError, match="speed:begin"):
        tables.insert(text, "new")
