"""The Gram matrix of the wave residual against torch.func and the structured formula without fusion."""

import measure
import ours
import pytest
import results
import setting
from baselines import torch_func, unfused, unfused_kernels

SIZES = ((500, 300), (100, 300), (50, 300))


def unfused_gram(net, x):
    """The unfused rival, by blocks of channel pairs or by stacked channels, whichever is faster."""
    sweep = unfused.Unfused(net, {"r": (len(x), unfused.WAVE)})
    ways = {
        "channel pairs": lambda: unfused_kernels.gram(sweep, {"r": x}),
        "stacked channels": lambda: unfused_kernels.gram_stacked(sweep, {"r": x}),
    }
    best = measure.fastest(ways)
    return best, ways[best]


def torch_func_gram(net, x):
    """The torch.func rival: one GEMM or one einsum per parameter, the whole Jacobian or chunks of it."""
    ways = torch_func.candidates(torch_func.gram, net, x)
    ways |= {
        f"{mode}, einsum": lambda mode=mode: torch_func.gram_einsum(net, x, mode=mode) for mode in torch_func.MODES
    }
    best = measure.fastest(ways)
    return best, ways[best]


def compare(width: int, n: int) -> dict:
    """All sides at one size, verified and timed."""
    net, x = setting.network(width), setting.points(n)
    expected = unfused_gram(setting.network(width).double(), x.double())[1]()
    pairs, plain = unfused_gram(net, x)
    mode, func = torch_func_gram(net, x)
    sides = {"ntkfast": lambda: ours.gram(net, x), "unfused": plain, "torch.func": func}
    errors = measure.verified(
        {k: side() for k, side in sides.items()}, expected, {**dict.fromkeys(sides, 1e-4), "ntkfast": 1e-5}
    )
    variants = {"torch.func": mode, "unfused": pairs}
    return measure.comparison({"width": width, "n": n}, measure.in_turn(sides), errors=errors, variants=variants)


@pytest.mark.parametrize(("width", "n"), SIZES)
def test_gram(benchmark, width, n):
    record = compare(width, n)
    results.record("gram", f"{width}x{n}", record)
    benchmark.extra_info.update(record)
    net, x = setting.network(width), setting.points(n)
    benchmark.pedantic(ours.gram, (net, x), rounds=measure.FAST_REPEATS, warmup_rounds=2)
