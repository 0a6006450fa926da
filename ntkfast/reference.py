"""The definitions, by torch.func: slow, obvious, and independent of everything else in this package.

A residual is evaluated at one point at a time by nested forward-mode derivatives of the network, its Jacobian in the
parameters is one reverse sweep per row, and every kernel is what its formula says:

    r_i(θ)   the residual rows           J = ∂r/∂θ   (N, P)          K = J Jᵀ   (N, N)

Tests and benchmarks compare the fast code with this file, so it imports nothing of the package. What it knows of a
residual are four attributes: `fn` (None: the network's own outputs, all of them or the one numbered `index`),
`coordinates`, `outputs` and `coefficients`. Any `nn.Module` that maps (n, d) to (n, o) row by row will do.
Wherever a function takes `points` and `residual`, it also takes a dict of groups `{"u": (points, residual), ...}`.
"""

from __future__ import annotations

import functools
import inspect
import operator
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, jvp, vmap
from torch.utils import _pytree as pytree

__all__ = ["Jet", "diag", "gram", "jacobian", "rows", "trace"]

Groups: TypeAlias = Mapping[str, tuple[Tensor, Any]]
Patterns: TypeAlias = str | Iterable[str] | None
Parameters: TypeAlias = dict[str, Tensor]
Batch: TypeAlias = tuple[Tensor, Parameters, Parameters]  # points (n, d), their further columns, coefficients (n,)

_CHUNK_ELEMENTS = 2**23  # Jacobian entries made at once; `diag` and `trace` keep no others


def _plain(x: Any) -> Any:
    return x.value if isinstance(x, Jet) else x


def _binary(op: Callable[[Any, Any], Any]) -> Any:
    return lambda self, other: op(self.value, _plain(other))


def _reflected(op: Callable[[Any, Any], Any]) -> Any:
    return lambda self, other: op(_plain(other), self.value)


class Jet:
    """One network output as a function of the points: it stands for its value and knows its derivatives.

    The value at points x is f(x); `d(t=2, x=1)` is ∂³f/∂t²∂x, by nested `torch.func.jvp` along unit vectors.

    Args:
        function: maps points (n, d) to values (n,), row by row.
        points: (n, d).
        columns: the names of the d input columns, in order.

    Cost: an order-p derivative evaluates the network 2ᵖ times.

    Example:
        >>> import torch
        >>> from ntkfast.reference import Jet
        >>> u = Jet(lambda x: x[:, 0] ** 3 * x[:, 1], torch.tensor([[2.0, 5.0]]), ("t", "x"))
        >>> u.d(t=2).value, u.d(t=1, x=1).value, (u + 1.0)
        (tensor([60.]), tensor([12.]), tensor([41.]))
    """

    def __init__(self, function: Callable[[Tensor], Tensor], points: Tensor, columns: Sequence[str]) -> None:
        self._function, self._points, self._columns = function, points, tuple(columns)

    @property
    def value(self) -> Tensor:
        """f(x), (n,)."""
        return self._function(self._points)

    def d(self, **orders: int) -> Jet:
        """The partial derivative with the given order in each named column, as a jet again."""
        function = self._function
        for name, order in orders.items():
            for _ in range(order):
                function = _partial(function, _column(name, self._columns))
        return Jet(function, self._points, self._columns)

    def laplacian(self, *names: str) -> Tensor:
        """Σ ∂²f/∂x_k² over the named columns (all of them if none is named), (n,)."""
        return torch.stack([self.d(**{name: 2}).value for name in names or self._columns]).sum(dim=0)

    def at(self, **positions: float | Tensor) -> Jet:
        """The same output with some columns of the points replaced, each by a number or (n,)."""
        moved = list(self._points.unbind(dim=1))
        for name, position in positions.items():
            column = _column(name, self._columns)
            moved[column] = torch.zeros_like(moved[column]) + position
        return Jet(self._function, torch.stack(moved, dim=1), self._columns)

    __add__, __radd__ = _binary(operator.add), _reflected(operator.add)
    __sub__, __rsub__ = _binary(operator.sub), _reflected(operator.sub)
    __mul__, __rmul__ = _binary(operator.mul), _reflected(operator.mul)
    __truediv__, __rtruediv__ = _binary(operator.truediv), _reflected(operator.truediv)
    __pow__, __rpow__ = _binary(operator.pow), _reflected(operator.pow)
    __mod__, __rmod__ = _binary(operator.mod), _reflected(operator.mod)
    __lt__, __le__, __gt__, __ge__ = map(_binary, (operator.lt, operator.le, operator.gt, operator.ge))
    __eq__, __ne__, __hash__ = _binary(operator.eq), _binary(operator.ne), object.__hash__
    __neg__, __pos__, __abs__ = (lambda self, f=f: f(self.value) for f in (operator.neg, operator.pos, operator.abs))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.value, name)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*pytree.tree_map(_plain, args), **pytree.tree_map(_plain, kwargs or {}))


