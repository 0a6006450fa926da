"""The trainer: one packed sweep per iteration gives rows, gradient and traces; no autograd graph is built."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..problems import Problem
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
from .capture import Captured, CudaGraph, capture_refusal, warn_of
from .checkpoint import load_state, save_state
from .history import History
from .iteration import Iteration, Kind, Outcome
from .kind import check_class, check_network, check_problem_kind, problem_kind, structure
from .step import Batch, Layout

CHECKPOINT = "checkpoint.pt"
FORMAT = "ntkfast.Trainer 1"


class Trainer:
    """Train a network on a problem, in place, with loss weights from its neural tangent kernel.

    One iteration, with rows r_i of loss group g(i), drawn anew every time:

        loss = Σ_g λ_g Σ_{conditions} mean(r²),        ∇ = Jᵀ x,  x_i = 2 λ_g(i) r_i / n_i,

    and every ``weights.every`` iterations, from the same sweep, λ_g = Σ_h T_h / T_g with T_g = tr K_g over its rows.
    New weights count from the next iteration on; until the first ones λ = 1. On a CUDA device iterations are captured
    as graphs (`fit(capture=)`), and nothing waits for the device between two records.

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
        generator = torch.Generator(next(p for p in net.parameters() if p.requires_grad).device).manual_seed(seed)
        self._layout = Layout(problem, points_by_condition(problem, batch), net, generator)
        lam = initial_weights(weights, self._layout.groups)
        self._default_optimizer = optimizer is None
        bound = optimizer_of(net, optimizer)
        self.scheduler = scheduler_of(bound, scheduler, default_optimizer=optimizer is None)
        rule = weights if isinstance(weights, NTKWeights) else None
        self._step = Iteration(net, self._layout, rule, lam, bound, generator)
        self._captured = self._capture_of(None)
        self._seconds = 0.0

    @property
    def weights(self) -> NTKWeights | None:
        """The rule of the loss weights; None where they are fixed."""
        return self._step.weights

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """What steps the parameters. Another one counts from the next iteration on; ``scheduler`` stays as it is."""
        return self._step.optimizer

    @optimizer.setter
    def optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        self._step.optimizer = optimizer_of(self.net, optimizer)
        self._default_optimizer = False

    @property
    def loss_weights(self) -> dict[str, float]:
        """The weights λ that the next iteration uses, by loss group."""
        return dict(zip(self._layout.groups, self._step.lam.tolist(), strict=True))

    @property
    def eager_because(self) -> str | None:
        """Why iterations run eagerly and not as a CUDA graph; None where they are captured."""
        return self._captured.refusal

    def _capture_of(self, wanted: bool | None) -> Captured:
        refusal = "capture=False" if wanted is False else capture_refusal(self._step, self.problem)
        if wanted and refusal:
            raise ValueError(f"fit: expected iterations that a CUDA graph can hold, got some it cannot: {refusal}")
        device = self._layout.device
        return Captured(self._step, refusal, lambda: CudaGraph(device, self._step.generator), strict=bool(wanted))

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
        capture: bool | None = None,
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
            capture: run iterations as CUDA graphs: None where that is possible (a warning says why if a GPU's cannot),
                True or else raise, False never. A graph repeats what residuals and targets did when it was captured.
                Graphs are captured anew where the optimizer, its settings or the place of a parameter change.

        Returns:
            The history of all iterations so far; ``trainer.history`` is the same object.

        Raises:
            ValueError: if ``iterations`` is negative, an interval is not positive, ``out`` cannot be written or holds
                the history of another run, or ``capture`` is True where no graph can hold an iteration.
            TypeError: if an argument is of another type.
            FloatingPointError: if a loss or a weight stops being finite; the history is kept. On a GPU losses are
                looked at when they are recorded, weights by way of them.
        """
        check_fit(iterations, record_every, error_every, checkpoint_seconds, capture)
        hooks, spectra = hooks_of(callbacks), iterations_of(spectra)
        self._captured = self._capture_of(capture)
        if self.eager_because and capture is None and self._layout.device.type == "cuda":
            warn_of(self.eager_because)
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
        recorded, error, spectrum = k % due["record"] == 0, k % due["error"] == 0, k in spectra
        renewed = self.weights is not None and k % self.weights.every == 0
        kind = Kind(traces=renewed or recorded, renews=renewed)
        found = None if error or spectrum else self._captured.replay(kind)
        if found is None:
            found = self._eager(kind, look=recorded, error=error, spectrum=spectrum)
        else:
            if recorded:
                self._check_finite("loss", found.losses)
            if renewed:
                self._keep_weights(found)
        if recorded:
            self._record_fast(found)
        if self.scheduler is not None:
            self.scheduler.step()
        self.iteration += 1

    def _eager(self, kind: Kind, look: bool, error: bool, spectrum: bool) -> Outcome:
        """One iteration in which the host looks at numbers before the parameters change."""
        batch, found = self._captured.gradient(kind)
        if look or found.losses.device.type == "cpu":  # elsewhere a look at a number would stall the device
            self._check_finite("loss", found.losses)
        self._record_slow(batch, error, spectrum)
        if kind.renews:
            self._step.renew(found)
            self._keep_weights(found)
        self._step.update()
        return found

    def _keep_weights(self, found: Outcome) -> None:
        """Give λ and the traces that it came from to the weights, as their state."""
        assert self.weights is not None and found.traces is not None
        groups, lam = self._layout.groups, self._step.lam
        self.weights.keep(
            dict(zip(groups, lam.unbind(), strict=True)), dict(zip(groups, found.traces.unbind(), strict=True))
        )
        if lam.device.type == "cpu":
            self._check_finite("weight", lam)

    def _check_finite(self, what: str, values: Tensor) -> None:
        if math.isfinite(values.sum().item()):
            return
        bad = {g: v for g, v in zip(self._layout.groups, values.tolist(), strict=True) if not math.isfinite(v)}
        named = ", ".join(f"{group!r} is {v}" for group, v in bad.items()) or "their sum overflows"
        raise FloatingPointError(
            f"training stopped at iteration {self.iteration}: the {what} of group {named} "
            f"(loss weights {self.loss_weights}); the history up to here is kept"
        )

    def _record_fast(self, found: Outcome) -> None:
        assert found.means is not None
        groups = self._layout.groups
        self.history.add(
            self.iteration,
            loss=dict(zip(groups, found.losses.tolist(), strict=True)),
            weights=self.loss_weights,
            trace=dict(zip(groups, found.means.tolist(), strict=True)),
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
        generator = self._step.generator
        state = generator.get_state()
        batch = self._step.draw()
        found = self._step.look(batch)
        generator.set_state(state)
        self._check_finite("loss", found.losses)
        self._record_fast(found)
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
            "trained": [name for name, p in self.net.named_parameters() if p.requires_grad],
            "optimizer": self.optimizer.state_dict(),
            "optimizer_kind": type(self.optimizer).__name__,
            "default_optimizer": self._default_optimizer,
            "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
            "scheduler_kind": None if self.scheduler is None else type(self.scheduler).__name__,
            "generator": self._step.generator.get_state(),
            "lam": self._step.lam,
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
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):  # torch leaves it where the checkpoint was loaded
                group["lr"] = group["lr"].to(self._layout.device)
        self.net.load_state_dict(state["net"])
        self.iteration, self._seconds = state["iteration"], state["seconds"]
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        self._step.generator.set_state(state["generator"])
        if self.weights is not None:
            self.weights.load_state_dict(state["weights_state"])
        self._step.set_weights(state["lam"])
        self.history.load_state_dict(state["history"])


def _settings(weights: NTKWeights) -> dict[str, Any]:
    """What an equal NTKWeights is made from."""
    return {"every": weights.every, "normalize": weights.normalize, "points": weights.points}
