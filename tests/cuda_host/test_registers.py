"""What nvcc makes of the CUDA kernels: none of them spills registers. Needs a toolkit, but no GPU."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from host_build import CSRC

from ntkfast import _C

NVCC = shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")
SPILLED = re.compile(r"Compiling entry function '(\S+)'.*?(\d+) bytes spill stores, (\d+) bytes spill loads", re.DOTALL)
ARCHITECTURE = "sm_90"


@pytest.mark.skipif(not (_C.cuda_built and NVCC), reason="needs nvcc and a build with CUDA")
@pytest.mark.parametrize("source", sorted((CSRC / "cuda").glob("*.cu")), ids=lambda source: source.stem)
def test_no_kernel_spills(source: Path, tmp_path: Path) -> None:
    flags = ["-O3", "-std=c++17", f"-arch={ARCHITECTURE}", "-cubin", "-Xptxas", "-v"]
    command = [str(NVCC), *flags, str(source), "-o", str(tmp_path / "kernels.cubin")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    kernels = SPILLED.findall(done.stdout + done.stderr)
    assert len(kernels) == (done.stdout + done.stderr).count("Compiling entry function")
    assert [kernel for kernel in kernels if kernel[1:] != ("0", "0")] == []
