"""Residuals: functions of a jet that say what a row is, and the special residual "the outputs themselves"."""

from __future__ import annotations

import functools
import importlib
import inspect
import math
import numbers
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .kept import Kept

if TYPE_CHECKING:
    from torch import nn

_DTYPES = (torch.float32, torch.float64)


class Residual:
    r"""A row per point (or several) made from the derivatives of a network's outputs.

    .. math:: r_i(\theta) = R\bigl(u, \partial u, \partial^2 u\bigr)(x_i)

    Usually made by the decorator `residual`. Immutable: `bind` returns a new one.

    Args:
        fn: the function; its parameters are told apart by name: the outputs, ``at`` (the points), and coefficients.
            None stands for the outputs themselves.
        coordinates: names of the input columns, in order.
        outputs: the name of the network's output, or None: the first parameter of fn.
        index: only for fn None: which output, or None for all of them.

    Raises:
        ValueError: coordinate names that repeat or are no identifiers, several outputs, or a function without a jet.
        TypeError: something that is no function of Python, or one that takes ``*args``, ``**kwargs`` or parameters by
            position alone.

    Example:
        >>> import ntkfast as ntk
        >>> wave = ntk.residual("t", "x")(lambda u: u.d(t=2) - 4.0 * u.d(x=2))
        >>> wave.coordinates
        ('t', 'x')
    """

    def __init__(
        self,
        fn: Callable[..., Any] | None,
        coordinates: Sequence[str] = (),
        outputs: Sequence[str] | None = None,
        index: int | None = None,
    ) -> None:
        self.fn = fn
        self.coordinates: tuple[str, ...] = tuple(coordinates)
        self.index = index
        self.name: str = _name(fn) if fn is not None else "value" if index is None else f"value[{index}]"
        self.takes_at = False
        self.outputs: tuple[str, ...] = ()
        self.coefficients: dict[str, Any] = {}
        self._missing: tuple[str, ...] = ()
        # Filled by the recorder: layouts by the forms that they carry, and whether rows were probed for mixed points.
        self._layouts: Kept[Any] = Kept(16)
        self._probed = False
        if fn is not None:
            self._read_signature(fn, outputs)

    def _read_signature(self, fn: Callable[..., Any], outputs: Sequence[str] | None) -> None:
        if not callable(fn):
            raise TypeError(f"expected a residual function, got {type(fn).__name__}")
        for name in self.coordinates:
            if not isinstance(name, str) or not name.isidentifier():
                raise ValueError(f"residual {self.name}: expected coordinate names that are identifiers, got {name!r}")
        if not self.coordinates or len(set(self.coordinates)) != len(self.coordinates):
            raise ValueError(
                f"residual {self.name}: expected distinct coordinate names, at least one, got {self.coordinates}"
            )
        try:
            parameters = inspect.signature(fn).parameters
        except ValueError:
            raise TypeError(
                f"residual {self.name}: expected a function of Python with named parameters, got {fn!r}"
            ) from None
        for p in parameters.values():
            if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD, p.POSITIONAL_ONLY):
                raise TypeError(f"residual {self.name}: expected named parameters only, got {p}")
        if outputs is None:
            self.outputs = tuple(parameters)[:1]
        else:
            self.outputs = (outputs,) if isinstance(outputs, str) else tuple(outputs)
        if len(self.outputs) != 1:
            raise ValueError(f"residual {self.name}: expected exactly one output, got {self.outputs}")
        if self.outputs[0] not in parameters or self.outputs[0] == "at":
            raise ValueError(
                f"residual {self.name}: expected a parameter for the output"
                f"{'' if outputs is None else f' {self.outputs[0]!r}'}, got the parameters {tuple(parameters)}"
            )
        self.takes_at = "at" in parameters
        coefficients = [p for p in parameters.values() if p.name != "at" and p.name not in self.outputs]
        self.coefficients = {p.name: p.default for p in coefficients if p.default is not p.empty}
        self._missing = tuple(p.name for p in coefficients if p.default is p.empty)

    def bind(self, **coefficients: float | Tensor) -> Residual:
        """The same residual with coefficients fixed to numbers or constant tensors.

        Args:
            **coefficients: by parameter name: numbers, 0-d tensors, or tensors of shape (n,), aligned with the points.

        Returns:
            A new residual; binding again overrides.

        Raises:
            ValueError: a name that is no coefficient, or a tensor that requires grad.
            TypeError: a value that is neither a number nor a tensor.

        Example:
            >>> import ntkfast as ntk
            >>> heat = ntk.residual("t", "x")(lambda u, kappa: u.d(t=1) - kappa * u.d(x=2))
            >>> heat.bind(kappa=0.3).coefficients
            {'kappa': 0.3}
        """
        known = (*self._missing, *self.coefficients)
        for name, value in coefficients.items():
            if name not in known:
                raise ValueError(f"residual {self.name}: expected a coefficient out of {known}, got {name!r}")
            if isinstance(value, Tensor):
                if value.requires_grad:
                    raise ValueError(
                        f"residual {self.name}: expected a constant for coefficient {name!r}, got one needing grad"
                    )
            elif not isinstance(value, numbers.Real):
                raise TypeError(
                    f"residual {self.name}: expected a number or a tensor for coefficient {name!r}, "
                    f"got {type(value).__name__}"
                )
        if self.fn is None or not coefficients:
            return self
        return Residual(functools.partial(self.fn, **coefficients), self.coordinates, self.outputs)

    def __call__(self, net: nn.Module, points: Tensor) -> Tensor:
        """The rows at the points, forward only, connected to the parameters by autograd.

        Args:
            net: the network.
            points: (n, d), float32 or float64, in raw coordinates; constants, also where they require grad.

        Returns:
            The rows, (n,); for k > 1 rows per point (n·k,), point-major.
        """
        from ntkfast.factors import rows_of

        return rows_of(net, points, self)

    def aligned(self, n: int) -> dict[str, Tensor]:
        """The coefficients that have one entry for each of n points, by name."""
        return {k: c for k, c in self.coefficients.items() if isinstance(c, Tensor) and c.ndim > 0 and len(c) == n}

    def __getitem__(self, index: int) -> Residual:
        """One output of the network: ``ntk.value[3]``.

        Raises:
            TypeError: for any other residual than `value`, or an index that is no int.
            ValueError: a negative index.
        """
        if self.fn is not None or self.index is not None:
            raise TypeError(f"expected ntk.value[{index!r}], got an index on the residual {self.name}")
        if type(index) is not int:
            raise TypeError(f"ntk.value: expected an int as the index, got {index!r}")
        if index < 0:
            raise ValueError(f"ntk.value: expected an index of at least 0, got {index}")
        return Residual(None, index=index)

    __iter__ = None  # by its index alone it would go on without end

    def __reduce__(self) -> tuple[Any, ...]:
        # The name of a decorated function finds the residual, not the function, so that pickle has to go by that name.
        fn, coefficients = _unbound(self.fn)
        path = (getattr(fn, "__module__", None), getattr(fn, "__qualname__", ""))
        known = _named(*path)
        if isinstance(known, Residual) and known.coordinates == self.coordinates:
            known_fn, known_coefficients = _unbound(known.fn)
            if known_fn is fn and known_coefficients.keys() <= coefficients.keys():
                return _bound, (*path, coefficients)
        return Residual, (self.fn, self.coordinates, self.outputs or None, self.index)

    def __repr__(self) -> str:
        if self.fn is None:
            return f"ntk.{self.name}"
        arguments = [*map(repr, self.coordinates), *(f"{k}={_brief(v)}" for k, v in self.coefficients.items())]
        return f"<residual {self.name}({', '.join(arguments)})>"