class _At:
    """The columns of the points by name, `at.x`, and what travels with the points: (n,) each."""

    def __init__(self, points: Tensor, columns: Sequence[str], travelling: Parameters) -> None:
        self._points, self._columns, self._travelling = points, tuple(columns), travelling

    def __getattr__(self, name: str) -> Tensor:
        if name in self._travelling:
            return self._travelling[name]
        return self._points[:, _column(name, self._columns)]


def _column(name: str, columns: Sequence[str]) -> int:
    if name not in columns:
        raise ValueError(f"expected one of the coordinates {tuple(columns)}, got {name!r}")
    return columns.index(name)


@functools.cache
def _load_forward_mode() -> None:
    """Let torch load its forward mode, which it does once, by a function of its own that it warns of."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`torch\.jit\.script` is")
        jvp(torch.neg, (torch.zeros(1, device="cpu"),), (torch.zeros(1, device="cpu"),))


def _partial(function: Callable[[Tensor], Tensor], column: int) -> Callable[[Tensor], Tensor]:
    """∂f/∂x_k of a function that acts row by row: one jvp along the unit vector, the same in every row."""
    _load_forward_mode()

    def derivative(x: Tensor) -> Tensor:
        unit = torch.zeros_like(x)
        unit[:, column] = 1
        return jvp(function, (x,), (unit,))[1]

    return derivative


def _split(points: Any, residual: Any) -> Batch:
    """All that differs from point to point."""
    x = getattr(points, "xy", points).detach()
    coefficients = getattr(residual, "coefficients", None) or {}
    aligned = {name: c for name, c in coefficients.items() if isinstance(c, Tensor) and c.shape == x.shape[:1]}
    return x, dict(getattr(points, "columns", None) or {}), aligned


def _rows_at(net: nn.Module, parameters: Mapping[str, Tensor], residual: Any, point: Any) -> Tensor:
    """The components of the residual at one point, (k,); the user's function sees a batch of one."""
    x, travelling, aligned = pytree.tree_map(lambda part: part.unsqueeze(0), point)

    def network(x: Tensor) -> Tensor:
        return functional_call(net, dict(parameters), (x,)).reshape(x.shape[0], -1)

    if residual is None or residual.fn is None:
        index = getattr(residual, "index", None)
        return network(x)[0] if index is None else network(x)[0, index].reshape(1)
    names = list(inspect.signature(residual.fn).parameters)
    arguments = {**(getattr(residual, "coefficients", None) or {}), **aligned}
    for j, name in enumerate(residual.outputs or names[:1]):
        if name in names:
            arguments[name] = Jet(lambda x, j=j: network(x)[:, j], x, residual.coordinates)
    if "at" in names:
        arguments["at"] = _At(x, residual.coordinates, travelling)
    result = residual.fn(**arguments)
    components = result.values() if isinstance(result, Mapping) else [result]
    return torch.cat([_plain(component).reshape(1) for component in components])


def _parameters(net: nn.Module, wrt: Patterns) -> Parameters:
    """The parameters with requires_grad whose names match, in named_parameters() order."""
    names = {name: p for name, p in net.named_parameters() if p.requires_grad}
    patterns = ["*"] if wrt is None else [wrt] if isinstance(wrt, str) else list(wrt)
    matches = {pattern: [name for name in names if fnmatchcase(name, pattern)] for pattern in patterns}
    if wrt is None and not names:
        raise ValueError("expected a network with parameters that require grad, got none")
    if not matches or not all(matches.values()):
        raise ValueError(f"wrt: expected patterns that match some of {[*names]} each, got {patterns}")
    return {name: p for name, p in names.items() if any(name in found for found in matches.values())}


