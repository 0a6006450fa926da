"""What the trainer and its ``fit`` take, checked before anything is drawn or trained."""

from __future__ import annotations

import math
import numbers
import operator
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from ..chain import chain_of
from ..problems import Problem
from ..weights import NTKWeights
from .checkpoint import writable_folder
from .history import History
from .optimizers import adam, exponential_decay

Scheduler = LRScheduler | Callable[[torch.optim.Optimizer], LRScheduler]


def check_problem(problem: Problem, net: nn.Module, seed: int) -> None:
    """Refuse what is no problem, no native network, or a network whose input columns do not fit the problem.

    Raises:
        TypeError: ``problem`` is no Problem, ``net`` no module or ``seed`` no whole number.
        ValueError: a network that is not native, has nothing to train, or takes another number of columns.
    """
    if not isinstance(problem, Problem):
        raise TypeError(f"Trainer: expected an ntk.Problem first, got {_type_name(problem)}")
    if not isinstance(net, nn.Module):
        raise TypeError(f"Trainer: expected a network (torch.nn.Module) after the problem, got {_type_name(net)}")
    if not isinstance(seed, int):
        raise TypeError(f"Trainer: expected seed as a whole number, got {seed!r}")
    if not any(p.requires_grad for p in net.parameters()):
        raise ValueError("Trainer: expected a network with parameters that require grad, got none")
    columns, names = chain_of(net).in_features, problem.domain.names
    if columns != len(names):
        raise ValueError(f"Trainer: expected a network with an input column for each of {names}, got {columns} columns")


def points_by_condition(problem: Problem, batch: int | Mapping[str, int] | None) -> dict[str, int]:
    """Return the number of points that a step draws for each condition.

    Raises:
        TypeError: ``batch`` holds something else than whole numbers.
        ValueError: an unknown condition, or one that is left without points.
    """
    own = {name: condition.size for name, condition in problem.conditions.items()}
    if batch is None:
        return own
    for number in batch.values() if isinstance(batch, Mapping) else (batch,):
        if not isinstance(number, int) or isinstance(number, bool):
            raise TypeError(f"Trainer: expected batch as a whole number, or one by condition, got {number!r}")
    if isinstance(batch, Mapping):
        unknown = set(batch) - set(own)
        if unknown:
            raise ValueError(
                f"Trainer: expected a batch for conditions out of {tuple(own)}, got {sorted(unknown)[0]!r}"
            )
        sizes = {**own, **batch}
    else:
        sizes = {name: round(batch * n / max(own.values())) for name, n in own.items()}
    if min(sizes.values()) < 1:
        raise ValueError(f"Trainer: expected a batch that leaves every condition a point, got {sizes}")
    for name, n in sizes.items():
        if n > problem.conditions[name].most:
            raise ValueError(
                f"Trainer: expected at most {problem.conditions[name].most} of the fixed points of {name!r}, got {n}"
            )
    return sizes


def initial_weights(weights: NTKWeights | Mapping[str, float] | None, groups: tuple[str, ...]) -> Tensor:
    """Return the weights of the first iteration, (G,), float64.

    Raises:
        TypeError: neither NTKWeights nor a dict of numbers nor None.
        ValueError: other groups than the loss groups, or a number that is negative or not finite.
    """
    if weights is None or isinstance(weights, NTKWeights):
        unknown = set((weights and weights.points) or ()) - set(groups)
        if unknown:
            raise ValueError(f"Trainer: expected weights.points for groups out of {groups}, got {sorted(unknown)[0]!r}")
        return torch.ones(len(groups), dtype=torch.float64, device="cpu")
    if not isinstance(weights, Mapping):
        raise TypeError(
            f"Trainer: expected weights as NTKWeights, a dict of numbers or None, got {_type_name(weights)}"
        )
    if set(weights) != set(groups):
        raise ValueError(f"Trainer: expected fixed weights for exactly the loss groups {groups}, got {tuple(weights)}")
    for group, number in weights.items():
        if not (isinstance(number, numbers.Real) or (isinstance(number, Tensor) and number.ndim == 0)):
            raise TypeError(f"Trainer: expected a number as the weight of group {group!r}, got {_type_name(number)}")
        if not (math.isfinite(number) and number >= 0):
            raise ValueError(f"Trainer: expected a finite weight >= 0 for group {group!r}, got {float(number)}")
    return torch.tensor([float(weights[group]) for group in groups], dtype=torch.float64, device="cpu")


def optimizer_of(net: nn.Module, optimizer: torch.optim.Optimizer | None) -> torch.optim.Optimizer:
    """Return the given optimizer if it fits the network, or the default one.

    Raises:
        TypeError: no optimizer, or the class of one.
        ValueError: one that needs a closure, or that holds other parameters than the network's trainable ones.
    """
    if optimizer is None:
        return adam(net)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(
            "Trainer: expected optimizer as an object, such as torch.optim.Adam(net.parameters()), "
            f"got {_type_name(optimizer)}"
        )
    if isinstance(optimizer, torch.optim.LBFGS):
        raise ValueError("Trainer: expected an optimizer that steps without a closure, got LBFGS, which needs one")
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    own = {id(p) for p in net.parameters()}
    if held - own:
        raise ValueError(
            f"Trainer: expected an optimizer of this network's parameters, got one with {len(held - own)} others"
        )
    left_out = [name for name, p in net.named_parameters() if p.requires_grad and id(p) not in held]
    if left_out:
        raise ValueError(
            f"Trainer: expected an optimizer of all parameters that require grad, got one without {left_out[0]!r}"
        )
    return optimizer