def residual(*coordinates: str, outputs: Sequence[str] | None = None) -> Callable[[Callable[..., Any]], Residual]:
    """Make a residual of a function of a jet: what its rows are, written as a formula.

    The parameters of the function are told apart by name:

    - The first is the network's output ``u``. It stands for its own value (``u**3``, ``torch.sin(u)``), and has
      derivatives with respect to the raw input columns: ``u.d(x=1)``, ``u.d(t=2)``, of order 0, 1 or 2 along one
      coordinate (mixed ones do not exist), and ``u.laplacian("x", "y")``, the sum of second ones (no name: all).
    - ``at`` is the points: ``at.x``, (n,), for each coordinate, and for each further column of ``ntk.Points``. Points
      are constants, also where they require grad: no gradient goes back to them.
    - Every other one is a coefficient: a default, or a number or tensor given by ``bind``.

    It returns one number per point, or a dict of them by component: then a point has several rows. What switches on
    values is written as ``torch.where(u > 0, a, b)`` with the derivatives in a and b; a factor of them may not switch.
    That is refused, on a GPU only where a trial on random values meets it: beyond that the host would have to wait, and
    rows become NaN.

    Args:
        *coordinates: names of the input columns, in order.
        outputs: the name of the network's output, or None: the first parameter is the output.

    Returns:
        A decorator that turns the function into a `Residual`.

    Raises:
        TypeError: used without its parentheses or with names that are no strings.

    Cost: the function runs once for each kernel asked for, on a recorder; its derivatives are found by one sweep.

    Example:
        >>> import torch
        >>> import ntkfast as ntk
        >>> @ntk.residual("t", "x")
        ... def wave(u):
        ...     return u.d(t=2) - 4.0 * u.d(x=2)
        >>> wave
        <residual wave('t', 'x')>

        ``at``: the points, here as a source; and the Laplacian.

        >>> @ntk.residual("x", "y")
        ... def poisson(u, at):
        ...     return u.laplacian("x", "y") + torch.sin(at.x) * torch.sin(at.y)

        Coefficients, with a value from ``bind``, which returns a new residual.

        >>> @ntk.residual("t", "x")
        ... def heat(u, kappa):
        ...     return u.d(t=1) - kappa * u.d(x=2)
        >>> heat.bind(kappa=0.3)
        <residual heat('t', 'x', kappa=0.3)>

        A dict: two rows for each point, from one sweep.

        >>> @ntk.residual("t", "x")
        ... def start(u, at):
        ...     return {"u": u - torch.sin(at.x), "ut": u.d(t=1)}
        >>> start(ntk.MLP([2, 8, 1]), torch.rand(5, 2)).shape
        torch.Size([10])
    """
    for name in coordinates:
        if not isinstance(name, str):
            raise TypeError(f'expected coordinate names, as in @ntk.residual("t", "x"), got {name!r}')
    return lambda fn: Residual(fn, coordinates, outputs)


