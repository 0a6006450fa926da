"""Jets: what a residual function sees of the network, kept as a linear form for as long as it is one.

A form is a finite sum of derivatives of the outputs with coefficients, and a source:

    Σ_(j,α) a_(j,α) ∂^α u_j + s

Sums, differences and multiples by numbers or by tensors that do not depend on the network stay forms, because the
whole linear part then travels as one collapsed channel. Everything else (products, powers, torch functions) needs
numbers: it materialises the form, which the tape answers with a tensor of shape (n,). The result is an ordinary tensor;
added to a form it becomes part of the source.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from .refusals import branch_message, conversion_message

# A derivative of one output: (output, ((coordinate, order), ...)); the value itself is (output, ()).
Term = tuple[int, tuple[tuple[int, int], ...]]
Coefficient = float | Tensor

MAX_ORDER = 2


class Tape(Protocol):
    """One run of a residual function: what its forms need to know about the points, and who materialises them."""

    name: str
    coordinates: dict[str, int]
    n: int
    dtype: torch.dtype
    device: torch.device

    def materialise(self, terms: dict[Term, Coefficient], source: Coefficient) -> Tensor:
        """The values of a form, (n,)."""
        ...


class Form:
    """A linear form in derivatives of the outputs, Σ a_(j,α) ∂^α u_j + s: one number per point, not computed yet.

    Arithmetic that is linear keeps it lazy; any other use (``*`` by a value, ``**``, ``torch.sin``, tensor methods)
    turns it into a tensor of shape (n,).
    """

    __slots__ = ("_tape", "_terms", "_source", "_tensor")
    __array_ufunc__ = None  # so that NumPy scalars on the left hand the operation over to us

    def __init__(self, tape: Tape, terms: dict[Term, Coefficient], source: Coefficient = 0.0) -> None:
        self._tape = tape
        self._terms = terms
        self._source = source
        self._tensor: Tensor | None = None

    def d(self, *names: str, **orders: int) -> Form:
        """Refuse: only an output itself can be differentiated, not a combination."""
        wanted = ", ".join([*map(repr, names), *(f"{name}={order}" for name, order in orders.items())])
        raise ValueError(
            f"residual {self._tape.name}: expected an output itself, as in u.d(x=2), in d({wanted}), "
            f"got the combination {self!r}; differentiate the outputs and combine their derivatives"
        )

    def laplacian(self, *names: str) -> Form:
        """Refuse: only an output itself can be differentiated, not a combination."""
        return self.d(**{name: 2 for name in names})

    # Linear arithmetic stays lazy.

    def __neg__(self) -> Form:
        return self._scaled(-1.0)

    def __pos__(self) -> Form:
        return self

    def __add__(self, other: Any) -> Form:
        return self._sum(other, 1.0)

    def __sub__(self, other: Any) -> Form:
        return self._sum(other, -1.0)

    def __radd__(self, other: Any) -> Form:
        return self._sum(other, 1.0)

    def __rsub__(self, other: Any) -> Form:
        return self._scaled(-1.0)._sum(other, 1.0)

    def __mul__(self, other: Any) -> Any:
        if isinstance(other, Form):
            return self._values() * other._values()
        factor = self._operand(other)
        if factor is None:
            return NotImplemented
        if isinstance(factor, Tensor) and factor.requires_grad:
            return self._values() * factor
        return self._scaled(factor)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Any:
        if isinstance(other, Form):
            return self._values() / other._values()
        divisor = self._operand(other)
        if divisor is None:
            return NotImplemented
        if isinstance(divisor, Tensor) and divisor.requires_grad:
            return self._values() / divisor
        return self._mapped(lambda c: c / divisor)

    def _sum(self, other: Any, sign: float) -> Form:
        if isinstance(other, Form):
            terms = dict(self._terms)
            for term, c in other._terms.items():
                c = c if sign == 1.0 else -c
                terms[term] = terms[term] + c if term in terms else c
            return Form(self._tape, terms, _plus(self._source, other._source, sign))
        source = self._operand(other)
        if source is None:
            return NotImplemented
        return Form(self._tape, self._terms, _plus(self._source, source, sign))

    def _scaled(self, factor: Coefficient) -> Form:
        if isinstance(factor, float) and factor == 0.0:
            return Form(self._tape, {})
        return self._mapped(lambda c: factor if isinstance(c, float) and c == 1.0 else c * factor)

    def _mapped(self, f: Callable[[Coefficient], Coefficient]) -> Form:
        source = self._source if isinstance(self._source, float) and self._source == 0.0 else f(self._source)
        return Form(self._tape, {term: f(c) for term, c in self._terms.items()}, source)

    def _operand(self, other: Any) -> Coefficient | None:
        """A number as float, a tensor fit to meet rows; None for what is neither."""
        if isinstance(other, Tensor):
            return self._checked(other)
        if isinstance(other, numbers.Real):
            return float(other)
        return None

    def _checked(self, tensor: Tensor) -> Coefficient:
        tape = self._tape
        if tensor.ndim == 0:
            # Reading a number that lives on the host costs nothing and keeps the coefficient constant.
            if not tensor.requires_grad and tensor.device.type == "cpu":
                return float(tensor)
        elif tensor.ndim != 1 or tensor.shape[0] not in (1, tape.n):
            raise ValueError(
                f"residual {tape.name}: expected a number or a tensor of shape ({tape.n},), one entry per point, "
                f"got shape {tuple(tensor.shape)}"
            )
        if tensor.device != tape.device and tensor.ndim:
            raise ValueError(f"residual {tape.name}: expected a tensor on {tape.device}, got one on {tensor.device}")
        return (
            tensor
            if tensor.dtype == tape.dtype and tensor.device == tape.device
            else tensor.to(tape.device, tape.dtype)
        )

    # Everything else materialises.

    def _values(self) -> Tensor:
        if self._tensor is None:
            self._tensor = self._tape.materialise(self._terms, self._source)
        return self._tensor

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        linear = _LINEAR.get(getattr(func, "__name__", ""))
        if linear is not None and len(args) == 2 and not kwargs:
            left, right = linear
            a, b = args
            result = getattr(a, left)(b) if isinstance(a, Form) else getattr(b, right)(a)
            if result is NotImplemented:
                raise TypeError(f"expected numbers, tensors or jets, got {type(a).__name__} and {type(b).__name__}")
            return result
        return func(*_materialised(args), **_materialised(dict(kwargs or {})))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        if not hasattr(Tensor, name):
            known, of = ", ".join(self._tape.coordinates), f"residual {self._tape.name}"
            raise AttributeError(f"{of}: expected derivatives as in u.d(x=1), along one of {known}, got .{name}")
        return getattr(self._values(), name)

    def __pow__(self, other: Any) -> Tensor:
        return self._values() ** other

    def __rpow__(self, other: Any) -> Tensor:
        return other ** self._values()

    def __rtruediv__(self, other: Any) -> Tensor:
        return other / self._values()

    def __abs__(self) -> Tensor:
        return self._values().abs()

    def __mod__(self, other: Any) -> Tensor:
        return self._values() % other

    def __lt__(self, other: Any) -> Tensor:
        return self._values() < other

    def __le__(self, other: Any) -> Tensor:
        return self._values() <= other

    def __gt__(self, other: Any) -> Tensor:
        return self._values() > other

    def __ge__(self, other: Any) -> Tensor:
        return self._values() >= other

    def __eq__(self, other: Any) -> Tensor:  # type: ignore[override]
        return self._values() == other

    def __ne__(self, other: Any) -> Tensor:  # type: ignore[override]
        return self._values() != other

    __hash__ = object.__hash__

    def __getitem__(self, index: Any) -> Tensor:
        return self._values()[index]

    def __len__(self) -> int:
        return self._tape.n

    def __bool__(self) -> bool:
        raise TypeError(branch_message(self._tape.name))

    def __float__(self) -> float:
        raise TypeError(conversion_message(self._tape.name, "to float"))

    def __int__(self) -> int:
        raise TypeError(conversion_message(self._tape.name, "to int"))

    # What is known without values.

    ndim = 1

    @property
    def shape(self) -> torch.Size:
        """(n,)."""
        return torch.Size((self._tape.n,))

    @property
    def dtype(self) -> torch.dtype:
        """That of the points."""
        return self._tape.dtype

    @property
    def device(self) -> torch.device:
        """That of the points."""
        return self._tape.device

    def __repr__(self) -> str:
        names = list(self._tape.coordinates)
        parts = []
        for (output, alpha), c in self._terms.items():
            orders = ", ".join(f"{names[i]}={k}" for i, k in alpha)
            factor = "a·" if isinstance(c, Tensor) else "" if c == 1.0 else f"{c:g}·"
            parts.append(f"{factor}u{output}" + (f".d({orders})" if orders else ""))
        if isinstance(self._source, Tensor) or self._source != 0.0 or not parts:
            parts.append("s" if isinstance(self._source, Tensor) else f"{self._source:g}")
        return " + ".join(parts)


class Jet(Form):
    r"""One output of the network with its derivatives: what a residual function gets for each of its outputs.

    .. math:: u.d(x{=}k) = \partial^k u / \partial x^k

    It stands for its own value wherever a value is expected. Made by the recorder, never by hand.

    Example:
        >>> import ntkfast as ntk
        >>> @ntk.residual("t", "x")
        ... def burgers(u):
        ...     return u.d(t=1) + u * u.d(x=1) - 0.01 * u.d(x=2)
    """

    __slots__ = ("_output",)

    def __init__(self, tape: Tape, output: int = 0) -> None:
        super().__init__(tape, {(output, ()): 1.0})
        self._output = output

    @property
    def value(self) -> Jet:
        """The output itself."""
        return self

    def d(self, *names: str, **orders: int) -> Form:
        """The derivative of the given order along a coordinate, ∂ᵏu/∂xᵏ, lazily.

        Args:
            *names: none; a name by itself is refused.
            **orders: coordinate name = order, one coordinate, order at most 2 (``u.d(t=2)``).

        Returns:
            A form, one number per point, in units of u over the unit of the coordinate to that order.

        Raises:
            ValueError: unknown coordinate, a mixed derivative, or an order outside 0 … 2.
            TypeError: an order that is not an int.
        """
        known, alpha = self._tape.coordinates, []
        if names or not orders:
            got = f"d({', '.join(map(repr, names))})" if names else "nothing"
            raise ValueError(f"residual {self._tape.name}: expected a coordinate = an order, as in u.d(x=1), got {got}")
        for name, order in orders.items():
            if name not in known:
                raise ValueError(
                    f"residual {self._tape.name}: expected a coordinate out of {tuple(known)}, got {name!r} in d()"
                )
            if type(order) is not int:
                raise TypeError(f"residual {self._tape.name}: expected an int in d({name}=…), got {order!r}")
            if order < 0:
                raise ValueError(f"residual {self._tape.name}: expected an order ≥ 0 in d({name}=…), got {order}")
            if order:
                alpha.append((known[name], order))
        total = sum(order for _, order in alpha)
        if total > MAX_ORDER:
            raise ValueError(
                f"residual {self._tape.name}: expected derivatives of order at most {MAX_ORDER}, got {total} in d()"
            )
        if len(alpha) > 1:
            mixed = ", ".join(f"{name}={order}" for name, order in orders.items())
            raise ValueError(
                f"residual {self._tape.name}: expected a derivative along one coordinate, got the mixed d({mixed})"
            )
        return Form(self._tape, {(self._output, tuple(alpha)): 1.0})

    def laplacian(self, *names: str) -> Form:
        """The Laplacian Σ ∂²u/∂xᵢ² over the named coordinates, one channel whatever their number.

        Args:
            *names: distinct coordinate names; none means all coordinates.

        Returns:
            A form, one number per point.

        Raises:
            ValueError: a repeated or an unknown name.
        """
        names = names or tuple(self._tape.coordinates)
        if len(set(names)) != len(names):
            raise ValueError(f"residual {self._tape.name}: laplacian() expects distinct coordinate names, got {names}")
        form = self.d(**{names[0]: 2})
        for name in names[1:]:
            form = form + self.d(**{name: 2})
        return form

    def at(self, **columns: float) -> Form:
        """Refuse: the value at another place is not available."""
        raise ValueError(
            f"residual {self._tape.name}: expected derivatives and values at the points themselves, got u.at(…)"
        )


def _plus(a: Coefficient, b: Coefficient, sign: float) -> Coefficient:
    if isinstance(b, float) and b == 0.0:
        return a
    if isinstance(a, float) and a == 0.0:
        return b if sign == 1.0 else -b
    return a + b if sign == 1.0 else a - b


def _materialised(value: Any) -> Any:
    if isinstance(value, Form):
        return value._values()
    if type(value) in (tuple, list):
        return type(value)(_materialised(v) for v in value)
    if isinstance(value, dict):
        return {k: _materialised(v) for k, v in value.items()}
    return value


# Functions that torch hands to us and that stay lazy: the method of a form on the left, and of one on the right.
_LINEAR: dict[str, tuple[str, str]] = {
    "add": ("__add__", "__radd__"),
    **dict.fromkeys(("sub", "subtract"), ("__sub__", "__rsub__")),
    **dict.fromkeys(("mul", "multiply"), ("__mul__", "__rmul__")),
    **dict.fromkeys(("div", "divide", "true_divide"), ("__truediv__", "__rtruediv__")),
}
