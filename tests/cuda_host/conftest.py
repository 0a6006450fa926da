"""The sweeps' CUDA kernels, compiled for the host once a run, whatever the number of its processes."""

import os

import pytest
import torch
from host_build import built_once
from sweep_library import SweepLibrary


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Tests draw the same numbers each time: a float32 sum that cancels by chance would exceed its tolerance."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> SweepLibrary:
    folder = tmp_path_factory.getbasetemp()
    shared = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    return SweepLibrary(built_once(shared / "sweeps.so", SweepLibrary.build))
