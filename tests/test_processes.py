"""The whole suite runs in several processes; a part of it, and one of those processes, starts no others."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

SOURCES = pytest.Config.ArgsSource


@pytest.fixture
def processes(monkeypatch):
    spec = importlib.util.spec_from_file_location("suite", Path(__file__).with_name("conftest.py"))
    suite = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(suite)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    def asked_for(source=SOURCES.TESTPATHS, more=None, **options):
        option = SimpleNamespace(**{"numprocesses": None, "dist": "no", "tx": [], "capture": "fd", **options})
        suite.pytest_cmdline_main(SimpleNamespace(option=option, args_source=source, **(more or {})))
        return option.numprocesses

    return asked_for


def test_the_whole_suite_runs_in_several(processes):
    assert processes() >= 1
    assert processes(numprocesses=3) == 3 and processes(numprocesses=0) == 0


@pytest.mark.parametrize("option", ["keyword", "deselect", "lf", "trace", "collectonly", "benchmark_only"])
def test_a_part_of_it_runs_in_one(processes, option):
    assert processes(**{option: "gram"}) is None and processes(SOURCES.ARGS) is None


@pytest.mark.parametrize("option", [{"capture": "no"}, {"dist": "loadfile"}, {"tx": ["popen"]}])
def test_what_the_caller_asks_for_counts(processes, option):
    assert processes(**option) is None


def test_a_process_of_a_run_starts_no_others(processes):
    assert processes(more={"workerinput": {}}) is None


def test_a_gpu_is_not_shared(processes, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert processes() is None
