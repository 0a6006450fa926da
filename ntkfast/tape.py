"""Runs of a residual function: with placeholders, to see what it asks for, and with the network's output channels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .channels import Layout, Terms, same_numbers
from .jet import Coefficient, Form, Jet
from .refusals import meaning
from .residual import Residual


class At:
    """The points as a residual function sees them: ``at.x`` is the column x, shape (n,), a copy of its own."""

    def __init__(
        self, name: str, coordinates: Mapping[str, int], points: Tensor, columns: Mapping[str, Tensor]
    ) -> None:
        self._name = name
        self._coordinates = coordinates
        self._points = points
        self._columns = columns

    def __getattr__(self, name: str) -> Tensor:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in self._coordinates:
            column = self._points[:, self._coordinates[name]]
        elif name in self._columns:
            column = self._columns[name]
        else:
            known = (*self._coordinates, *self._columns)
            raise ValueError(f"{self._name}: expected a column out of {known}, got at.{name}")
        # A copy: contiguous, and writing to it leaves the caller's points alone. Kept, so that it is made once.
        column = column.detach().clone(memory_format=torch.contiguous_format)
        self.__dict__[name] = column
        return column

    def __getitem__(self, index: object) -> Tensor:
        raise TypeError(f"{self._name}: expected a function of at, the points by column, as in at.x, got at[…]")


class Run(ABC):
    """One run of a residual function: the tape that its forms hold on to."""

    def __init__(self, residual: Residual, points: Tensor) -> None:
        self.name = residual.name
        self.coordinates = {name: i for i, name in enumerate(residual.coordinates)}
        self.n = points.shape[0]
        self.dtype = points.dtype
        self.device = points.device

    @abstractmethod
    def materialise(self, terms: Terms, source: Coefficient) -> Tensor:
        """The values of a form, (n,)."""

    def call(self, residual: Residual, points: Tensor, columns: Mapping[str, Tensor]) -> dict[str, Form]:
        """The components that the function returns, by name ("" for a lone tensor)."""
        arguments: dict[str, object] = {name: Jet(self, j) for j, name in enumerate(residual.outputs)}
        if residual.takes_at:
            arguments["at"] = At(f"residual {self.name}", self.coordinates, points, columns)
        assert residual.fn is not None
        for name, c in residual.coefficients.items():
            if isinstance(c, Tensor) and c.is_inference():
                arguments[name] = c.clone()  # autograd of the pointwise run may keep it
        try:
            result = residual.fn(**arguments)
        except (RuntimeError, TypeError, IndexError, AttributeError) as error:
            refusal = meaning(self.name, error)
            if refusal is None:
                raise
            raise refusal from error
        if not isinstance(result, dict):
            return {"": self._component("", result)}
        if not result:
            raise ValueError(f"residual {self.name}: expected at least one component, got an empty dict")
        return {name: self._component(name, part) for name, part in result.items()}

    def _component(self, name: str, part: Any) -> Form:
        of = f"residual {self.name}" + (f", component {name!r}" if name != "" else "")
        if not isinstance(name, str):
            raise TypeError(f"{of}: expected components named by strings, got {name!r}")
        if isinstance(part, Form):
            return part
        if not isinstance(part, Tensor):
            raise TypeError(
                f"{of}: expected a tensor of shape ({self.n},) or a dict of them, got {type(part).__name__}"
            )
        if tuple(part.shape) != (self.n,):
            raise ValueError(f"{of}: expected rows of shape ({self.n},), got {tuple(part.shape)}")
        if not part.is_floating_point():
            raise TypeError(f"{of}: expected rows in {self.dtype}, got {part.dtype}")
        return Form(self, {}, part.to(self.dtype))


class Survey(Run):
    """A run with placeholders: collects what the function materialises."""

    def __init__(self, residual: Residual, points: Tensor) -> None:
        super().__init__(residual, points)
        self.forms: list[Terms] = []
        self.leaves: list[Tensor] = []

    def materialise(self, terms: Terms, source: Coefficient) -> Tensor:
        """A placeholder for the values of a form, (n,)."""
        leaf = torch.ones(self.n, dtype=self.dtype, device=self.device, requires_grad=True)
        self.forms.append(terms)
        self.leaves.append(leaf)
        return leaf if isinstance(source, float) and source == 0.0 else leaf + source

    def dependencies(self, form: Form) -> tuple[int, ...]:
        """Which materialised forms the source of a component is differentiable in; refuses leaves that are not ours."""
        source = form._source
        if not isinstance(source, Tensor) or not source.requires_grad:
            return ()
        own = {id(leaf): i for i, leaf in enumerate(self.leaves)}
        found = set()
        for leaf in _graph_leaves(source):
            if id(leaf) not in own:
                raise ValueError(
                    f"residual {self.name}: expected constants besides the jet, got a captured tensor of shape "
                    f"{tuple(leaf.shape)} that requires grad; detach it or bind a number"
                )
            found.add(own[id(leaf)])
        return tuple(sorted(found))


class Replay(Run):
    """A run with the network's output channels.

    The channels were chosen from the first run, so the coefficients inside of them must be the same now. A look at them
    would make the host wait for a GPU: there rows and seeds of points where they differ become NaN instead, once the
    probe has looked.

    Args:
        residual: the residual.
        points: (n, d).
        forms: those of the survey: the materialised ones, then the components.
        n_materialised: how many of them were materialised.
        layout: their channels.
        out: (C, n, o).
        attached: whether values hang on the graph of out, or are leaves of their own.
    """

    def __init__(
        self,
        residual: Residual,
        points: Tensor,
        forms: Sequence[Terms],
        n_materialised: int,
        layout: Layout,
        out: Tensor,
        attached: bool,
    ) -> None:
        super().__init__(residual, points)
        self.forms = forms
        self.n_materialised = n_materialised
        self.layout = layout
        self.out = out
        self.attached = attached
        self.looks = _may_look(residual, points)
        self.doubts: list[Tensor] = []  # where coefficients differ, (n,) or one for all points
        self.leaves: dict[tuple[int, int], Tensor] = {}
        self.count = 0

    def leaf(self, channel: int, output: int) -> Tensor:
        """One channel of one output, (n,), made once."""
        key = (channel, output)
        if key not in self.leaves:
            values = self.out[channel, :, output]
            self.leaves[key] = values if self.attached else values.detach().requires_grad_()
        return self.leaves[key]

    def materialise(self, terms: Terms, source: Coefficient) -> Tensor:
        """The values of a form, (n,), from its channels."""
        i = self.count
        self.count += 1
        if i >= self.n_materialised:
            raise ValueError(self.unsteady())
        values = self.combine(i, terms)
        if values is None:
            return torch.zeros(self.n, dtype=self.dtype, device=self.device) + source
        return values if isinstance(source, float) and source == 0.0 else values + source

    def combine(self, i: int, terms: Terms) -> Tensor | None:
        """Σ coefficient · channel by plan i."""
        plan = self.layout.plans[i]
        self.check(terms, self.forms[i], {term for _, _, term, _ in plan})
        total = None
        for channel, output, term, ratio in plan:
            c = ratio if term is None else terms[term]
            part = self.leaf(channel, output)
            part = part if isinstance(c, float) and c == 1.0 else part * c
            total = part if total is None else total + part
        return total

    def check(self, terms: Terms, recorded: Terms, free: set[object]) -> None:
        """Refuse, or doubt, coefficients of channels that are not those of the first run."""
        if terms.keys() != recorded.keys():
            raise ValueError(self.unsteady())
        for term, c in terms.items():
            known = recorded[term]
            if term in free or c is known:
                continue
            if not self.looks and isinstance(c, Tensor) and isinstance(known, Tensor) and c.shape == known.shape:
                self.doubts.append((c != known) & ~(c.isnan() & known.isnan()))
            elif not _same(c, known):
                raise ValueError(self.unsteady())

    def doubt(self) -> Tensor | None:
        """NaN where a coefficient differs, (n,), else 0; None where there was nothing to compare."""
        if not self.doubts:
            return None
        differ = torch.stack([each.expand(self.n) for each in self.doubts]).any(0)
        return torch.zeros(self.n, dtype=self.dtype, device=self.device).masked_fill(differ, torch.nan)

    def unsteady(self) -> str:
        """The sentence for a second run that goes another way than the first."""
        return (
            f"residual {self.name}: expected the same derivatives and coefficients whatever the values of the jet, "
            f"got others; where derivatives switch on values, put them inside: torch.where(condition, a, b)"
        )


def _graph_leaves(tensor: Tensor) -> Iterator[Tensor]:
    """The leaves that require grad under a tensor of an autograd graph."""
    if tensor.grad_fn is None:
        yield tensor
        return
    stack, seen = [tensor.grad_fn], {tensor.grad_fn}
    while stack:
        node = stack.pop()
        leaf = getattr(node, "variable", None)
        if leaf is not None:
            yield leaf
        for below, _ in node.next_functions:
            if below is not None and below not in seen:
                seen.add(below)
                stack.append(below)


def _may_look(residual: Residual, points: Tensor) -> bool:
    return not (points.is_cuda and residual._probed)


def _same(a: Coefficient, b: Coefficient) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return same_numbers(a, b)
    return not isinstance(a, Tensor) and not isinstance(b, Tensor) and (a == b or (a != a and b != b))