value = Residual(None)


def check_points(residual: Residual, points: Tensor, *, finite: bool = True) -> None:
    """Refuse points on which the residual has no rows.

    Args:
        residual: the residual.
        points: (n, d), float32 or float64.
        finite: look at the numbers too (this waits for the device).

    Raises:
        TypeError: no tensor, or neither float32 nor float64.
        ValueError: not two-dimensional, a wrong number of columns, or NaN or infinite entries.
    """
    if not isinstance(points, Tensor):
        raise TypeError(
            f"residual {residual.name}: expected points as a tensor of shape (n, d), got {type(points).__name__}"
        )
    if points.dtype not in _DTYPES:
        raise TypeError(f"residual {residual.name}: expected points in float32 or float64, got {points.dtype}")
    if points.ndim != 2:
        raise ValueError(f"residual {residual.name}: expected points of shape (n, d), got shape {tuple(points.shape)}")
    names = residual.coordinates
    if names and points.shape[1] != len(names):
        raise ValueError(
            f"residual {residual.name}: expected points with {len(names)} columns {names}, got {points.shape[1]}"
        )
    if finite:
        check_finite(f"residual {residual.name}", points)


def check_names(owner: str, coordinates: Sequence[str], columns: Mapping[str, Any]) -> None:
    """Refuse further columns that have the name of a coordinate: ``at.x`` could mean either.

    Raises:
        ValueError: names the column.
    """
    for name in coordinates:
        if name in columns:
            raise ValueError(
                f"{owner}: expected columns with other names than the coordinates {tuple(coordinates)}, got {name!r}"
            )


def check_finite(owner: str, points: Tensor) -> None:
    """Refuse NaN and infinite points; this waits for the device, so a step that is being captured is not looked at.

    Raises:
        ValueError: it names the owner, and the first row that is not finite.
    """
    if points.is_cuda and torch.cuda.is_current_stream_capturing():
        return
    points = points.detach()
    # A finite sum rules out NaN and infinity in one pass; only another one, which may be overflow, needs a second look.
    if not math.isfinite(points.sum()) and not bool(points.isfinite().all()):
        bad = int((~points.isfinite().all(1)).nonzero()[0, 0])
        raise ValueError(f"{owner}: expected finite points, got {points[bad].tolist()} in row {bad}")


def _unbound(fn: Any) -> tuple[Any, dict[str, Any]]:
    """The function that was decorated, and what it has been bound to since."""
    if isinstance(fn, functools.partial) and not fn.args:
        return fn.func, dict(fn.keywords)  # a partial of a partial is one of the function
    return fn, {}


def _named(module: str | None, path: str) -> Any:
    """What a module has under a name, or under names below names (``A.b``); None if nothing."""
    found: Any = sys.modules.get(module or "")
    for name in path.split("."):
        found = getattr(found, name, None)
    return found


def _bound(module: str, path: str, coefficients: dict[str, Any]) -> Residual:
    importlib.import_module(module)
    return _named(module, path).bind(**coefficients)


def _name(fn: Any) -> str:
    while isinstance(fn, functools.partial):
        fn = fn.func
    return getattr(fn, "__name__", type(fn).__name__)


def _brief(v: Any) -> str:
    return f"tensor{tuple(v.shape)}" if isinstance(v, Tensor) and v.ndim else repr(v)
