"""The sweeps' CUDA kernels, compiled for the host once a session."""

import pytest
from sweep_library import SweepLibrary


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> SweepLibrary:
    return SweepLibrary(SweepLibrary.build(tmp_path_factory.mktemp("cuda_host") / "sweeps.so"))
