"""What a result was measured on: processor, threads, versions and load."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import time
from pathlib import Path

import torch
from setting import Device


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _processor() -> str:
    """The model's name, and after a bare one ("AMD EPYC") the numbers that tell the generation."""
    found = dict(re.findall(r"^(model name|cpu family|model)\s*:\s*(.+)$", _read("/proc/cpuinfo"), re.MULTILINE))
    if "model name" not in found:
        return platform.processor() or platform.machine()
    name = found["model name"].strip()
    bare = "cpu family" in found and not any(letter.isdigit() for letter in name)
    return f"{name} (family {found['cpu family']}, model {found['model']})" if bare else name


def _flags() -> list[str]:
    """The instruction sets that matter to dense products."""
    found = set(_read("/proc/cpuinfo").split())
    return [flag for flag in ("avx2", "fma", "avx512f", "avx512dq", "avx512_bf16", "amx_tile") if flag in found]


def _memory() -> float | None:
    match = re.search(r"MemTotal:\s+(\d+) kB", _read("/proc/meminfo"))
    return round(int(match.group(1)) / 2**20, 1) if match else None


def _library() -> dict[str, str]:
    try:
        import ntkfast
    except ImportError:
        return {}
    return {
        "ntkfast": ntkfast.__version__,
        "instruction_set": ntkfast._C.isa(),
        "compiler": ntkfast._C.compiler,
        "built_with_torch": ntkfast._C.torch_version,
    }


def load() -> list[float]:
    """Load averages over 1, 5 and 15 minutes."""
    return [round(x, 2) for x in os.getloadavg()]


def others(seconds: float = 1.0) -> float:
    """How many other threads run, on average: unlike the load average it forgets one's own past work at once."""
    text = _read("/proc/loadavg")
    if not text:
        return 0.0
    counts = []
    for _ in range(20):
        time.sleep(seconds / 20)
        counts.append(int(_read("/proc/loadavg").split()[3].split("/")[0]) - 1)
    return sum(counts) / len(counts)


def quiet(limit: float, patience: float) -> float:
    """Wait at most ``patience`` seconds for fewer than ``limit`` other running threads; returns how many there are."""
    end = time.monotonic() + patience
    running = others()
    while running > limit and time.monotonic() < end:
        time.sleep(5.0)
        running = others()
    return running


def _driver() -> str | None:
    match = re.search(r"Kernel Module\D*?\s+([\d.]+)", _read("/proc/driver/nvidia/version"))
    if match:
        return match.group(1)
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout.split()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        return None


def gpu(device: Device) -> dict:
    """A CUDA device, and the versions that its figures depend on."""
    properties = torch.cuda.get_device_properties(device)
    return {
        "gpu": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "gpu_memory_gib": round(properties.total_memory / 2**30, 1),
        "driver": _driver(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "tf32": torch.backends.cuda.matmul.allow_tf32,
    }


def describe(device: Device = "cpu") -> dict:
    """Machine and versions of this process, ready for JSON; with a CUDA device those of the device too."""
    mkl = re.search(r"oneAPI Math Kernel Library Version ([\w.]+)", torch.__config__.show())
    dnn = re.search(r"MKL-DNN v([\w.]+)", torch.__config__.show())
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "instructions": _flags(),
        "memory_gib": _memory(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "mkl": mkl.group(1) if mkl else None,
        "onednn": dnn.group(1) if dnn else None,
        **_library(),
        **(gpu(device) if torch.device(device).type == "cuda" else {}),
    }