def scheduler_of(
    optimizer: torch.optim.Optimizer, scheduler: Scheduler | None, default_optimizer: bool
) -> LRScheduler | None:
    """Return the scheduler of the learning rate: bound as given, made from a function, or the default optimizer's.

    Raises:
        TypeError: neither a scheduler nor a function that makes one.
        ValueError: a scheduler of another optimizer, or one that needs a metric.
    """
    if scheduler is None:
        return exponential_decay(optimizer) if default_optimizer else None
    if not (isinstance(scheduler, LRScheduler) or callable(scheduler)):
        raise TypeError(f"Trainer: expected scheduler as a torch scheduler or a function, got {_type_name(scheduler)}")
    bound = scheduler if isinstance(scheduler, LRScheduler) else scheduler(optimizer)
    if isinstance(bound, ReduceLROnPlateau):
        raise ValueError("Trainer: expected a scheduler that steps without a metric, got ReduceLROnPlateau")
    if not isinstance(bound, LRScheduler):
        raise TypeError(
            f"Trainer: expected a function that makes a torch scheduler, got one that makes {_type_name(bound)}"
        )
    if getattr(bound, "optimizer", optimizer) is not optimizer:
        raise ValueError("Trainer: expected a scheduler of the trainer's optimizer, got one of another optimizer")
    return bound


def check_fit(
    iterations: int, record_every: int, error_every: int, checkpoint_seconds: float, capture: bool | None
) -> None:
    """Refuse numbers that are none, negative ones, and intervals of zero.

    Raises:
        TypeError: no whole number, for the seconds no number, or for the capture none of True, False and None.
        ValueError: out of range.
    """
    for name, number, least in (
        ("iterations", iterations, 0),
        ("record_every", record_every, 1),
        ("error_every", error_every, 1),
    ):
        if not _is_whole(number):
            raise TypeError(f"fit: expected {name} as a whole number, got {number!r}")
        if number < least:
            raise ValueError(f"fit: expected {name} >= {least}, got {number}")
    if not isinstance(checkpoint_seconds, numbers.Real):
        raise TypeError(f"fit: expected checkpoint_seconds as a number, got {_type_name(checkpoint_seconds)}")
    if not checkpoint_seconds >= 0:  # NaN is not
        raise ValueError(f"fit: expected checkpoint_seconds >= 0, got {checkpoint_seconds}")
    if not (capture is None or isinstance(capture, bool)):
        raise TypeError(f"fit: expected capture as True, False or None, got {capture!r}")


def iterations_of(spectra: Iterable[int]) -> frozenset[int]:
    """Return the iterations at which eigenvalues are recorded.

    Raises:
        TypeError: no collection of whole numbers.
    """
    if not isinstance(spectra, Iterable) or isinstance(spectra, str):
        raise TypeError(f"fit: expected spectra as a sequence of iterations, got {_type_name(spectra)}")
    found = list(spectra)
    for number in found:
        if not _is_whole(number):
            raise TypeError(f"fit: expected whole numbers in spectra, got {number!r}")
    return frozenset(map(operator.index, found))


def hooks_of(callbacks: Iterable[Callable[..., Any]]) -> list[Callable[..., Any]]:
    """Return the callbacks as a list.

    Raises:
        TypeError: no collection of functions.
    """
    if not isinstance(callbacks, Iterable):
        raise TypeError(
            f"fit: expected callbacks as a sequence of functions of the trainer, got {_type_name(callbacks)}"
        )
    hooks = list(callbacks)
    for hook in hooks:
        if not callable(hook):
            raise TypeError(f"fit: expected functions of the trainer in callbacks, got {_type_name(hook)}")
    return hooks


def folder_of(out: str | Path, history: History, iteration: int) -> Path:
    """Return the folder of a run, made if need be, after a look that no other run has its history there.

    Raises:
        TypeError: no path.
        ValueError: a folder that cannot be written, or that holds the history of another run.
    """
    if not isinstance(out, str | os.PathLike):
        raise TypeError(f"fit: expected out as the path of a folder, got {_type_name(out)}")
    folder = writable_folder(out)
    if not history.continues(folder, iteration):
        raise ValueError(f"fit: expected a folder without the history of another run, got {str(folder)!r}")
    return folder


def _is_whole(number: object) -> bool:
    return isinstance(number, numbers.Integral) and not isinstance(number, bool)


def _type_name(thing: object) -> str:
    return f"the class {thing.__name__}" if isinstance(thing, type) else type(thing).__name__