def _jacobians(net: nn.Module, points: Any, residual: Any, wrt: Patterns, finish: Any = lambda J: J) -> Parameters:
    """`finish` of the Jacobian (k, size) in each parameter, by `jacrev` at a point, mapped over the points."""
    constant = {name: p.detach() for name, p in net.named_parameters()}
    chosen = {name: constant[name] for name in _parameters(net, wrt)}

    def at_point(*point: Any) -> Parameters:
        blocks = jacrev(lambda p: _rows_at(net, constant | p, residual, point))(chosen)
        return {name: finish(J.flatten(start_dim=1)) for name, J in blocks.items()}

    batch = _split(points, residual)
    if len(batch[0]) == 0:
        blocks = at_point(*pytree.tree_map(lambda part: part.new_zeros(part.shape[1:]), batch))
        return {name: J.new_zeros(0, *J.shape) for name, J in blocks.items()}
    chunk = max(1, _CHUNK_ELEMENTS // sum(p.numel() for p in chosen.values()))
    return vmap(at_point, randomness="same", chunk_size=chunk)(*batch)


def _joint(net: nn.Module, points: Tensor | Groups, residual: Any, wrt: Patterns) -> list[Parameters]:
    """The Jacobians of every group, in order: [{parameter: (n, k, size)}]."""
    groups = points.values() if isinstance(points, Mapping) else [(points, residual)]
    return [_jacobians(net, x, r, wrt) for x, r in groups]


def _by_block(by_parameter: Parameters) -> Parameters:
    """Sums over the parameters of each module: {"2.weight": a, "2.bias": b} gives {"2": a + b}."""
    blocks: Parameters = {}
    for name, term in by_parameter.items():
        block = name.rpartition(".")[0]
        blocks[block] = blocks[block] + term if block in blocks else term
    return blocks


def rows(net: nn.Module, points: Tensor | Groups, residual: Any = None) -> Tensor:
    """The residual rows r_i(θ), point by point, connected to the parameters by autograd.

    Args:
        net: any module that maps (n, d) to (n, o) row by row.
        points: (n, d), or a dict of groups.
        residual: k rows per point; None means the network's outputs.

    Returns:
        (n·k,), point-major: `rows.view(n, k)`; several groups one after the other.

    Cost: one nested forward sweep per derivative.

    Example:
        >>> import torch
        >>> from ntkfast import reference
        >>> reference.rows(torch.nn.Linear(2, 3), torch.zeros(4, 2)).shape
        torch.Size([12])
    """
    if isinstance(points, Mapping):
        return torch.cat([rows(net, x, r) for x, r in points.values()])
    batch, parameters = _split(points, residual), dict(net.named_parameters())
    if len(batch[0]) == 0:
        return batch[0].new_zeros(0)
    return vmap(lambda *point: _rows_at(net, parameters, residual, point), randomness="same")(*batch).flatten()


def jacobian(net: nn.Module, points: Tensor | Groups, residual: Any = None, *, wrt: Patterns = None) -> Tensor:
    """The Jacobian of the rows in the parameters, J = ∂r/∂θ.

    Args:
        net: any module that maps (n, d) to (n, o) row by row.
        points: (n, d), or a dict of groups.
        residual: k rows per point; None means the network's outputs.
        wrt: fnmatch patterns on parameter names; None means all parameters that require grad.

    Returns:
        (N, P), rows as in `rows`, columns in named_parameters() order.

    Raises:
        ValueError: a pattern of `wrt` matches no parameter.

    Cost: N reverse sweeps over the nested forward ones; N·P numbers.

    Example:
        >>> import torch
        >>> from ntkfast import reference
        >>> reference.jacobian(torch.nn.Linear(2, 1), torch.tensor([[3.0, 4.0]]))
        tensor([[3., 4., 1.]])
    """
    parts = [torch.cat([*blocks.values()], dim=2).flatten(end_dim=1) for blocks in _joint(net, points, residual, wrt)]
    return torch.cat(parts)


def diag(
    net: nn.Module, points: Tensor | Groups, residual: Any = None, *, per_block: bool = False, wrt: Patterns = None
) -> Any:
    """The diagonal of the NTK, K_ii = ‖∂r_i/∂θ‖².

    Args:
        net: any module that maps (n, d) to (n, o) row by row.
        points: (n, d), or a dict of groups.
        residual: k rows per point; None means the network's outputs.
        per_block: the part of each module instead of the sum.
        wrt: fnmatch patterns on parameter names; None means all parameters that require grad.

    Returns:
        (n·k,), or by module name if `per_block`; for a dict of groups, a dict of these.

    Raises:
        ValueError: a pattern of `wrt` matches no parameter.

    Cost: that of `jacobian`, a few rows of it at a time in memory.

    Example:
        >>> import torch
        >>> from ntkfast import reference
        >>> reference.diag(torch.nn.Linear(2, 1), torch.tensor([[3.0, 4.0]]))
        tensor([26.])
    """
    if isinstance(points, Mapping):
        return {group: diag(net, x, r, per_block=per_block, wrt=wrt) for group, (x, r) in points.items()}
    norms = _jacobians(net, points, residual, wrt, lambda J: J.square().sum(dim=1))
    blocks = _by_block({name: norm.flatten() for name, norm in norms.items()})
    return blocks if per_block else torch.stack([*blocks.values()]).sum(dim=0)


def trace(
    net: nn.Module, points: Tensor | Groups, residual: Any = None, *, per_block: bool = False, wrt: Patterns = None
) -> Any:
    """The trace of the NTK, tr K = Σ_i ‖∂r_i/∂θ‖² = ‖J‖²: a plain sum over the rows.

    Args:
        net: any module that maps (n, d) to (n, o) row by row.
        points: (n, d), or a dict of groups.
        residual: k rows per point; None means the network's outputs.
        per_block: the part of each module instead of the sum.
        wrt: fnmatch patterns on parameter names; None means all parameters that require grad.

    Returns:
        0-d, in the parameters' dtype (summed in float64), or by module name if `per_block`; for groups, a dict.

    Raises:
        ValueError: a pattern of `wrt` matches no parameter.

    Cost: that of `diag`.

    Example:
        >>> import torch
        >>> from ntkfast import reference
        >>> reference.trace(torch.nn.Linear(2, 1), torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
        tensor(27.)
    """
    return pytree.tree_map(
        lambda d: d.sum(dtype=torch.float64).to(d.dtype), diag(net, points, residual, per_block=per_block, wrt=wrt)
    )


def gram(
    net: nn.Module,
    x: Tensor | Groups,
    residual: Any = None,
    y: Tensor | Groups | None = None,
    residual_y: Any = None,
    *,
    wrt: Patterns = None,
    sum_components: bool = False,
    per_block: bool = False,
) -> Any:
    """The NTK, K = J(x) J(y)ᵀ: K_ij = ⟨∂r_i/∂θ, ∂r_j/∂θ⟩.

    Args:
        net: any module that maps (n, d) to (n, o) row by row.
        x: (n, d), or a dict of groups: the joint matrix, in the order of the dict.
        residual: k rows per point of x; None means the network's outputs.
        y: (m, d), or a dict of groups; None means x.
        residual_y: k' rows per point of y; None means `residual`.
        wrt: fnmatch patterns on parameter names; None means all parameters that require grad.
        sum_components: the (n, m) sum over components, Σ_c K_(i,c),(j,c); needs k = k'.
        per_block: the part of each module instead of the sum.

    Returns:
        (n·k, m·k'), or by module name if `per_block`.

    Raises:
        ValueError: a pattern of `wrt` matches no parameter, or `sum_components` with different numbers of components.

    Cost: that of both Jacobians, and N·M·P multiply-adds.

    Example:
        >>> import torch
        >>> from ntkfast import reference
        >>> x = torch.tensor([[3.0, 4.0], [0.0, 1.0]])
        >>> reference.gram(torch.nn.Linear(2, 1), x)
        tensor([[26.,  5.],
                [ 5.,  2.]])
    """
    left = _joint(net, x, residual, wrt)
    same = y is None and residual_y is None
    right = left if same else _joint(net, x if y is None else y, residual if residual_y is None else residual_y, wrt)
    components = {J.shape[1] for part in left + right for J in part.values()}
    if sum_components and len(components) > 1:
        raise ValueError(f"sum_components: expected equally many components everywhere, got {sorted(components)}")
    axes = (1, 2) if sum_components else (2,)  # the contracted axes of (n, k, size)

    def stacked(parts: list[Parameters], name: str) -> Tensor:
        return torch.cat([part[name].flatten(start_dim=axes[0]).flatten(end_dim=-2) for part in parts])

    blocks = _by_block({name: stacked(left, name) @ stacked(right, name).T for name in left[0]})
    return blocks if per_block else torch.stack([*blocks.values()]).sum(dim=0)
