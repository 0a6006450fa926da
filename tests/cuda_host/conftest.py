"""The sweeps' CUDA kernels, compiled for the host once a session."""

import pytest
import torch
from sweep_library import SweepLibrary


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Tests draw the same numbers each time: a float32 sum that cancels by chance would exceed its tolerance."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> SweepLibrary:
    return SweepLibrary(SweepLibrary.build(tmp_path_factory.mktemp("cuda_host") / "sweeps.so"))
