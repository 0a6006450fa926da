"""The Gram matrix of the wave residual on a GPU: against torch.func, which must hold the Jacobian, and plain torch."""

from __future__ import annotations

import exact
import floors
import measure
import ours
import pytest
import results
import setting
import torch
from bench_gram import TOLERANCE, torch_func_gram, unfused_gram
from setting import Device
from sides import Sides

pytestmark = pytest.mark.gpu

SIZES = ((500, 4096, "float32"), (128, 2048, "float32"), (128, 2048, "float64"), (500, 1024, "float64"))
MEGABYTES = (128, 1024, 8192)  # of a chunk of the Jacobian


def compare(
    width: int,
    n: int,
    dtype: str,
    device: Device,
    top: floors.Ceilings,
    megabytes: tuple[int, ...] = MEGABYTES,
    **timing: int,
) -> dict:
    """All sides at one size, verified and timed."""
    kind = getattr(torch, dtype)
    net, x = setting.network(width, dtype=kind, device=device), setting.points(n, kind, device=device)
    expected = exact.gram(net, x)
    own, others = TOLERANCE[dtype]

    def check(name: str, got) -> float:
        return measure.verified({name: got}, expected, own if name == "ntkfast" else others)[name]

    sides, variants = Sides(device, check), {}
    sides.add("ntkfast", lambda: ours.gram(net, x))
    variants["unfused"], plain = unfused_gram(net, x, device)
    sides.add("unfused", plain)
    variants["torch.func"], func = torch_func_gram(net, x, device, megabytes)
    sides.add("torch.func", func)
    record = sides.record({"width": width, "n": n, "dtype": dtype}, variants=variants, **timing)
    flops = ours.gram_flops(net, n) + setting.product_flops(net, n)
    moved = floors.bytes_of([*net.parameters(), x]) + n * n * kind.itemsize
    record["shares"] = {"ntkfast": floors.share(record["seconds"]["ntkfast"]["median"], flops, moved, dtype, top)}
    return record


@pytest.mark.parametrize(("width", "n", "dtype"), SIZES)
def test_gpu_gram(benchmark, gpu, width, n, dtype):
    record = benchmark.pedantic(compare, (width, n, dtype, gpu, floors.ceilings(gpu)), rounds=1)
    results.keep("gpu", "gram", f"{width}x{n} {dtype}", record, gpu)
    benchmark.extra_info.update(record)
