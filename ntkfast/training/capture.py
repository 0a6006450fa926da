"""The captured step: what an iteration does on a GPU, recorded once as a CUDA graph and replayed.

A small network's iteration is some hundred launches of a few microseconds each; a graph replays them as one. It holds
what the host did while it was captured and nothing that the host does later, so everything that changes from iteration
to iteration stands on the device in place: parameters, gradients, λ, the optimizer's state with its step count and
learning rate, the generator's state (iteration.py). Each kind of iteration is a graph of its own.

A kind runs eagerly at first, so that buffers and layouts are made, then once more while torch reports every wait for
the device as an error, and is captured where there was none.
"""

from __future__ import annotations

import os
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, final

import torch

from ..problems import Box, Problem, Union
from ..problems.points import Points
from .iteration import Iteration, Kind, Outcome
from .step import Batch

MOST_MOVES = 4  # a run begins with two: before its first iteration, and after the optimizer has made its state


class Graph(Protocol):
    """Work that was recorded once and can be done again."""

    def capture(self, work: Callable[[], Outcome]) -> Outcome:
        """Record the work without doing it; what it returns holds its results after each replay."""
        ...

    def replay(self) -> None:
        """Do it."""


def capture_refusal(iteration: Iteration, problem: Problem) -> str | None:
    """Say why iterations cannot be captured; None where they can, as far as one can know before they run."""
    if iteration.layout.device.type != "cuda":
        return f"the network is on {iteration.layout.device}"
    if os.environ.get("NTKFAST_SYNC") == "1":
        return "NTKFAST_SYNC=1 waits for every launch"
    return host_state(iteration.optimizer) or host_draws(problem)


def host_state(optimizer: torch.optim.Optimizer) -> str | None:
    """Say what an optimizer keeps on the host, where a graph would freeze it; None if nothing."""
    name = type(optimizer).__name__
    for group in optimizer.param_groups:
        devices = {p.device for p in group["params"]}
        if "capturable" not in group:
            return f"{name} has no form that can be captured"
        if not group["capturable"]:
            return f"{name} keeps its step count on the host: make it with capturable=True"
        if not isinstance(group["lr"], torch.Tensor):
            return f"{name} keeps its learning rate on the host: make it with lr=torch.tensor(…) on the device"
        for key, setting in group.items():
            for value in setting if isinstance(setting, tuple | list) else (setting,):
                if isinstance(value, torch.Tensor) and devices and value.device not in devices:
                    return f"{name} keeps its {key} on {value.device}: make it on the device of the parameters"
    return None


def host_draws(problem: Problem) -> str | None:
    """Name a condition whose points come from a function, which a graph could not call again; None if there is none."""
    for name, condition in problem.conditions.items():
        if not isinstance(condition.where, Box | Union | Points):
            return f"condition {name!r} draws its points by a function, which a graph cannot call"
    return None


