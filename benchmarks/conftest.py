"""The folder of the benchmarks on the path: they import each other by plain names and are no package."""

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


@pytest.fixture(autouse=True)
def _threads():
    """Two threads, whatever the machine has: what the recorded figures were taken with."""
    import torch
    from setting import THREADS

    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    yield
    torch.set_num_threads(before)
