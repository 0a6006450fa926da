"""The trainer: one packed sweep per iteration gives rows, gradient and traces; no autograd graph is built."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

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
from .capture import Captured, capture_refusal, warn_of
from .checkpoint import load_state, save_state
from .cuda_graph import CudaGraph
from .history import History
from .iteration import Iteration, Kind, Outcome
from .resuming import FORMAT, check_checkpoint, check_origin, load_scheduler, origin_of, unchanged_if_refused
from .step import Batch, StepRows
from .stopping import Interrupts, not_finite

CHECKPOINT = "checkpoint.pt"


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
        self._problem, self._seed = problem, seed
        self.iteration = 0
        self.history = History()
        generator = torch.Generator(next(p for p in net.parameters() if p.requires_grad).device).manual_seed(seed)
        self._layout = StepRows(problem, points_by_condition(problem, batch), net, generator)
        lam = initial_weights(weights, self._layout.groups)
        self._default_optimizer = optimizer is None
        bound = optimizer_of(net, optimizer)
        self._scheduler = scheduler_of(bound, scheduler, default_optimizer=optimizer is None)
        rule = weights if isinstance(weights, NTKWeights) else None
        self._step = Iteration(net, self._layout, rule, lam, bound, generator)
        self._captured = self._capture_of(None)
        self._seconds = 0.0

    @property
    def problem(self) -> Problem:
        """What is solved."""
        return self._problem

    @property
    def net(self) -> nn.Module:
        """The network that is trained."""
        return self._step.net

    @property
    def seed(self) -> int:
        """What the points are drawn from."""
        return self._seed

    @property
    def weights(self) -> NTKWeights | None:
        """The rule of the loss weights; None where they are fixed."""
        return self._step.weights

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """What steps the parameters. Another one counts from the next iteration on, with a ``scheduler`` of its own."""
        return self._step.optimizer

    @optimizer.setter
    def optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        if self.scheduler is not None and optimizer is not self.optimizer:
            raise ValueError(
                "Trainer: expected no scheduler of the old optimizer when another is assigned, got "
                f"{type(self.scheduler).__name__}: assign trainer.scheduler = None first, and its own one afterwards"
            )
        self._step.optimizer = optimizer_of(self.net, optimizer)
        self._default_optimizer = False

    @property
    def scheduler(self) -> LRScheduler | None:
        """What moves the learning rate after each iteration: a scheduler, a function that makes it, or None."""
        return self._scheduler

    @scheduler.setter
    def scheduler(self, scheduler: Scheduler | None) -> None:
        self._scheduler = scheduler_of(self.optimizer, scheduler, default_optimizer=False)
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
        device, step = self._layout.device, self._step
        # Without the trainer in it: a cycle would leave its graphs to Python's collector, whenever that runs.
        return Captured(step, refusal, lambda: CudaGraph(device, step.generator), strict=bool(wanted))

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
            out: folder that ``history.jsonl`` is streamed to and ``checkpoint.pt`` saved in, during and after the run
                and when Ctrl-C stops it; it may hold the history of this run, and of no other one.
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
            KeyboardInterrupt: if Ctrl-C stops it, at the end of the iteration; a second one at once, without a save.
        """
        check_fit(iterations, record_every, error_every, checkpoint_seconds, capture)
        hooks, spectra = hooks_of(callbacks), iterations_of(spectra)
        self._captured = self._capture_of(capture)
        if self.eager_because and capture is None and self._layout.device.type == "cuda":
            warn_of(self.eager_because)
        folder = None if out is None else folder_of(out, self.history, self.iteration)
        due = {"record": record_every, "error": error_every}
        with ExitStack() as opened:
            if folder is not None:
                hooks.append(Checkpoints(folder / CHECKPOINT, checkpoint_seconds))
                opened.callback(self.history.close)
                self.history.stream(folder)
            if shows_progress(progress):
                hooks.append(bar := Progress(iterations))
                opened.callback(bar.close)
            hooks.append(opened.enter_context(Interrupts(lambda: folder and self.save(folder / CHECKPOINT))))
            start = time.perf_counter() - self._seconds
            for _ in range(iterations):
                self._iterate(due, spectra)
                self._seconds = time.perf_counter() - start
                for hook in hooks:
                    hook(self)
            self._final_record(spectra)
            self._seconds = time.perf_counter() - start
            self.history.add(self.iteration, seconds=self._seconds)
            if folder is not None:
                self.save(folder / CHECKPOINT)
        return self.history

    def _iterate(self, due: Mapping[str, int], spectra: Collection[int]) -> None:
        k = self.iteration
        recorded, error, spectrum = k % due["record"] == 0, k % due["error"] == 0, k in spectra
        renewed = self.weights is not None and k % self.weights.every == 0
        kind = Kind(traces=renewed or recorded, renews=renewed)
        replayed = None if error or spectrum else self._captured.replay(kind)
        found = replayed or self._eager(kind, look=recorded, error=error, spectrum=spectrum)
        self.iteration += 1  # before anything else can raise: the parameters have moved
        try:
            if self.weights is not None:
                self.weights.count()
            if renewed:
                self._keep_weights(found)
            if recorded:
                self._check_finite(k, "loss", found.losses)
                self._record_fast(k, found)
        finally:  # a record that cannot be written leaves the learning rate of the next iteration as it should be
            if self.scheduler is not None:
                self.scheduler.step()

    def _eager(self, kind: Kind, look: bool, error: bool, spectrum: bool) -> Outcome:
        """One iteration in which the host looks at numbers before the parameters change."""
        with self._step.attempt():
            batch, found = self._captured.gradient(kind)
            on_host = found.losses.device.type == "cpu"  # elsewhere a look at a number would stall the device
            if look or on_host:
                self._check_finite(self.iteration, "loss", found.losses)
            self._record_slow(batch, error, spectrum)
            if kind.renews:
                self._step.renew(found)
                if on_host:
                    self._check_finite(self.iteration, "weight", self._step.lam)
            self._step.update()
        return found

    def _keep_weights(self, found: Outcome) -> None:
        """Give λ and the traces that it came from to the weights, as their state."""
        assert self.weights is not None and found.traces is not None
        by_group = [dict(zip(self._layout.groups, x.unbind(), strict=True)) for x in (self._step.lam, found.traces)]
        self.weights.keep(*by_group)

    def _check_finite(self, iteration: int, what: str, values: Tensor) -> None:
        if not math.isfinite(values.sum().item()):
            by_group = dict(zip(self._layout.groups, values.tolist(), strict=True))
            raise not_finite(iteration, what, by_group, self.loss_weights)

    def _record_fast(self, iteration: int, found: Outcome) -> None:
        assert found.means is not None
        groups = self._layout.groups
        self.history.add(
            iteration,
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
        try:
            batch = self._step.draw()
        finally:
            generator.set_state(state)
        found = self._step.look(batch)
        self._check_finite(self.iteration, "loss", found.losses)
        self._record_fast(self.iteration, found)
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
            **self._origin(),
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "default_optimizer": self._default_optimizer,
            "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
            "generator": self._step.generator.get_state(),
            "lam": self._step.lam,
            "weights": None if self.weights is None else self.weights.settings(),
            "weights_state": None if self.weights is None else self.weights.state_dict(),
            "history": self.history.state_dict(),
        }

    def _origin(self) -> dict[str, Any]:
        return origin_of(self.problem, self._layout.component_groups, self.net, self.optimizer, self.scheduler)

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
            problem: the same problem. Its coordinates, its conditions with their loss groups and its points n are
                compared; where points lie, residuals and targets are not. A step draws as many points as then.
            net: a network of the same layers and dtype; its parameters are overwritten.
            optimizer: of the same kind as then, if it was not the default one; its state is overwritten.
            scheduler: likewise, and None if the run had none of its own.

        Raises:
            ValueError: if there is no such file, or one that is no checkpoint, network, optimizer or scheduler are not
                of the kind that was saved, or the problem differs in what is compared; then nothing is changed.
            TypeError: if an argument is of another type; likewise.
        """
        state = load_state(path)
        check_checkpoint(state, path, problem, net, optimizer)
        weights = None if state["weights"] is None else NTKWeights(**state["weights"])
        with unchanged_if_refused(optimizer):
            trainer = cls(problem, net, weights, optimizer, scheduler, state["seed"], state["batch"])
            check_origin(trainer._origin(), state)
            trainer._take(state)
        return trainer

    def _take(self, state: Mapping[str, Any]) -> None:
        """Take over a checkpoint of a trainer of the same kind."""
        self.optimizer.load_state_dict(state["optimizer"])
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):  # torch leaves it where the checkpoint was loaded
                group["lr"] = group["lr"].to(self._layout.device)
        if self.scheduler is not None:
            load_scheduler(self.scheduler, state["scheduler"])
        if self.weights is not None:
            self.weights.load_state_dict(state["weights_state"])
        self.iteration, self._seconds = state["iteration"], state["seconds"]
        self._step.generator.set_state(state["generator"])
        self._step.set_weights(state["lam"])
        self.history.load_state_dict(state["history"])
        self.net.load_state_dict(state["net"])  # last, as nobody puts the network back: what comes before may refuse
