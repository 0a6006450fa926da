"""The recorder: runs a residual function, finds its channels, and turns output channels into rows and seeds.

The first run surveys the function with placeholders: it collects the forms that are materialised and those that are
returned, and channels.py lays them out. With nothing materialised the rows are linear in the channels, and the seeds
∂row/∂channel are the coefficients. Otherwise the function runs again, with the network's channels, and autograd of that
pointwise run gives the rest of the seeds:

    row = Σ_c a_c u_c + s(u)        ∂row/∂u_c = a_c + ∂s/∂u_c
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping

import torch
from torch import Tensor

from .channels import Layout, Terms, layout_of, seed
from .jet import Coefficient, Form
from .kept import Kept
from .probe import probe
from .residual import Residual, check_names, check_points
from .tape import Replay, Survey


class Recording:
    """One run of a residual on given points: the channels, and how the network's outputs become rows.

    Args:
        spec: the channels.
        names: the names of the components, "" for a lone tensor.
        linear: whether the seeds do not depend on the outputs (then `seeds` needs none).
    """

    def __init__(
        self,
        residual: Residual,
        points: Tensor,
        columns: Mapping[str, Tensor],
        components: Mapping[str, Form],
        materialised: list[Terms],
        layout: Layout,
        n_outputs: int,
    ) -> None:
        self.residual = residual
        self.points = points
        self.columns = columns
        self.n_materialised = len(materialised)
        self.forms: list[Terms] = [*materialised, *(form._terms for form in components.values())]
        sources = (form._source for form in components.values())
        # Without the survey's graph, which ends at placeholders.
        self.sources: list[Coefficient] = [s.detach() if isinstance(s, Tensor) else s for s in sources]
        self.layout = layout
        self.spec = layout.spec
        self.names: tuple[str, ...] = tuple(components)
        self.n_components = len(self.names)
        self.n_outputs = n_outputs
        self.linear = not materialised

    def rows(self, out: Tensor) -> Tensor:
        """The rows, differentiable in the outputs.

        Args:
            out: (C, n, o), the channels of the outputs.

        Returns:
            (n, k), a tensor of its own.
        """
        if self.residual.fn is None:
            index = self.residual.index
            return (out[0] if index is None else out[0, :, index : index + 1]).clone()
        if self.linear:
            replay = self._replay(out, True)
            return torch.stack([self._row(replay, j) for j in range(self.n_components)], -1)
        if out.requires_grad and torch.is_grad_enabled():
            replay = self._replay(out, True)
            parts = replay.call(self.residual, self.points, self.columns)
            rows = torch.stack([self._row(replay, j, form) for j, form in enumerate(self._same(parts, replay))], -1)
            doubt = replay.doubt()
            return rows if doubt is None else rows + doubt[:, None]
        return self.evaluate(out)[0]

    def seeds(self, out: Tensor | None = None) -> list[Tensor]:
        """∂row/∂out of each component over its own channels.

        Args:
            out: (C, n, o), the channels of the outputs; a linear residual needs none.

        Returns:
            k tensors (C_j, n, o), possibly expanded over n.

        Raises:
            ValueError: no outputs for a residual that is not linear.
        """
        if self.linear:
            return [self._seed(j, []) for j in range(self.n_components)]
        if out is None:
            raise ValueError(
                f"residual {self.residual.name}: expected output channels for a residual that is not linear, got None"
            )
        return self.evaluate(out)[1]

    def evaluate(self, out: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Rows and seeds together, both without a graph, from one run."""
        if self.linear:
            return self.rows(out.detach()), self.seeds()
        with torch.inference_mode(False), torch.enable_grad():
            return self._evaluate(out.clone() if out.is_inference() else out.detach())

    @property
    def has_source(self) -> bool:
        """Whether the rows of a linear residual have anything beside Σ coefficient · channel."""
        return any(isinstance(source, Tensor) or source != 0.0 for source in self.sources)

    def subtract_source(self, rows: Tensor) -> None:
        """Take what the rows have beside Σ coefficient · channel from ``rows``, (n, k), in place."""
        for j, source in enumerate(self.sources):
            rows[:, j].sub_(source)

    def given(self) -> list[Tensor]:
        """The caller's tensors that a run reads: points, columns, coefficients."""
        coefficients = [c for c in self.residual.coefficients.values() if isinstance(c, Tensor)]
        # Inference tensors tell no one that they change, and autograd keeps none.
        return [x for x in (self.points, *self.columns.values(), *coefficients) if not x.is_inference()]

    def part(self, start: int, stop: int) -> Recording:
        """The recording of the same residual on the points start … stop − 1 alone, from a run of its own."""
        aligned = {name: c[start:stop] for name, c in self.residual.aligned(len(self.points)).items()}
        columns = {name: column[start:stop] for name, column in self.columns.items()}
        bound = self.residual.bind(**aligned)
        bound._probed = self.residual._probed
        try:
            return _survey(bound, self.points[start:stop], columns)
        except (ValueError, RuntimeError) as error:
            raise ValueError(
                f"residual {self.residual.name}: expected a function that runs on some of its points, as a memory "
                "budget asks (a tensor that it captures cannot be cut: bind it, or make it a column of ntk.Points), "
                f"got the error: {error}"
            ) from error

    def _evaluate(self, out: Tensor) -> tuple[Tensor, list[Tensor]]:
        replay = self._replay(out, False)
        forms = self._same(replay.call(self.residual, self.points, self.columns), replay)
        used = list(replay.leaves)
        seeds = []
        for j, form in enumerate(forms):
            source: Coefficient = form._source
            entries: list[tuple[int, int, Coefficient]] = []
            if isinstance(source, Tensor) and source.requires_grad:
                leaves = [replay.leaves[key] for key in used]
                grads = torch.autograd.grad(source.sum(), leaves, retain_graph=True, allow_unused=True)
                entries = [(c, o, g) for (c, o), g in zip(used, grads, strict=True) if g is not None]
            seeds.append(self._seed(j, entries, form))
        rows = torch.stack([self._row(replay, j, form) for j, form in enumerate(forms)], -1).detach()
        doubt = replay.doubt()
        if doubt is None:
            return rows, seeds
        return rows + doubt[:, None], [seed + doubt[:, None] for seed in seeds]

    def _replay(self, out: Tensor, attached: bool) -> Replay:
        expected = (self.spec.n_channels, self.points.shape[0], self.n_outputs)
        if tuple(out.shape) != expected:
            raise ValueError(
                f"residual {self.residual.name}: expected output channels of shape {expected}, got {tuple(out.shape)}"
            )
        return Replay(self.residual, self.points, self.forms, self.n_materialised, self.layout, out, attached)

    def _same(self, components: Mapping[str, Form], replay: Replay) -> list[Form]:
        """The components of a second run; it must have gone the way of the first."""
        if tuple(components) != self.names or replay.count != self.n_materialised:
            raise ValueError(replay.unsteady())
        return list(components.values())

    def _row(self, replay: Replay, j: int, form: Form | None = None) -> Tensor:
        """Component j, (n,): Σ coefficient · channel + source."""
        i = self.n_materialised + j
        terms, source = (self.forms[i], self.sources[j]) if form is None else (form._terms, form._source)
        row = replay.combine(i, terms)
        if row is None:
            return torch.zeros(replay.n, dtype=replay.dtype, device=replay.device) + source
        return row if isinstance(source, float) and source == 0.0 else row + source

    def _seed(self, j: int, gradients: list[tuple[int, int, Coefficient]], form: Form | None = None) -> Tensor:
        """Component j, (C_j, n, o): coefficients and the gradients of the source."""
        found = self.layout.seeds[j]
        if found is None:
            i = self.n_materialised + j
            terms = self.forms[i] if form is None else form._terms
            linear = [(c, o, ratio if t is None else terms[t]) for c, o, t, ratio in self.layout.plans[i]]
            found = seed(self.spec.channels(j), [*linear, *gradients], self.points, self.n_outputs)
        return found.expand(-1, self.points.shape[0], -1)


