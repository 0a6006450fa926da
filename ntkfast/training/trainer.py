"""The trainer: one packed sweep per iteration gives rows, gradient and traces; no autograd graph is built."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from ..factors import Factors
from ..problems import Problem
from ..snapshot import Workspace
from ..weights import NTKWeights
from .callbacks import Callback, Checkpoints, Progress, shows_progress
from .checkpoint import load_state, save_state, writable_folder
from .history import History
from .optimizers import adam, exponential_decay
from .step import Batch, Layout, sweep

CHECKPOINT = "checkpoint.pt"
Scheduler = LRScheduler | Callable[[torch.optim.Optimizer], LRScheduler]


class Trainer:
    """Train a network on a problem, in place, with loss weights from its neural tangent kernel.

    One iteration, with rows r_i of loss group g(i), drawn anew every time:

        loss = Σ_g λ_g Σ_{conditions} mean(r²),        ∇ = Jᵀ x,  x_i = 2 λ_g(i) r_i / n_i,

    and every ``weights.every`` iterations, from the same sweep, λ_g = Σ_h T_h / T_g with T_g = tr K_g over its rows.
    New weights count from the next iteration on; until the first ones λ = 1.

    Args:
        problem: what to solve.
        net: the network; it is trained in place.
        weights: ``ntk.NTKWeights(...)``; or fixed weights, a number for every loss group; None is 1 for all of them.
        optimizer: a torch optimizer bound to the network's parameters; None is Adam, 1e-3, decay 0.9 per 1000 steps.
        scheduler: of the learning rate: bound, or a function of the optimizer; None is none for a given optimizer.
        seed: of the points, and of nothing else.
        batch: points of the largest condition, the others in proportion; or points by condition; None: each one's n.

    Raises:
        ValueError: if weights name other than the loss groups, or ``batch`` leaves a condition without points.
        TypeError: if ``weights`` is neither of the three.

    Cost: a sweep of all N rows and one Jᵀx; traces add a few percent in the iterations that need them.

    Reference: Wang, Yu, Perdikaris, When and why PINNs fail to train: a neural tangent kernel perspective (2022),
    algorithm 1. Here λ comes from the sweep of the step; the paper takes it after the step, and u_t on fresh points.

    Example:
        >>> import ntkfast as ntk
        >>> problem = ntk.problems.Wave1D()
        >>> net = ntk.MLP([2, 16, 16, 1], standardize=problem.domain)
        >>> trainer = ntk.Trainer(problem, net, weights=ntk.NTKWeights(every=10))
        >>> history = trainer.fit(20)
        >>> sorted(history.loss)
        ['r', 'u', 'ut']
    """

    def __init__(
        self,
        problem: Problem,
        net: nn.Module,
        weights: NTKWeights | Mapping[str, float] | None = None,
        optimizer: torch.optim.Optimizer | None = None,
        scheduler: Scheduler | None = None,
        seed: int = 0,
        batch: int | Mapping[str, int] | None = None,
    ) -> None:
        self.problem, self.net, self.seed = problem, net, seed
        self.iteration = 0
        self.history = History()
        self._parameters = {name: p for name, p in net.named_parameters() if p.requires_grad}
        if not self._parameters:
            raise ValueError("Trainer: expected a network with parameters that require grad, got none")
        self._generator = torch.Generator(next(iter(self._parameters.values())).device).manual_seed(seed)
        self._layout = Layout(problem, _sizes(problem, batch), net, self._generator)
        self.weights = weights if isinstance(weights, NTKWeights) else None
        self._set_weights(_initial_weights(weights, self._layout.groups))
        self._default_optimizer = optimizer is None
        self.optimizer = adam(net) if optimizer is None else optimizer
        if scheduler is None and optimizer is None:
            scheduler = exponential_decay
        self.scheduler = (
            scheduler if scheduler is None or isinstance(scheduler, LRScheduler) else scheduler(self.optimizer)
        )
        # Buffers of every step: the sweep's, and the gradients that it is pulled back into.
        self._workspace = Workspace()
        plain = torch.contiguous_format
        self._gradients = {name: torch.empty_like(p, memory_format=plain) for name, p in self._parameters.items()}
        self._seconds = 0.0

    @property
    def loss_weights(self) -> dict[str, float]:
        """The weights λ that the next iteration uses, by loss group."""
        return dict(zip(self._layout.groups, self._lam.tolist(), strict=True))

    def _set_weights(self, lam: Tensor) -> None:
        self._lam = lam
        self._pull = self._layout.pull(lam)

    def fit(
        self,
        iterations: int,
        *,
        out: str | Path | None = None,
        record_every: int = 100,
        error_every: int = 1000,
        spectra: Sequence[int] = (),
        checkpoint_seconds: float = 300.0,
        progress: bool | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> History:
        """Train for that many more iterations.

        Args:
            iterations: how many more, at least 0.
            out: folder that ``history.jsonl`` is streamed to and ``checkpoint.pt`` saved in, during and after the run.
            record_every: iterations between two records of losses, weights and traces.
            error_every: iterations between two evaluations of the error on a grid, where an exact solution is known.
            spectra: iterations at which the eigenvalues of every group's kernel are recorded.
            checkpoint_seconds: time between two checkpoints.
            progress: show a progress bar; None shows it on a terminal.
            callbacks: functions of the trainer, called after every iteration.

        Returns:
            The history of all iterations so far; ``trainer.history`` is the same object.

        Raises:
            ValueError: if ``iterations`` is negative, an interval is not positive, or ``out`` cannot be written.
            FloatingPointError: if a loss or a weight stops being finite; the history is kept.
        """
        _check_fit(iterations, record_every, error_every)
        hooks = list(callbacks)
        if out is not None:
            self.history.stream(writable_folder(out))
            hooks.append(Checkpoints(Path(out) / CHECKPOINT, checkpoint_seconds))
        bar = Progress(iterations) if shows_progress(progress) else None
        hooks += [bar] if bar else []
        due = {"record": record_every, "error": error_every}
        start = time.perf_counter() - self._seconds
        try:
            for _ in range(iterations):
                self._iterate(due, spectra)
                self._seconds = time.perf_counter() - start
                for hook in hooks:
                    hook(self)
            self._final_record(spectra)
            self._seconds = time.perf_counter() - start
            self.history.add(self.iteration, seconds=self._seconds)
            if out is not None:
                self.save(Path(out) / CHECKPOINT)
        finally:
            self.history.close()
            if bar:
                bar.close()
        return self.history

    def _iterate(self, due: Mapping[str, int], spectra: Sequence[int]) -> None:
        k = self.iteration
        batch = self._layout.draw(self._generator)
        f, rows = self._sweep(batch)
        losses = self._layout.losses(rows)
        recorded = k % due["record"] == 0
        if recorded or rows.device.type == "cpu":  # elsewhere a look at a number would stall the device
            self._check_finite("loss", losses)
        if k % due["error"] == 0 or k in spectra:
            self._record_slow(batch, error=k % due["error"] == 0, spectrum=k in spectra)
        f.vjp(self._pull * rows, out=self._gradients)
        for name, gradient in self._gradients.items():
            self._parameters[name].grad = gradient
        renewed = self.weights is not None and k % self.weights.every == 0
        traces = self._traces(f, renewed) if renewed or recorded else {}
        if self.weights is not None and renewed:
            self._renew_weights(self.weights, traces)
        if recorded:
            self._record_fast(losses, traces)
        self.optimizer.step()
        if self.scheduler is not None:
            self.scheduler.step()
        self.iteration += 1

    def _sweep(self, batch: Batch) -> tuple[Factors, Tensor]:
        with torch.no_grad():  # so that the rows come without a graph
            f = sweep(self.net, batch, self._workspace)
            return f, f.rows if batch.targets is None else f.rows - batch.targets

    def _traces(self, f: Factors, renewed: bool) -> dict[str, tuple[Tensor, int]]:
        """Trace and number of rows of every group: from the sweep, or where the weights say so on fresh points."""
        traces, rows = self._layout.traces(f), dict(self._layout.rows)
        if self.weights is not None and self.weights.points and renewed:
            other_traces, other_rows = self._layout.fresh_traces(self.net, self.weights.points, self._generator)
            traces.update(other_traces)
            rows.update(other_rows)
        return {group: (traces[group], rows[group]) for group in self._layout.groups}

    def _renew_weights(self, weights: NTKWeights, traces: Mapping[str, tuple[Tensor, int]]) -> None:
        lam = weights.update(
            {group: trace for group, (trace, _) in traces.items()}, rows={group: n for group, (_, n) in traces.items()}
        )
        self._set_weights(torch.stack([lam[group].to(torch.float64) for group in self._layout.groups]))
        if self._lam.device.type == "cpu":
            self._check_finite("weight", self._lam)

    def _check_finite(self, what: str, values: Tensor) -> None:
        if math.isfinite(values.sum().item()):
            return
        bad = {g: v for g, v in zip(self._layout.groups, values.tolist(), strict=True) if not math.isfinite(v)}
        named = ", ".join(f"{group!r} is {v}" for group, v in bad.items()) or "their sum overflows"
        raise FloatingPointError(
            f"training stopped at iteration {self.iteration}: the {what} of group {named} "
            f"(loss weights {self.loss_weights}); the history up to here is kept"
        )

    def _record_fast(self, losses: Tensor, traces: Mapping[str, tuple[Tensor, int]]) -> None:
        groups = self._layout.groups
        self.history.add(
            self.iteration,
            loss=dict(zip(groups, losses.tolist(), strict=True)),
            weights=self.loss_weights,
            trace={group: trace.item() / n for group, (trace, n) in traces.items()},
            lr=float(self.optimizer.param_groups[0]["lr"]),
            seconds=self._seconds,
        )

    def _record_slow(self, batch: Batch, error: bool, spectrum: bool) -> None:
        if error and self.problem.exact is not None:
            self.history.add(self.iteration, error=self.problem.error(self.net))
        if spectrum:
            self.history.add(self.iteration, spectrum=self._layout.spectra(self.net, batch))

    def _final_record(self, spectra: Sequence[int]) -> None:
        """Record the parameters as they are, on the points that the next step would draw, and draw none."""
        state = self._generator.get_state()
        batch = self._layout.draw(self._generator)
        f, rows = self._sweep(batch)
        self._generator.set_state(state)
        losses = self._layout.losses(rows)
        self._check_finite("loss", losses)
        own = {group: (trace, self._layout.rows[group]) for group, trace in self._layout.traces(f).items()}
        self._record_fast(losses, own)
        self._record_slow(batch, error=True, spectrum=self.iteration in spectra)

    def save(self, path: str | Path) -> None:
        """Save what :meth:`resume` needs to go on bit for bit: parameters, optimizer, generator, weights, history.

        Args:
            path: a file; it is replaced atomically, and its folder made if it does not exist.

        Raises:
            ValueError: if the folder cannot be written.
        """
        save_state(
            path,
            {
                "iteration": self.iteration,
                "seconds": self._seconds,
                "seed": self.seed,
                "batch": self._layout.sizes,
                "net": self.net.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "default_optimizer": self._default_optimizer,
                "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
                "generator": self._generator.get_state(),
                "lam": self._lam,
                "weights": None if self.weights is None else _settings(self.weights),
                "weights_state": None if self.weights is None else self.weights.state_dict(),
                "history": self.history.state_dict(),
            },
        )

    @classmethod
    def resume(
        cls,
        path: str | Path,
        problem: Problem,
        net: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        scheduler: Scheduler | None = None,
    ) -> Trainer:
        """Make a trainer that goes on where a saved one stood; on the same machine, with the same bits.

        Args:
            path: what :meth:`save` wrote.
            problem: the same problem.
            net: a network of the same shape and dtype; its parameters are overwritten.
            optimizer: of the same kind as then, if it was not the default one; its state is overwritten.
            scheduler: likewise.

        Raises:
            ValueError: if there is no such file, or network, problem or optimizer are not of the kind that was saved.
        """
        state = load_state(path)
        _check_same_network(net, state["net"])
        if optimizer is None and not state["default_optimizer"]:
            raise ValueError("Trainer.resume: expected an optimizer of the kind that the run was given, got None")
        net.load_state_dict(state["net"])
        weights = None if state["weights"] is None else NTKWeights(**state["weights"])
        trainer = cls(problem, net, weights, optimizer, scheduler, state["seed"], state["batch"])
        if len(state["lam"]) != len(trainer._layout.groups):
            raise ValueError(
                f"Trainer.resume: expected a problem with {len(state['lam'])} loss groups, got {trainer._layout.groups}"
            )
        trainer.iteration, trainer._seconds = state["iteration"], state["seconds"]
        trainer.optimizer.load_state_dict(state["optimizer"])
        if trainer.scheduler is not None and state["scheduler"] is not None:
            trainer.scheduler.load_state_dict(state["scheduler"])
        trainer._generator.set_state(state["generator"])
        if weights is not None:
            weights.load_state_dict(state["weights_state"])
        trainer._set_weights(state["lam"].to(trainer._lam.device))
        trainer.history.load_state_dict(state["history"])
        return trainer


def _check_fit(iterations: int, record_every: int, error_every: int) -> None:
    if iterations < 0:
        raise ValueError(f"fit: expected iterations >= 0, got {iterations}")
    if record_every < 1 or error_every < 1:
        raise ValueError(f"fit: expected record_every and error_every >= 1, got {record_every} and {error_every}")


def _sizes(problem: Problem, batch: int | Mapping[str, int] | None) -> dict[str, int]:
    """Points per condition."""
    own = {name: condition.size for name, condition in problem.conditions.items()}
    if batch is None:
        return own
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
    return sizes


def _initial_weights(weights: NTKWeights | Mapping[str, float] | None, groups: tuple[str, ...]) -> Tensor:
    """The weights of the first iteration, (G,), float64."""
    if weights is None or isinstance(weights, NTKWeights):
        unknown = set((weights and weights.points) or ()) - set(groups)
        if unknown:
            raise ValueError(f"Trainer: expected weights.points for groups out of {groups}, got {sorted(unknown)[0]!r}")
        return torch.ones(len(groups), dtype=torch.float64)
    if not isinstance(weights, Mapping):
        raise TypeError(
            f"Trainer: expected weights as NTKWeights, a dict of numbers or None, got {type(weights).__name__}"
        )
    if set(weights) != set(groups):
        raise ValueError(f"Trainer: expected fixed weights for exactly the loss groups {groups}, got {tuple(weights)}")
    return torch.tensor([float(weights[group]) for group in groups], dtype=torch.float64)


def _settings(weights: NTKWeights) -> dict[str, Any]:
    """What an equal NTKWeights is made from."""
    return {"every": weights.every, "normalize": weights.normalize, "points": weights.points}


def _check_same_network(net: nn.Module, saved: Mapping[str, Tensor]) -> None:
    own = {name: (tuple(t.shape), t.dtype) for name, t in net.state_dict().items()}
    then = {name: (tuple(t.shape), t.dtype) for name, t in saved.items()}
    for name in {**then, **own}:
        if own.get(name) != then.get(name):
            raise ValueError(
                f"Trainer.resume: expected {name} with (shape, dtype) {then.get(name)}, got {own.get(name)}"
            )
