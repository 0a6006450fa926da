"""`python -m ntkfast`: what was built, and what it runs on here."""

from __future__ import annotations

import re

import torch

from ntkfast import _C


def _devices() -> str:
    names = ["cpu"]
    for index in range(torch.cuda.device_count()):
        major, minor = torch.cuda.get_device_capability(index)
        names.append(f"cuda:{index} {torch.cuda.get_device_name(index)} (sm_{major}{minor})")
    return ", ".join(names)


def _blas() -> str:
    found = re.search(r"BLAS_INFO=(\w+)", torch.__config__.show())
    return found[1] if found else "unknown"


def report() -> str:
    """Return what was built and what it runs on, one fact per line.

    Returns:
        Lines of "name  value": versions of ntkfast and torch, the instruction-set level in use among those compiled,
        CUDA architectures, devices, BLAS of torch, threads, compiler.

    Example:
        >>> print(report())  # doctest: +ELLIPSIS
        ntkfast       ...
    """
    cuda = ", ".join(f"sm_{name}" for name in _C.cuda_architectures) if _C.cuda_built else "not built"
    facts = {
        "ntkfast": _C.version,
        "torch": f"{torch.__version__} (built against {_C.torch_version})",
        "CPU level": f"{_C.isa()} (compiled: {', '.join(_C.cpu_levels)})",
        "CUDA code": cuda,
        "devices": _devices(),
        "BLAS": _blas(),
        "threads": str(torch.get_num_threads()),
        "compiler": _C.compiler,
    }
    return "\n".join(f"{name:<14}{value}" for name, value in facts.items())


if __name__ == "__main__":
    print(report())
