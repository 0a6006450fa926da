"""One iteration on the device: rows, losses, gradient, traces, new loss weights, the optimizer's step.

Nothing here looks at a number, and everything that lives from one iteration to the next stands in place: parameters,
gradients, λ, the optimizer's state, the generator's. So the same lines run eagerly and under a graph capture.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from ..loss_gradient import pulled_sweep
from ..snapshot import Workspace
from ..weights import NTKWeights, balance
from .step import Batch, StepRows


@dataclass(frozen=True)
class Kind:
    """What an iteration finds beside the gradient: traces, and with them new loss weights."""

    traces: bool = False
    renews: bool = False


@dataclass(frozen=True)
class Outcome:
    """What an iteration found, by group.

    Attributes:
        losses: (G,).
        traces: tr K, (G,) in float64; None if not asked for.
        means: the traces over the rows that they were taken on.
    """

    losses: Tensor
    traces: Tensor | None = None
    means: Tensor | None = None


@final
class Iteration:
    """The state that iterations share, and their parts in order: draw, gradient, renew, update.

    Args:
        net: the network.
        layout: the rows of a step.
        weights: says over which rows traces are taken; None: λ stays as it is.
        lam: λ of the first iteration, (G,).
        optimizer: of the network's parameters.
        generator: of the points.
    """

    def __init__(
        self,
        net: nn.Module,
        layout: StepRows,
        weights: NTKWeights | None,
        lam: Tensor,
        optimizer: torch.optim.Optimizer,
        generator: torch.Generator,
    ) -> None:
        self.net, self.layout, self.weights, self.optimizer = net, layout, weights, optimizer
        self.generator = generator
        self.parameters = dict(net.named_parameters())
        self.buffers = [module._buffers for module in net.modules() if module._buffers]
        self._gradients: dict[str, Tensor] = {}  # of the parameters that have required grad so far, contiguous
        self._make_gradients()
        self._stepped: torch.optim.Optimizer | None = None  # the last one that did
        self._workspace = Workspace()
        self.lam = torch.empty(len(layout.groups), dtype=torch.float64, device=layout.device)
        self._pull = torch.empty(layout.share.shape, dtype=layout.dtype, device=layout.device)
        self.set_weights(lam)
        self._fresh = {group: layout.fresh(group, n) for group, n in ((weights and weights.points) or {}).items()}
        self._rows = self._counts(layout.rows)
        self._fresh_rows = self._counts({**layout.rows, **{group: fresh.count for group, fresh in self._fresh.items()}})

    def _counts(self, rows: Mapping[str, int]) -> Tensor:
        counts = [rows[group] for group in self.layout.groups]
        return torch.tensor(counts, dtype=torch.float64, device=self.layout.device)

    def set_weights(self, lam: Tensor) -> None:
        """Take over λ, (G,), in place."""
        self.lam.copy_(lam)
        self._pull.copy_(self.layout.pull(self.lam))

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Put generator and λ back where the block raises, so that the iteration can be made again, on its points."""
        state, lam = self.generator.get_state(), self.lam.clone()
        try:
            yield
        except BaseException:
            self.generator.set_state(state)
            self.set_weights(lam)
            raise

    def draw(self) -> Batch:
        """Points of all conditions."""
        return self.layout.draw(self.generator)

    def gradient(self, batch: Batch, kind: Kind) -> Outcome:
        """Losses, the gradient of Σ λ loss in ``.grad`` of the parameters, and the traces if the kind has them."""
        chain, args, groups = self.layout.prepare(self.net, batch)
        self._check_parameters(chain.parameters())
        self._make_gradients()
        with torch.no_grad():
            rows, diag = pulled_sweep(
                chain, args, groups, self._pull, batch.targets, self._gradients, kind.traces, self._workspace
            )
        self._hand_over()
        losses = self.layout.losses(rows)
        if diag is None:
            return Outcome(losses)
        traces = self.layout.sums(diag.sum(0))
        if not (kind.renews and self._fresh):
            return Outcome(losses, traces, traces / self._rows)
        for group, fresh in self._fresh.items():
            prepared = self.layout.prepare(self.net, self.layout.draw(self.generator, fresh.sizes))
            traces[self.layout.groups.index(group)] = fresh.trace(*prepared)
        return Outcome(losses, traces, traces / self._fresh_rows)

    def _check_parameters(self, now: Mapping[str, Tensor]) -> None:
        for name, p in self.parameters.items():
            if now.get(name, p) is not p:
                raise ValueError(
                    f"expected the parameters that the network had when its trainer was made, got another {name!r}: "
                    "write into parameters in place, or make a new trainer"
                )

    def _make_gradients(self) -> None:
        for name, p in self.parameters.items():
            if p.requires_grad and name not in self._gradients:
                self._gradients[name] = torch.empty_like(p, memory_format=torch.contiguous_format)

    def _hand_over(self) -> None:
        """Let ``.grad`` be the gradients just found, and none where a parameter is frozen."""
        for name, p in self.parameters.items():
            if not p.requires_grad:
                p.grad = None
                continue
            gradient = self._gradients[name]
            if p.stride() == gradient.stride():
                p.grad = gradient
            else:  # fused optimizers pair the elements as they lie in memory
                p.grad = torch.empty_like(p, requires_grad=False).copy_(gradient)

    def look(self, batch: Batch) -> Outcome:
        """Losses and traces on given points, the same bits as an iteration's; no gradient is touched."""
        with torch.no_grad():
            prepared = self.layout.prepare(self.net, batch)
            rows, diag = pulled_sweep(*prepared, self._pull, batch.targets, {}, True, self._workspace)
            assert diag is not None
            losses, traces = self.layout.losses(rows), self.layout.sums(diag.sum(0))
        return Outcome(losses, traces, traces / self._rows)

    def renew(self, found: Outcome) -> None:
        """Set λ from the traces just found; it counts from the next iteration on."""
        assert self.weights is not None and found.traces is not None and found.means is not None
        self.set_weights(balance(found.means if self.weights.normalize == "mean" else found.traces))

    def update(self) -> None:
        """Step the optimizer."""
        if self._stepped is self.optimizer:
            self.optimizer.step()
            return
        with warnings.catch_warnings():
            # One that can be captured warns once of steps before the capture. Later steps change no filters: that makes
            # Python forget which warnings it has shown.
            warnings.filterwarnings("ignore", ".*constructed with capturable=True", UserWarning)
            self.optimizer.step()
        self._stepped = self.optimizer

    def run(self, kind: Kind) -> Outcome:
        """All parts in order, with no look between them."""
        found = self.gradient(self.draw(), kind)
        if kind.renews:
            self.renew(found)
        self.update()
        return found