def record(
    residual: Residual, points: Tensor, n_outputs: int, columns: Mapping[str, Tensor] | None = None
) -> Recording:
    """Run a residual on points and find the channels that it needs.

    Args:
        residual: the residual.
        points: (n, d), float32 or float64; constants even if they require grad.
        n_outputs: o, the outputs of the network.
        columns: further columns by name, each (n,), read as ``at.name``.

    Returns:
        The recording: channels, rows and seeds.

    Raises:
        TypeError: points or rows of a wrong type, or a branch on values.
        ValueError: points of a wrong shape, a column named like a coordinate, a wrong number of outputs, a coefficient
            that is missing, captured tensors that require grad, rows that mix points, rows of a wrong shape,
            derivatives that are not available.

    Cost:
        One run of the function on the points; the layout is kept. The first call also probes whether rows mix points,
        on at most 64 of them.
    """
    check_points(residual, points, finite=False)
    points, columns = points.detach(), {} if columns is None else columns
    check_names(f"residual {residual.name}", residual.coordinates, columns)
    if residual.fn is None:
        return _record_value(residual, points, n_outputs)
    if n_outputs != 1:
        raise ValueError(
            f"residual {residual.name}: expected a network with 1 output {residual.outputs}, got {n_outputs} outputs"
        )
    if residual._missing:
        raise ValueError(
            f"residual {residual.name}: expected a value for every coefficient, got none for "
            f"{', '.join(residual._missing)}; use bind({residual._missing[0]}=…)"
        )
    if residual._probed or not points.shape[0]:
        return _survey(residual, points, columns)
    with warnings.catch_warnings():  # once for a residual: each time Python forgets which warnings it has shown
        # The probe, which comes after the first run, refuses what torch warns of there.
        warnings.filterwarnings("ignore", "Converting a tensor with requires_grad=True to a scalar", UserWarning)
        recording = _survey(residual, points, columns)
        probe(residual.name, functools.partial(_survey, residual), points, columns)
    residual._probed = True
    return recording


