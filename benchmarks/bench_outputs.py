"""The Gram matrix of all outputs of a classifier, whole and summed over outputs, against torch.func and no fusion."""

import measure
import ours
import pytest
import results
import setting
import torch
from baselines import outputs
from torch import Tensor, nn

WIDTHS = (784, 512, 512, 10)
SIZES = ((100, False), (100, True))  # points, and whether the kernel is summed over outputs


def classifier(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    """A relu network with He's weights, from the pixels of a digit to ten classes."""
    generator = torch.Generator().manual_seed(0)
    layers: list[nn.Module] = []
    for n_in, n_out in zip(WIDTHS[:-1], WIDTHS[1:], strict=True):
        linear = nn.Linear(n_in, n_out, dtype=torch.float64)
        with torch.no_grad():
            linear.weight.normal_(0.0, (2.0 / n_in) ** 0.5, generator=generator)
            linear.bias.normal_(0.0, 0.1, generator=generator)
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1]).to(dtype)


def images(n: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Uniform pixels, (n, 784)."""
    return setting.points(n, dtype, columns=WIDTHS[0])


def compare(n: int, summed: bool) -> dict:
    """All sides at one size, verified and timed."""
    net, x = classifier(), images(n)
    sides = {
        "ntkfast": lambda: ours.gram_of_outputs(net, x, summed),
        "unfused": lambda: outputs.unfused(net, x, summed),
        "torch.func": lambda: outputs.by_jacobian(net, x, summed),
    }
    expected = outputs.unfused(net.double(), x.double(), summed)
    net.float()
    bounds = {"ntkfast": 1e-5, "unfused": 1e-4, "torch.func": 1e-4}
    errors = measure.verified({k: side() for k, side in sides.items()}, expected, bounds)
    size = {"network": "-".join(map(str, WIDTHS)), "n": n, "summed": summed}
    return measure.comparison(size, measure.in_turn(sides), errors=errors)


@pytest.mark.parametrize(("n", "summed"), SIZES)
def test_gram_of_outputs(benchmark, n, summed):
    record = compare(n, summed)
    results.record("outputs", f"{n} {'summed' if summed else 'all'}", record)
    benchmark.extra_info.update(record)
    net, x = classifier(), images(n)
    benchmark.pedantic(ours.gram_of_outputs, (net, x, summed), rounds=measure.FAST_REPEATS, warmup_rounds=2)
