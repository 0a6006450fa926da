"""Forms: what stays lazy, what materialises, and what is refused."""

import math
import operator

import numpy as np
import pytest
import torch

from ntkfast.jet import Form, Jet
from ntkfast.residual import Residual
from ntkfast.tape import At, Survey

N = 5


class Tape(Survey):
    """A survey of a residual in (t, x) over five points, with its jet and its points."""

    def __init__(self):
        self.points = torch.rand(N, 2, dtype=torch.float64)
        super().__init__(Residual(lambda u: u, ("t", "x")), self.points)
        self.u = Jet(self)
        self.at = At(self.name, self.coordinates, self.points, {"nx": torch.ones(N)})


@pytest.fixture
def tape():
    return Tape()


U, U_T, U_X, U_TT, U_XX = (0, ()), (0, ((0, 1),)), (0, ((1, 1),)), (0, ((0, 2),)), (0, ((1, 2),))

LAZY = {
    "sum": (lambda u, at: u.d(t=1) + u.d(x=2), {U_T: 1.0, U_XX: 1.0}, 0.0),
    "difference": (lambda u, at: u - u.d(t=2), {U: 1.0, U_TT: -1.0}, 0.0),
    "cancel": (lambda u, at: 2 * u - u - u, {U: 0.0}, 0.0),
    "negative": (lambda u, at: -u.d(t=1), {U_T: -1.0}, 0.0),
    "positive": (lambda u, at: +u, {U: 1.0}, 0.0),
    "number on the left": (lambda u, at: 3 * u.d(x=1), {U_X: 3.0}, 0.0),
    "number on the right": (lambda u, at: u.d(x=1) * 3, {U_X: 3.0}, 0.0),
    "divided": (lambda u, at: (u.d(x=1) + 6) / 3, {U_X: 1 / 3}, 2.0),
    "zero": (lambda u, at: 0 * u.d(x=2), {}, 0.0),
    "shift": (lambda u, at: 1 - u, {U: -1.0}, 1.0),
    "NumPy number": (lambda u, at: np.float32(2) * u + np.float64(1), {U: 2.0}, 1.0),
    "0-d tensor": (lambda u, at: torch.tensor(2.0) * u - torch.tensor(1.0), {U: 2.0}, -1.0),
    "Laplacian": (lambda u, at: u.laplacian("t", "x"), {U_TT: 1.0, U_XX: 1.0}, 0.0),
    "Laplacian over all coordinates": (lambda u, at: u.laplacian(), {U_TT: 1.0, U_XX: 1.0}, 0.0),
    "value": (lambda u, at: u.value, {U: 1.0}, 0.0),
    "order zero": (lambda u, at: u.d(t=0, x=2), {U_XX: 1.0}, 0.0),
    "torch.add": (lambda u, at: torch.add(u, u.d(t=1)), {U: 1.0, U_T: 1.0}, 0.0),
    "torch.sub": (lambda u, at: torch.sub(1, torch.mul(u, 2)), {U: -2.0}, 1.0),
}


@pytest.mark.parametrize("name", LAZY)
def test_linear_arithmetic_stays_lazy(tape, name):
    function, terms, source = LAZY[name]
    form = function(tape.u, tape.at)
    assert isinstance(form, Form)
    assert form._terms == terms and form._source == source
    assert not tape.forms


def test_functions_of_the_points_stay_lazy(tape):
    u, at = tape.u, tape.at
    for form in (at.x * u.d(x=1), u.d(x=1) * at.x, torch.mul(at.x, u.d(x=1))):
        assert torch.equal(form._terms[U_X], at.x)
    assert torch.equal((u / at.x)._terms[U], 1 / at.x)
    for form in (u - torch.sin(at.t), -(torch.sin(at.t) - u)):
        assert form._terms == {U: 1.0}
        assert torch.equal(form._source, -torch.sin(at.t))
    assert torch.equal((at.x * (u - at.t))._source, -at.x * at.t)
    mask = (at.x > 0.5) * u
    assert mask._terms[U].dtype == torch.float64
    assert not tape.forms


MATERIALISED = {
    "product": (lambda u: u * u.d(x=1), [{U: 1.0}, {U_X: 1.0}]),
    "power": (lambda u: u**3, [{U: 1.0}]),
    "base": (lambda u: 2**u, [{U: 1.0}]),
    "reciprocal": (lambda u: 1 / u, [{U: 1.0}]),
    "quotient": (lambda u: u.d(x=1) / (u + 2), [{U_X: 1.0}, {U: 1.0}]),
    "function of a sum": (lambda u: torch.sin(u.d(t=1) - 2 * u.d(x=2)), [{U_T: 1.0, U_XX: -2.0}]),
    "method": (lambda u: u.square(), [{U: 1.0}]),
    "absolute": (lambda u: abs(u), [{U: 1.0}]),
    "remainder": (lambda u: u % 2, [{U: 1.0}]),
    "value times sum": (lambda u: torch.sin(u) * (u.d(t=1) + u.d(x=1)), [{U: 1.0}, {U_T: 1.0, U_X: 1.0}]),
    "sum over value": (lambda u: u.d(t=1) / torch.exp(u), [{U: 1.0}, {U_T: 1.0}]),
    "list of jets": (lambda u: torch.stack([u, u.d(t=1)]).sum(0), [{U: 1.0}, {U_T: 1.0}]),
    "condition": (lambda u: torch.where(u > 0, u, 0.0), [{U: 1.0}]),
    "comparisons": (lambda u: 1.0 * ((u < 1) | (u <= 1) | (u >= 1) | (u == 1) | (u != 1)), [{U: 1.0}]),
    "index": (lambda u: u[:], [{U: 1.0}]),
}


