"""The folder of the benchmarks on the path: they import each other by plain names and are no package."""

import gc
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


def pytest_collection_modifyitems(items):
    """torch.func warns about its own use of torch.jit.script; that is not ours to mend."""
    ignore = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*")
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(ignore)
            if item.get_closest_marker("gpu"):
                # What a compiler warns of is no failure of a rival.
                item.add_marker(pytest.mark.filterwarnings("default"))
                reason = _no_gpu()
                if reason:
                    item.add_marker(pytest.mark.skip(reason=reason))


def _no_gpu() -> str:
    """Why benchmarks on a GPU cannot run here; empty if they can."""
    import torch

    if not torch.cuda.is_available():
        return "needs a CUDA device"
    import ntkfast

    return "" if ntkfast._C.cuda_built else "needs a build with CUDA"


@pytest.fixture
def gpu():
    """The device of the benchmarks marked gpu, with float32 products in float32."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = False
    yield "cuda"
    gc.collect()
    torch.cuda.empty_cache()


@pytest.fixture(autouse=True)
def _threads():
    """Two threads, whatever the machine has: what the recorded figures were taken with."""
    import torch
    from setting import THREADS

    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    yield
    torch.set_num_threads(before)
