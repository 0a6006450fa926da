"""The Gram matrix of the wave residual against torch.func and the structured formula without fusion."""

import measure
import ours
import pytest
import results
import setting
import torch
from baselines import torch_func, unfused, unfused_kernels
from setting import Device

SIZES = (
    (500, 300, "float32"),
    (256, 1024, "float32"),
    (128, 2048, "float32"),
    (64, 1600, "float64"),
    (100, 300, "float32"),
    (100, 300, "float64"),
    (50, 300, "float32"),
    (50, 300, "float64"),
)
TOLERANCE = {"float32": (1e-5, 1e-4), "float64": (1e-10, 1e-10)}  # ours, rivals'


def unfused_gram(net, x, device: Device = "cpu"):
    """The unfused rival, by blocks of channel pairs or by stacked channels, whichever is faster and fits."""
    sweep = unfused.Unfused(net, {"r": (len(x), unfused.WAVE)})
    ways = {
        "channel pairs": lambda: unfused_kernels.gram(sweep, {"r": x}),
        "stacked channels": lambda: unfused_kernels.gram_stacked(sweep, {"r": x}),
    }
    best = measure.fastest(ways, device)
    return best, ways[best]


def torch_func_gram(net, x, device: Device = "cpu", megabytes: tuple[int, ...] = torch_func.MEGABYTES):
    """The torch.func rival: one GEMM or one einsum per parameter, the whole Jacobian or chunks of it."""
    ways = torch_func.candidates(torch_func.gram, net, x, megabytes)
    ways |= {
        f"{mode}, einsum": lambda mode=mode: torch_func.gram_einsum(net, x, mode=mode) for mode in torch_func.MODES
    }
    best = measure.fastest(ways, device)
    return best, ways[best]


def compare(width: int, n: int, dtype: str) -> dict:
    """All sides at one size, verified and timed."""
    kind = getattr(torch, dtype)
    net, x = setting.network(width, dtype=kind), setting.points(n, kind)
    expected = unfused_gram(setting.network(width).double(), x.double())[1]() if kind == torch.float32 else None
    pairs, plain = unfused_gram(net, x)
    mode, func = torch_func_gram(net, x)
    sides = {"ntkfast": lambda: ours.gram(net, x), "unfused": plain, "torch.func": func}
    own, others = TOLERANCE[dtype]
    errors = measure.verified(
        {k: side() for k, side in sides.items()},
        func() if expected is None else expected,
        {**dict.fromkeys(sides, others), "ntkfast": own},
    )
    variants = {"torch.func": mode, "unfused": pairs}
    size = {"width": width, "n": n, "dtype": dtype}
    return measure.comparison(size, measure.in_turn(sides), errors=errors, variants=variants)


@pytest.mark.parametrize(("width", "n", "dtype"), SIZES)
def test_gram(benchmark, width, n, dtype):
    record = compare(width, n, dtype)
    results.record("gram", f"{width}x{n} {dtype}", record)
    benchmark.extra_info.update(record)
    kind = getattr(torch, dtype)
    net, x = setting.network(width, dtype=kind), setting.points(n, kind)
    benchmark.pedantic(ours.gram, (net, x), rounds=measure.FAST_REPEATS, warmup_rounds=2)
