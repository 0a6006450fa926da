"""Fixtures that run a test on every problem of the table, in both floating types."""

import os

# Read when torch is loaded: threads that wait by spinning slow a busy machine down by orders of magnitude.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import pytest
import torch
from cases import CASES, Case, Problem


def pytest_configure(config: pytest.Config) -> None:
    # torch.func's forward mode scripts a few of its own decompositions at first use.
    config.addinivalue_line("filterwarnings", "ignore:`torch.jit.script` is")


@pytest.fixture(params=[torch.float64, torch.float32], ids=["float64", "float32"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


@pytest.fixture(params=CASES, ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


@pytest.fixture
def problem(case: Case, dtype: torch.dtype) -> Problem:
    return case.problem(dtype)
