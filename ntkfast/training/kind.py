"""What a run is made from, as plain data in its checkpoint: only a trainer of the same kind goes on from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from ..problems import Problem


def structure(net: nn.Module) -> dict[str, str]:
    """Return every module by name: a layer as it prints itself, a container as its class."""
    return {
        name: type(module).__name__ if next(module.children(), None) is not None else repr(module)
        for name, module in net.named_modules()
    }


def check_network(net: nn.Module, saved: Mapping[str, Tensor], layers: Mapping[str, str], trained: list[str]) -> None:
    """Refuse a network that is not of the kind that was saved.

    Args:
        net: the network.
        saved: its parameters and buffers then.
        layers: its :func:`structure` then.
        trained: the names of the parameters that required grad.

    Raises:
        ValueError: other shapes, types, layers or trained parameters; the sentence names the first one.
    """
    own = {name: (tuple(t.shape), t.dtype) for name, t in net.state_dict().items()}
    then = {name: (tuple(t.shape), t.dtype) for name, t in saved.items()}
    for name in {**then, **own}:
        if own.get(name) != then.get(name):
            raise ValueError(
                f"Trainer.resume: expected {name} with (shape, dtype) {then.get(name)}, got {own.get(name)}"
            )
    now = structure(net)
    for name in {**layers, **now}:
        if now.get(name) != layers.get(name):
            which = f"layer {name!r}" if name else "the network"
            raise ValueError(f"Trainer.resume: expected {which} as {layers.get(name)}, got {now.get(name)}")
    trained_now = [name for name, p in net.named_parameters() if p.requires_grad]
    if trained_now != trained:
        raise ValueError(f"Trainer.resume: expected {trained} to require grad and nothing else, got {trained_now}")


def problem_kind(problem: Problem, groups: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    """Return the coordinates and, by condition, the loss group of each component."""
    return {"coordinates": list(problem.domain.names), "groups": {name: list(found) for name, found in groups.items()}}


def check_problem_kind(now: Mapping[str, Any], then: Mapping[str, Any]) -> None:
    """Refuse a problem with other coordinates, conditions, components or groups.

    Raises:
        ValueError: it names what differs.
    """
    for what in ("coordinates", "groups"):
        if now[what] != then[what] or list(now[what]) != list(then[what]):
            raise ValueError(f"Trainer.resume: expected a problem with the {what} {then[what]}, got {now[what]}")


def check_class(what: str, thing: torch.optim.Optimizer | LRScheduler | None, then: str | None) -> None:
    """Refuse an optimizer or scheduler of another class than then, one too many and one too few.

    Raises:
        ValueError: it names both classes.
    """
    now = None if thing is None else type(thing).__name__
    if now != then:
        raise ValueError(f"Trainer.resume: expected {what} of the kind that the run had, {then}, got {now}")
