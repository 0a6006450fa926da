"""What the sides of a benchmark are held to: the unfused formulas in float64, which the tests hold to autograd."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import measure
import torch
from baselines import unfused, unfused_kernels
from setting import Device
from torch import Tensor, nn

SPECS = {"u": unfused.VALUE, "ut": unfused.VELOCITY, "r": unfused.WAVE}
CHECKED = 64  # points at which what a GPU gives in float64 is compared with the CPU


def sweep(net: nn.Module, points: Mapping[str, Tensor], keep: bool = True) -> unfused.Unfused:
    """The unfused sweep of some groups of the wave problem."""
    return unfused.Unfused(net, {name: (len(x), SPECS[name]) for name, x in points.items()}, keep)


def double(net: nn.Module, device: Device = "cpu") -> nn.Module:
    """The same network in float64."""
    return copy.deepcopy(net).to(device, torch.float64)


def traces(net: nn.Module, points: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """tr K of every group, on the CPU."""
    there = {name: x.to("cpu", torch.float64) for name, x in points.items()}
    return {name: d.sum() for name, d in unfused_kernels.diag(sweep(double(net), there, keep=False), there).items()}


def step(
    net: nn.Module, points: Mapping[str, Tensor], weights: dict[str, float]
) -> tuple[Tensor, list[Tensor], dict[str, Tensor]]:
    """Loss, gradient and traces of a training step, on the CPU."""
    there = {name: x.to("cpu", torch.float64) for name, x in points.items()}
    made = sweep(double(net), there)
    loss, gradient = unfused_kernels.step(made, there, weights)
    return loss, gradient, {name: d.sum() for name, d in unfused_kernels.diag_of(made).items()}


def gram(net: nn.Module, x: Tensor) -> Tensor:
    """K of the wave residual on the device of x; a part of it is compared with the CPU's first."""

    def on(device: Device, points: Tensor) -> Tensor:
        there = {"r": points.to(device, torch.float64)}
        return unfused_kernels.gram(sweep(double(net, device), there), there)

    K = on(x.device, x)
    part = K[:CHECKED, :CHECKED]
    measure.verified({"float64 on the device": part}, on("cpu", x[:CHECKED]), 1e-10)
    return K


def trace(net: nn.Module, x: Tensor, rows: int) -> Tensor:
    """tr K of the wave residual on the device of x, so many rows at a time; a part is compared with the CPU's first."""

    def on(device: Device, points: Tensor, rows: int) -> Tensor:
        made = unfused.Unfused(double(net, device), {"r": (rows, unfused.WAVE)}, keep=False)
        return unfused_kernels.trace(made, {"r": points.to(device, torch.float64)})

    few = x[:CHECKED]
    got = on(x.device, few, len(few))
    measure.verified({"float64 on the device": got}, on("cpu", few, len(few)), 1e-10)
    return on(x.device, x, rows)