def _survey(residual: Residual, points: Tensor, columns: Mapping[str, Tensor]) -> Recording:
    if torch.is_grad_enabled() and not torch.is_inference_mode_enabled():
        return _survey_with_grad(residual, points, columns)
    with torch.inference_mode(False), torch.enable_grad():
        return _survey_with_grad(residual, points, columns)


def _survey_with_grad(residual: Residual, points: Tensor, columns: Mapping[str, Tensor]) -> Recording:
    run = Survey(residual, points)
    components = run.call(residual, points, columns)
    depends = tuple(run.dependencies(form) for form in components.values())
    forms = [*run.forms, *(form._terms for form in components.values())]
    key = None
    if all(type(c) is float for terms in forms for c in terms.values()):
        terms_key = tuple(tuple(terms.items()) for terms in forms)
        key = (terms_key, depends, points.shape[1], points.dtype, points.device)
    make = functools.partial(layout_of, forms, depends, points, 1)
    layout = make() if key is None else residual._layouts.get(key, points.device, make)
    return Recording(residual, points, columns, components, run.forms, layout, 1)


def _record_value(residual: Residual, points: Tensor, n_outputs: int) -> Recording:
    if residual.index is not None and residual.index >= n_outputs:
        raise ValueError(f"expected an output below {n_outputs}, got ntk.{residual.name}")
    outputs = tuple(range(n_outputs)) if residual.index is None else (residual.index,)
    layout = _value_layout(outputs, n_outputs, points)
    run = Survey(residual, points)
    names = [""] if len(outputs) == 1 else [str(j) for j in outputs]
    components = {name: Form(run, {(j, ()): 1.0}) for name, j in zip(names, outputs, strict=True)}
    return Recording(residual, points, {}, components, [], layout, n_outputs)


_value_layouts: Kept[Layout] = Kept(64)


def _value_layout(outputs: tuple[int, ...], n_outputs: int, points: Tensor) -> Layout:
    def make() -> Layout:
        return layout_of([{(j, ()): 1.0} for j in outputs], [()] * len(outputs), points, n_outputs)

    device = points.device
    return _value_layouts.get((outputs, n_outputs, points.shape[1], points.dtype, device), device, make)
