"""The trainer: one packed sweep per iteration gives rows, gradient and traces; no autograd graph is built."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..factors import Factors
from ..problems import Problem
from ..snapshot import Workspace
from ..weights import NTKWeights
from .arguments import (
    Scheduler,
    check_fit,
    check_problem,
    folder_of,
    hooks_of,
    initial_weights,
    iterations_of,
    optimizer_of,
    points_by_condition,
    scheduler_of,
)
from .callbacks import Callback, Checkpoints, Progress, shows_progress
from .checkpoint import load_state, save_state
from .history import History
from .kind import check_class, check_network, check_problem_kind, problem_kind, structure
from .step import Batch, Layout, sweep

CHECKPOINT = "checkpoint.pt"
FORMAT = "ntkfast.Trainer 1"


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
        optimizer: a torch optimizer bound to the network's parameters, one that steps without a closure; None is Adam,
            1e-3, decay 0.9 per 1000 steps.
        scheduler: of the learning rate: bound, or a function of the optimizer; None is none for a given optimizer.
        seed: of the points, and of nothing else.
        batch: points of the largest condition, the others in proportion; or points by condition; None: each one's n.

    Raises:
        ValueError: if weights name other than the loss groups or are negative, ``batch`` leaves a condition without
            points, the network's input columns are not the problem's coordinates, the optimizer or the scheduler is
            one of something else or needs more than ``step()``.
        TypeError: if an argument is of none of these types.

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
        check_problem(problem, net, seed)
        self.problem, self.net, self.seed = problem, net, seed
        self.iteration = 0
        self.history = History()
        self._parameters = {name: p for name, p in net.named_parameters() if p.requires_grad}
        self._generator = torch.Generator(next(iter(self._parameters.values())).device).manual_seed(seed)
        self._layout = Layout(problem, points_by_condition(problem, batch), net, self._generator)
        self.weights = weights if isinstance(weights, NTKWeights) else None
        self._set_weights(initial_weights(weights, self._layout.groups))
        self._default_optimizer = optimizer is None
        self.optimizer = optimizer_of(net, optimizer)
        self.scheduler = scheduler_of(self.optimizer, scheduler, default_optimizer=optimizer is None)
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
        spectra: Iterable[int] = (),
        checkpoint_seconds: float = 300.0,
        progress: bool | None = None,
        callbacks: Iterable[Callback] = (),
    ) -> History:
        """Train for that many more iterations.

        Args:
            iterations: how many more, at least 0.
            out: folder that ``history.jsonl`` is streamed to and ``checkpoint.pt`` saved in, during and after the run;
                it may hold the history of this run, and of no other one.
            record_every: iterations between two records of losses, weights and traces.
            error_every: iterations between two evaluations of the error on a grid, where an exact solution is known.
            spectra: iterations at which the eigenvalues of every group's kernel are recorded.
            checkpoint_seconds: time between two checkpoints.
            progress: show a progress bar; None shows it on a terminal.
            callbacks: functions of the trainer, called after every iteration.

        Returns:
            The history of all iterations so far; ``trainer.history`` is the same object.

        Raises:
            ValueError: if ``iterations`` is negative, an interval is not positive, or ``out`` cannot be written or
                holds the history of another run.
            TypeError: if an argument is of another type.
            FloatingPointError: if a loss or a weight stops being finite; the history is kept.
        """
        check_fit(iterations, record_every, error_every, checkpoint_seconds)
        hooks, spectra = hooks_of(callbacks), iterations_of(spectra)
        if out is not None:
            self.history.stream(folder_of(out, self.history, self.iteration))
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

    def _iterate(self, due: Mapping[str, int], spectra: Collection[int]) -> None:
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

    def _final_record(self, spectra: Collection[int]) -> None:
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
            ValueError: if the folder cannot be written, or ``path`` is a folder itself.
        """
        save_state(path, self._state())

    def _state(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "iteration": self.iteration,
            "seconds": self._seconds,
            "seed": self.seed,
            "batch": self._layout.sizes,
            "problem": problem_kind(self.problem, self._layout.component_groups),
            "net": self.net.state_dict(),
            "layers": structure(self.net),
            "trained": list(self._parameters),
            "optimizer": self.optimizer.state_dict(),
            "optimizer_kind": type(self.optimizer).__name__,
            "default_optimizer": self._default_optimizer,
            "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
            "scheduler_kind": None if self.scheduler is None else type(self.scheduler).__name__,
            "generator": self._generator.get_state(),
            "lam": self._lam,
            "weights": None if self.weights is None else _settings(self.weights),
            "weights_state": None if self.weights is None else self.weights.state_dict(),
            "history": self.history.state_dict(),
        }

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
            net: a network of the same layers and dtype; its parameters are overwritten.
            optimizer: of the same kind as then, if it was not the default one; its state is overwritten.
            scheduler: likewise, and None if the run had none of its own.

        Raises:
            ValueError: if there is no such file, or one that is no checkpoint, or network, problem, optimizer or
                scheduler are not of the kind that was saved; then nothing is overwritten.
        """
        state = load_state(path)
        if not isinstance(state, dict) or state.get("format") != FORMAT:
            raise ValueError(f"Trainer.resume: expected a checkpoint of Trainer.save, got the file {str(path)!r}")
        check_problem(problem, net, state["seed"])
        check_network(net, state["net"], state["layers"], state["trained"])
        if set(state["batch"]) != set(problem.conditions):
            raise ValueError(
                f"Trainer.resume: expected a problem with the conditions {tuple(state['batch'])}, "
                f"got {tuple(problem.conditions)}"
            )
        if optimizer is None and not state["default_optimizer"]:
            raise ValueError("Trainer.resume: expected an optimizer of the kind that the run was given, got None")
        weights = None if state["weights"] is None else NTKWeights(**state["weights"])
        trainer = cls(problem, net, weights, optimizer, scheduler, state["seed"], state["batch"])
        check_problem_kind(problem_kind(problem, trainer._layout.component_groups), state["problem"])
        check_class("an optimizer", trainer.optimizer, state["optimizer_kind"])
        check_class("a scheduler", trainer.scheduler, state["scheduler_kind"])
        trainer._take(state)
        return trainer

    def _take(self, state: Mapping[str, Any]) -> None:
        """Take over a checkpoint of a trainer of the same kind."""
        self.optimizer.load_state_dict(state["optimizer"])  # first, as it may refuse its parameter groups
        self.net.load_state_dict(state["net"])
        self.iteration, self._seconds = state["iteration"], state["seconds"]
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        self._generator.set_state(state["generator"])
        if self.weights is not None:
            self.weights.load_state_dict(state["weights_state"])
        self._set_weights(state["lam"].to(self._lam.device))
        self.history.load_state_dict(state["history"])


def _settings(weights: NTKWeights) -> dict[str, Any]:
    """What an equal NTKWeights is made from."""
    return {"every": weights.every, "normalize": weights.normalize, "points": weights.points}
