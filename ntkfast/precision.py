"""A network and its groups of points in another precision; the caller's own stay as they are."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .chain import chain_of
from .residual import check_points
from .sweep import Group


def cast_network(net: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Return a copy of a native network in a dtype; the network itself if it has that already.

    Raises:
        ValueError: a network that is not native.
        TypeError: no network, or another dtype than float32 and float64.
    """
    if dtype not in (torch.float32, torch.float64):
        raise TypeError(f"expected dtype torch.float32 or torch.float64, got {dtype}")
    return net if chain_of(net).dtype is dtype else copy.deepcopy(net).to(dtype)


def cast_groups(groups: Mapping[str, Group], dtype: torch.dtype) -> dict[str, Group]:
    """Return groups with points in a dtype, and their further columns with them.

    Raises:
        TypeError: points that are no tensor, or neither float32 nor float64.
        ValueError: points of a wrong shape.
    """
    found = {}
    for name, (points, residual) in groups.items():
        check_points(residual, getattr(points, "xy", points), finite=False)
        found[name] = (points.detach() if isinstance(points, Tensor) else points).to(dtype=dtype), residual
    return found
