"""What every benchmark measures on: a tanh network 2-w-w-w-1 and uniform points (t, x) in the unit square."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

SIZES = ((500, 300), (256, 1024), (128, 4096), (50, 300))  # (width, points)
STEP_ROWS = {"u": 300, "ut": 100, "r": 300}
LOSS_WEIGHTS = {"u": 6.4, "ut": 2.8, "r": 2.1}  # near the λ of the network before its first step
SPEED = 2.0  # c of u_tt − c² u_xx
THREADS = 2

Device = torch.device | str


def network(
    width: int,
    hidden: int = 3,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    inputs: int = 2,
    device: Device = "cpu",
) -> nn.Sequential:
    """A plain ``nn.Sequential`` with Glorot normal weights and small biases, so that no term is zero by chance.

    Drawn on the CPU: the same numbers on every device.
    """
    generator = torch.Generator().manual_seed(seed)
    sizes = [inputs, *[width] * hidden, 1]
    layers: list[nn.Module] = []
    for fan_in, fan_out in zip(sizes[:-1], sizes[1:], strict=True):
        linear = nn.Linear(fan_in, fan_out, dtype=torch.float64)
        with torch.no_grad():
            linear.weight.normal_(0.0, (2.0 / (fan_in + fan_out)) ** 0.5, generator=generator)
            linear.bias.normal_(0.0, 0.1, generator=generator)
        layers += [linear, nn.Tanh()]
    return nn.Sequential(*layers[:-1]).to(device, dtype)


def points(
    n: int, dtype: torch.dtype = torch.float32, seed: int = 1, columns: int = 2, device: Device = "cpu"
) -> Tensor:
    """Uniform points of the unit cube, (n, columns), the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, columns, dtype=torch.float64, generator=generator).to(device, dtype)


def step_points(
    dtype: torch.dtype = torch.float32, rows: Mapping[str, int] = STEP_ROWS, device: Device = "cpu"
) -> dict[str, Tensor]:
    """The points of a training step: 300 of values, 100 of velocities, 300 of the interior, unless told otherwise."""
    return {name: points(n, dtype, seed, device=device) for seed, (name, n) in enumerate(rows.items(), start=2)}


def linears(net: nn.Sequential) -> list[nn.Linear]:
    """The linear layers of a network, in order."""
    return [layer for layer in net if isinstance(layer, nn.Linear)]


def product_flops(net: nn.Sequential, n: int, channels: int = 4) -> int:
    """The dense products of a trace, forward and backward: 4·C·N·Σ n_in·n_out floating point operations."""
    return 4 * channels * n * sum(layer.weight.numel() for layer in linears(net))