@final
class Captured:
    """Iterations that become graphs where they can.

    Args:
        iteration: what to run.
        refusal: why nothing may be captured; None: try.
        graph: makes an empty graph.
        strict: raise instead of going on eagerly where a capture turns out to be impossible.
    """

    def __init__(
        self, iteration: Iteration, refusal: str | None, graph: Callable[[], Graph], strict: bool = False
    ) -> None:
        self.iteration, self.refusal = iteration, refusal
        self._new_graph, self._strict = graph, strict
        self._eager: Counter[Kind] = Counter()
        self._graphs: dict[Kind, tuple[Graph, Outcome]] = {}
        self._place: tuple[object, ...] = ()
        self._moves = 0  # iterations in a row before which the place had changed

    def gradient(self, kind: Kind) -> tuple[Batch, Outcome]:
        """Draw and find the gradient eagerly, the second time of a kind under a watch for waits.

        What follows, ``renew`` and ``update``, is the caller's: it may look at the numbers before.
        """
        self._eager[kind] += 1
        if self.refusal is None and self._eager[kind] == 2:
            state = self.iteration.generator.get_state()
            try:
                with no_waits():
                    return self._gradient(kind)
            except RuntimeError as error:
                if "synchronizing CUDA operation" not in str(error):
                    raise
                self.iteration.generator.set_state(state)
                self._refuse("an iteration waits for the device: " + _where(error))
        return self._gradient(kind)

    def _gradient(self, kind: Kind) -> tuple[Batch, Outcome]:
        batch = self.iteration.draw()
        return batch, self.iteration.gradient(batch, kind)

    def replay(self, kind: Kind) -> Outcome | None:
        """Run a whole iteration as a graph; None, and nothing done, where it has to run eagerly yet or for good."""
        if self.refusal is not None:
            return None
        place = _place_of(self.iteration)
        self._moves = self._moves + 1 if place != self._place else 0
        if self._moves:  # the graphs would go on with what was there before
            self._place = place
            self._graphs.clear()
            self._eager.clear()
            reason = host_state(self.iteration.optimizer)
            if self._moves > MOST_MOVES:
                reason = reason or "something that a graph would freeze changes from iteration to iteration"
            if reason:
                self._refuse(reason)
                return None
        if self._eager[kind] < 2 or (kind not in self._graphs and not self._capture(kind)):
            return None
        graph, found = self._graphs[kind]
        graph.replay()
        return found

    def _capture(self, kind: Kind) -> bool:
        state = self.iteration.generator.get_state()
        graph = self._new_graph()
        try:
            found = graph.capture(lambda: self.iteration.run(kind))
            self._graphs[kind] = graph, found
        except RuntimeError as error:
            # A generator is not usable after a capture that failed.
            self.iteration.generator = torch.Generator(self.iteration.generator.device)
            self.iteration.generator.set_state(state)
            self._refuse(f"torch could not capture an iteration: {error}")
            return False
        return True

    def _refuse(self, reason: str) -> None:
        if self._strict:
            raise ValueError(f"fit: expected iterations that a CUDA graph can hold, got some it cannot: {reason}")
        self.refusal = reason
        self._graphs.clear()
        warn_of(reason)


def warn_of(reason: str) -> None:
    """Say that iterations on a GPU run eagerly, and why."""
    warnings.warn(f"iterations run eagerly and not as a CUDA graph: {reason}", RuntimeWarning, stacklevel=2)


@contextmanager
def no_waits() -> Iterator[None]:
    """Make every operation of torch that waits for a CUDA device an error."""
    if not torch.cuda.is_initialized():
        yield
        return
    before = torch.cuda.get_sync_debug_mode()
    _set_debug_mode("error")
    try:
        yield
    finally:
        _set_debug_mode(before)


def _set_debug_mode(mode: int | str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that the mode misses some waits; the capture itself meets those
        torch.cuda.set_sync_debug_mode(mode)


def _where(error: BaseException) -> str:
    """The innermost line of Python that an error came from."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{frame.line or error} ({os.path.basename(frame.filename)}:{frame.lineno})"


def _place_of(iteration: Iteration) -> tuple[object, ...]:
    """What a graph keeps that the caller could change between two iterations: where tensors lie, and host settings."""
    optimizer, weights, parameters = iteration.optimizer, iteration.weights, iteration.parameters.values()
    return (
        id(optimizer),
        weights and weights.normalize,
        *((p.data_ptr(), p.requires_grad) for p in parameters),
        *(_settled(buffer) for buffers in iteration.buffers for buffer in buffers.values()),
        *(_settled(x) for state in optimizer.state.values() for x in state.values()),
        *(_settled(x) for group in optimizer.param_groups for x in group.values()),
    )


def _settled(x: object) -> object:
    """A tensor as where it lies, whose content may change; anything else as it is."""
    if isinstance(x, torch.Tensor):
        return x.data_ptr()
    return tuple(map(_settled, x)) if isinstance(x, list | tuple) else x
