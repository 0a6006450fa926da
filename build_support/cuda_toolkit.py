"""The CUDA toolkit: found, tried, and its architectures chosen."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Ampere, Hopper, Blackwell (data centre) and Blackwell (workstation); PTX of the last one serves what comes later.
DEFAULT_ARCHITECTURES = ("80", "90", "100", "120")
USUAL_NVCC = Path("/usr/local/cuda/bin/nvcc")


@dataclass(frozen=True)
class CudaToolkit:
    """A toolkit that compiles here; the static runtime, so that no libcudart is needed to load the extension."""

    nvcc: Path
    include: Path
    static_runtime: Path
    architectures: tuple[str, ...]
    host_compiler: tuple[str, ...]

    @property
    def code_flags(self) -> list[str]:
        """One machine code per architecture, and PTX of the last."""
        codes = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in self.architectures]
        last = self.architectures[-1]
        return [*codes, f"-gencode=arch=compute_{last},code=compute_{last}"]


def find_toolkit(host_compiler: list[str]) -> CudaToolkit | None:
    """Return the toolkit that NTKFAST_CUDA asks for: 0 never, 1 or an error, auto (the default) if one works.

    Who names architectures in NTKFAST_CUDA_ARCH asks for CUDA code: 1 is the default then.
    """
    wanted = os.environ.get("NTKFAST_CUDA", "1" if _named_architectures() else "auto")
    if wanted not in ("0", "1", "auto"):
        raise SystemExit(f"ntkfast: expected NTKFAST_CUDA to be 0, 1 or auto, got {wanted!r}.")
    if wanted == "0":
        return None
    try:
        return _working_toolkit(host_compiler)
    except SystemExit as refusal:
        if wanted == "1":
            raise
        print(f"{refusal} Building for the CPU alone.", flush=True)
        return None


def _working_toolkit(host_compiler: list[str]) -> CudaToolkit:
    for nvcc in _candidates():
        root = _root(nvcc)
        if root is not None:
            toolkit = CudaToolkit(
                nvcc,
                _file(root, "include", "cuda_runtime.h").parent,
                _file(root, "lib", "libcudart_static.a"),
                _architectures(nvcc),
                # nvcc takes its own choice of g++ unless told; a launcher before it (ccache) is not for nvcc.
                ("-ccbin", host_compiler[-1]) if os.environ.get("CXX") else (),
            )
            _compile_empty_kernel(toolkit)
            return toolkit
    raise SystemExit(
        "ntkfast: no CUDA toolkit: expected nvcc in $CUDA_HOME or $CUDA_PATH, on PATH, in /usr/local/cuda or of the "
        "wheel nvidia-cuda-nvcc, got none."
    )


def _candidates() -> Iterator[Path]:
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        if os.environ.get(variable):
            yield Path(os.environ[variable]) / "bin" / "nvcc"
    on_path = shutil.which("nvcc")
    if on_path:
        yield Path(on_path)
    yield USUAL_NVCC
    # The wheels nvidia-cuda-nvcc, -crt, -runtime, -cccl and nvidia-nvvm are a toolkit too.
    yield from sorted(Path(sysconfig.get_path("purelib")).glob("nvidia/cu*/bin/nvcc"))


def _root(nvcc: Path) -> Path | None:
    # nvcc may be a wrapper script or a link, so its own word is taken for where its toolkit lies.
    try:
        said = subprocess.run([nvcc, "--dryrun", "-x", "cu", "-c", os.devnull], capture_output=True, text=True).stderr
    except OSError:
        return None
    top = re.search(r"^#\$ TOP=(.+)$", said, flags=re.MULTILINE)
    return Path(top[1].strip()).resolve() if top else None


def _file(root: Path, kind: str, name: str) -> Path:
    folders = [root / kind, root / f"{kind}64", *sorted(root.glob(f"targets/*/{kind}"))]
    found = [folder / name for folder in folders if (folder / name).is_file()]
    if not found:
        raise SystemExit(f"ntkfast: expected a whole CUDA toolkit in {root}, got one without {name}.")
    return found[0]


def _named_architectures() -> list[str]:
    return re.findall(r"[^;,\s]+", os.environ.get("NTKFAST_CUDA_ARCH", "").replace(".", ""))


def _architectures(nvcc: Path) -> tuple[str, ...]:
    listed = subprocess.run([nvcc, "--list-gpu-arch"], capture_output=True, text=True).stdout
    known = re.findall(r"compute_(\d+[a-z]?)", listed)
    wanted = _named_architectures()
    if not wanted:
        return tuple(a for a in DEFAULT_ARCHITECTURES if a in known) or tuple(known[-1:])
    for architecture in wanted:
        if architecture.rstrip("af") not in known:
            raise SystemExit(
                f"ntkfast: expected NTKFAST_CUDA_ARCH to name architectures of {nvcc} ({', '.join(known)}), "
                f"got {architecture!r}."
            )
    return tuple(sorted(set(wanted), key=lambda a: int(a.rstrip("af"))))


def _compile_empty_kernel(toolkit: CudaToolkit) -> None:
    # Finds a host compiler that is too new for nvcc, and a toolkit with parts missing.
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "empty.cu"
        source.write_text("#include <cuda_runtime.h>\n__global__ void nothing() {}\n")
        flags = [*toolkit.host_compiler, "-std=c++17", f"-arch=sm_{toolkit.architectures[-1]}", "-c"]
        command = [toolkit.nvcc, *flags, source, "-o", f"{source}.o"]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        output = [line.strip() for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        reason = next((line for line in output if "error" in line.lower()), output[-1] if output else "no message")
        raise SystemExit(f"ntkfast: expected {toolkit.nvcc} to compile an empty kernel, got: {reason}")
