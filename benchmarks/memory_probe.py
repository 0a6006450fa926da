"""Peak resident memory of one trace, beyond what was resident before: run in a process of its own, prints JSON.

``python benchmarks/memory_probe.py --side ntkfast --width 500 --n 300``
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import re
import resource
import time
from pathlib import Path

import ours
import setting
import torch
from baselines import torch_func, unfused, unfused_kernels


def _status(field: str) -> int:
    """A field of /proc/self/status in bytes."""
    return 1024 * int(re.search(rf"^{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE).group(1))


def _trim() -> None:
    """Give freed memory back to the system, so that it does not hide what comes next."""
    gc.collect()
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except OSError:
        pass


def _reset_peak() -> str:
    """Start the high-water mark anew; where the system refuses, the peak since the start of the process must do."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return "VmHWM"
    except OSError:
        return "ru_maxrss"


def call(side: str, net: torch.nn.Sequential, x: torch.Tensor, memory: str | None) -> torch.Tensor:
    """One trace by one side."""
    if side == "ntkfast":
        return ours.trace(net, x, memory)
    if side == "unfused":
        return unfused_kernels.trace(unfused.Unfused(net, {"r": (len(x), unfused.WAVE)}, keep=False), {"r": x})
    row = sum(p.numel() * p.element_size() for p in net.parameters())
    return torch_func.trace(net, x, chunk=max(8, (32 << 20) // row))


def probe(side: str, width: int, n: int, memory: str | None) -> dict:
    """Load libraries and start threads on a small case, then measure one call on cold workspaces."""
    torch.set_num_threads(setting.THREADS)
    call(side, setting.network(16), setting.points(8), memory)
    net, x = setting.network(width), setting.points(n)
    _trim()
    source = _reset_peak()
    before = _status("VmRSS") if source == "VmHWM" else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    value = float(call(side, net, x, memory))
    seconds = time.perf_counter() - start
    after = _status("VmHWM") if source == "VmHWM" else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"peak_bytes": after - before, "seconds": seconds, "value": value, "source": source}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", choices=("ntkfast", "unfused", "torch.func"), default="ntkfast")
    parser.add_argument("--width", type=int, default=500)
    parser.add_argument("--n", type=int, default=300)
    parser.add_argument("--memory", default=None)
    args = parser.parse_args()
    print(json.dumps(probe(args.side, args.width, args.n, args.memory)))
