"""`python -m ntkfast` says what was built."""

import os
import subprocess
import sys

import pytest
import torch

import ntkfast
from ntkfast import _C


def report(tmp_path, **environment) -> dict[str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "ntkfast"],
        cwd=tmp_path,  # the installed package, whatever lies in the folder of the tests
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return {line[:14].strip(): line[14:] for line in done.stdout.splitlines()}


def test_names_versions_and_hardware(tmp_path):
    facts = report(tmp_path)
    assert facts["ntkfast"] == ntkfast.__version__ == _C.version
    assert facts["torch"].startswith(torch.__version__)
    assert all(f"sm_{name}" in facts["CUDA code"] for name in _C.cuda_architectures)
    assert _C.cuda_built == bool(_C.cuda_architectures)
    assert facts["devices"].count("cuda:") == torch.cuda.device_count()


@pytest.mark.parametrize("level", ["base", "avx2", "avx512", "amx"])
def test_environment_lowers_the_level(tmp_path, level):
    levels = list(_C.cpu_levels)
    widest = report(tmp_path, NTKFAST_ISA="amx")["CPU level"].split()[0]
    used = report(tmp_path, NTKFAST_ISA=level)["CPU level"].split()[0]
    if level in levels and levels.index(level) <= levels.index(widest):
        assert used == level
    else:
        assert used == widest


def test_version_is_that_of_the_metadata():
    from importlib.metadata import version

    assert version("ntkfast") == ntkfast.__version__
