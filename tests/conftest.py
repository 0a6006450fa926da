"""Fixtures that run a test on every problem of the table, in both floating types; the whole suite on several cores."""

import os
import signal
from collections.abc import Iterator

# Read when torch is loaded: threads that wait by spinning slow a busy machine down by orders of magnitude.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import pytest
import torch
from cases import CASES, Case, Problem

MOST_PROCESSES = 8  # each imports torch
# Options that choose a part of the suite, measure, or talk to whoever started it.
ALONE = ("keyword", "markexpr", "deselect", "lf", "failedfirst", "stepwise", "usepdb", "trace", "collectonly")
ALONE += ("benchmark_only", "benchmark_enable")


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist looks at its options
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Run the whole suite in several processes; what chooses a part of it, measures or waits for a key, in one."""
    option, whole = config.option, config.args_source is pytest.Config.ArgsSource.TESTPATHS
    if hasattr(config, "workerinput") or not whole or torch.cuda.is_available() or option.capture == "no":
        return
    if any(getattr(option, name, None) for name in ALONE):
        return
    # Where pytest-xdist is there, and the caller has not said how.
    if getattr(option, "numprocesses", 1) is None and option.dist == "no" and not option.tx:
        option.numprocesses = min(len(os.sched_getaffinity(0)), MOST_PROCESSES)
        option.dist = "worksteal"


def pytest_configure(config: pytest.Config) -> None:
    # torch.func's forward mode scripts a few of its own decompositions at first use.
    config.addinivalue_line("filterwarnings", "ignore:`torch.jit.script` is")


@pytest.fixture(params=[torch.float64, torch.float32], ids=["float64", "float32"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Ctrl-C as a shell's own command meets it; what a shell starts in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(params=CASES, ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


@pytest.fixture
def problem(case: Case, dtype: torch.dtype) -> Problem:
    return case.problem(dtype)