@pytest.mark.parametrize("name", MATERIALISED)
def test_everything_else_materialises_the_sum_that_it_touches(tape, name):
    function, forms = MATERIALISED[name]
    result = function(tape.u)
    assert isinstance(result, torch.Tensor) and result.shape == (N,)
    # A quotient evaluates its divisor first; the order is no promise.
    assert sorted(map(str, tape.forms)) == sorted(map(str, forms))


def test_materialised_values_join_the_source(tape):
    u = tape.u
    form = u.d(t=1) + u * u.d(x=1) - 0.1 * u.d(x=2)
    assert form._terms == {U_T: 1.0, U_XX: -0.1}
    assert form._source.requires_grad and form._source.shape == (N,)


def test_a_form_is_materialised_once(tape):
    u = tape.u
    _ = u * u + torch.sin(u) - u**2
    assert len(tape.forms) == 1


def test_what_needs_no_values_materialises_nothing(tape):
    u = tape.u
    assert u.shape == (N,) and u.ndim == 1 and len(u) == N and u.dtype == torch.float64 and u.device.type == "cpu"
    assert repr(u.d(t=1) - 2 * u.d(x=2) + 1) == "u0.d(t=1) + -2·u0.d(x=2) + 1"
    assert repr(0 * u) == "0" and repr(tape.at.x * u) == "a·u0" and repr(0 * u + tape.at.x) == "s"
    assert {u: 1}[u] == 1
    with pytest.raises(AttributeError):
        _ = u.__array_interface__
    assert not tape.forms


REFUSED = {
    "unknown coordinate": (lambda u, at: u.d(y=1), ValueError, r"expected a coordinate out of \('t', 'x'\), got 'y'"),
    "third order": (lambda u, at: u.d(x=3), ValueError, "order at most 2, got 3"),
    "third order in total": (lambda u, at: u.d(t=1, x=2), ValueError, "order at most 2, got 3"),
    "mixed": (lambda u, at: u.d(t=1, x=1), ValueError, r"got the mixed d\(t=1, x=1\)"),
    "negative order": (lambda u, at: u.d(t=-1), ValueError, "order ≥ 0 in .*got -1"),
    "fractional order": (lambda u, at: u.d(t=1.0), TypeError, "expected an int in d\\(t=…\\), got 1.0"),
    "no coordinate": (lambda u, at: u.d(), ValueError, "got nothing"),
    "a name by itself": (lambda u, at: u.d("x"), ValueError, r"as in u.d\(x=1\), got d\('x'\)"),
    "a name of a multiple": (lambda u, at: (2 * u).d("x"), ValueError, r"expected an output itself, .* in d\('x'\)"),
    "an attribute": (lambda u, at: u.dx, AttributeError, r"derivatives as in u.d\(x=1\), along one of t, x, got .dx"),
    "derivative of a multiple": (lambda u, at: (3 * u.d(x=1)).d(x=1), ValueError, "expected an output itself"),
    "Laplacian of a sum": (lambda u, at: (u + u.d(x=1)).laplacian("x"), ValueError, "expected an output itself"),
    "repeated name": (lambda u, at: u.laplacian("x", "x"), ValueError, "distinct"),
    "another place": (lambda u, at: u.at(x=1.0), ValueError, r"got u\.at"),
    "branch": (lambda u, at: 1 if u else 0, TypeError, "got a branch"),
    "float": (lambda u, at: math.sin(u), TypeError, "got a conversion to float"),
    "int": (lambda u, at: int(u), TypeError, "got a conversion to int"),
    "column vector": (lambda u, at: u * at.x[:, None], ValueError, r"shape \(5,\).* got shape \(5, 1\)"),
    "column vector added": (lambda u, at: at.x[:, None] - u, ValueError, r"shape \(5,\).* got shape \(5, 1\)"),
    "too few entries": (lambda u, at: u * at.x[:3], ValueError, r"got shape \(3,\)"),
    "text": (lambda u, at: u - "2", TypeError, "unsupported operand"),
    "complex": (lambda u, at: u + 1j, TypeError, "unsupported operand"),
    "array": (lambda u, at: np.ones(N) * u, TypeError, "unsupported operand"),
    "complex in torch": (lambda u, at: torch.mul(u, 1j), TypeError, "got Jet and complex"),
    "unknown column": (lambda u, at: u - at.y, ValueError, r"\('t', 'x', 'nx'\), got at\.y"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses_with_a_sentence(tape, name):
    function, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        function(tape.u, tape.at)


def test_points_are_copies(tape):
    before = tape.points.clone()
    tape.at.x.zero_()
    assert torch.equal(tape.points, before)
    assert tape.at.x is tape.at.x and tape.at.t.is_contiguous()


def test_further_columns_are_read_like_coordinates(tape):
    assert torch.equal(tape.at.nx, torch.ones(N))
    assert not hasattr(tape.at, "__length_hint__")


@pytest.mark.parametrize("op", [operator.add, operator.sub, operator.mul, operator.truediv])
def test_tensors_on_either_side_agree(tape, op):
    u, x = tape.u, tape.at.x
    left, right = op(x, u), op(u, x)
    for result in (left, right):
        assert result.shape == (N,)
