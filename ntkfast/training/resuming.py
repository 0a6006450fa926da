"""What a run is made from, as plain data in its checkpoint: only a trainer of the same kind goes on from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from ..problems import Problem
from .arguments import check_problem

FORMAT = "ntkfast.Trainer 1"
PARTS = (  # of a checkpoint, beside its format
    *("iteration", "seconds", "seed", "batch", "problem", "layers", "trained", "net", "lam", "generator", "history"),
    *("optimizer", "optimizer_kind", "default_optimizer", "scheduler", "scheduler_kind", "weights", "weights_state"),
)


def structure(net: nn.Module) -> dict[str, str]:
    """Return every module by name: a layer as it prints itself, a container as its class."""
    return {
        name: type(module).__name__ if next(module.children(), None) is not None else repr(module)
        for name, module in net.named_modules()
    }


def check_checkpoint(
    state: Any, path: str | Path, problem: Problem, net: nn.Module, optimizer: torch.optim.Optimizer | None
) -> None:
    """Refuse what is no checkpoint of a trainer, and what can be seen not to fit before a trainer is made.

    Raises:
        ValueError: another file or one that lacks a part, another network or other conditions, or no optimizer where
            the run was given one.
    """
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise ValueError(f"Trainer.resume: expected a checkpoint of Trainer.save, got the file {str(path)!r}")
    missing = [part for part in PARTS if part not in state]
    if missing:
        raise ValueError(f"Trainer.resume: expected a whole checkpoint, got {str(path)!r} without {', '.join(missing)}")
    check_problem(problem, net, state["seed"])
    check_network(net, state["net"], state["layers"], state["trained"])
    if set(state["batch"]) != set(problem.conditions):
        raise ValueError(
            f"Trainer.resume: expected a problem with the conditions {tuple(state['batch'])}, "
            f"got {tuple(problem.conditions)}"
        )
    if optimizer is None and not state["default_optimizer"]:
        raise ValueError("Trainer.resume: expected an optimizer of the kind that the run was given, got None")


@contextmanager
def unchanged_if_refused(optimizer: object) -> Iterator[None]:
    """Put an optimizer back as it was where the block raises: a scheduler writes into it as soon as it is made."""
    if not isinstance(optimizer, torch.optim.Optimizer):
        yield
        return
    own, groups = dict(vars(optimizer)), [(group, dict(group)) for group in optimizer.param_groups]
    rates = [(x, x.clone()) for _, entries in groups for x in entries.values() if isinstance(x, Tensor)]
    try:
        yield
    except BaseException:
        vars(optimizer).clear()
        vars(optimizer).update(own)
        for group, entries in groups:
            group.clear()
            group.update(entries)
        for tensor, before in rates:
            tensor.copy_(before)
        raise


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


def origin_of(
    problem: Problem,
    groups: Mapping[str, tuple[str, ...]],
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: LRScheduler | None,
) -> dict[str, Any]:
    """Return what a run is made from.

    Args:
        problem: its coordinates count, and the points n of each condition.
        groups: by condition, the loss group of each component.
        net: its layers count, and which parameters require grad.
        optimizer: its class counts.
        scheduler: likewise.
    """
    return {
        "problem": {
            "coordinates": list(problem.domain.names),
            "groups": {name: list(found) for name, found in groups.items()},
            "points": {name: condition.size for name, condition in problem.conditions.items()},
        },
        "layers": structure(net),
        "trained": [name for name, p in net.named_parameters() if p.requires_grad],
        "optimizer_kind": type(optimizer).__name__,
        "scheduler_kind": None if scheduler is None else type(scheduler).__name__,
    }


def check_origin(now: Mapping[str, Any], then: Mapping[str, Any]) -> None:
    """Refuse a problem with other coordinates, components, groups or points, another optimizer or scheduler.

    Raises:
        ValueError: it names what differs.
    """
    for what in ("coordinates", "groups", "points"):
        ours = now["problem"][what]
        theirs = then["problem"].get(what, ours)  # older checkpoints do not tell the points
        if ours != theirs or list(ours) != list(theirs):
            raise ValueError(f"Trainer.resume: expected a problem with the {what} {theirs}, got {ours}")
    for what, key in (("an optimizer", "optimizer_kind"), ("a scheduler", "scheduler_kind")):
        if now[key] != then[key]:
            raise ValueError(
                f"Trainer.resume: expected {what} of the kind that the run had, {then[key]}, got {now[key]}"
            )


def load_scheduler(scheduler: LRScheduler, state: dict[str, Any]) -> None:
    """Let a scheduler take over the state of the run's.

    Raises:
        ValueError: it cannot: one that is made of others can be of the same class and have other parts.
    """
    try:
        scheduler.load_state_dict(state)
    except Exception as error:  # what torch raises depends on where the parts differ
        raise ValueError(
            f"Trainer.resume: expected a {type(scheduler).__name__} of the parts that the run's had, got one that "
            f"cannot take its state: {error!r}"
        ) from error
