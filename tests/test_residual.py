"""Residuals: how parameters are told apart, binding, and what is refused."""

import copy
import pickle

import pytest
import torch

from ntkfast.factors import factors
from ntkfast.networks import MLP
from ntkfast.residual import Residual, check_finite, check_points, residual, value
from ntkfast.trace import trace


@residual("t", "x")
def wave(u):
    """The wave operator."""
    return u.d(t=2) - 4.0 * u.d(x=2)


@residual("t", "x")
def heat(u, at, kappa, power=2):
    return u.d(t=1) - kappa * u.d(x=2) - at.x**power


def test_parameters_are_told_apart_by_name():
    assert (wave.outputs, wave.takes_at, wave.coefficients) == (("u",), False, {})
    assert (heat.outputs, heat.takes_at, heat.coefficients) == (("u",), True, {"power": 2})
    shuffled = Residual(lambda at, kappa, w: w, ("x",), outputs=("w",))
    assert shuffled.outputs == ("w",) and shuffled.takes_at
    assert Residual(lambda w: w, ("x",), outputs="w").outputs == ("w",)


def test_attributes_and_repr():
    assert wave.coordinates == ("t", "x") and wave.index is None and callable(wave.fn)
    assert repr(wave) == "<residual wave('t', 'x')>"
    assert repr(heat.bind(kappa=torch.ones(3))) == "<residual heat('t', 'x', kappa=tensor(3,), power=2)>"
    assert wave.fn.__doc__ == "The wave operator."


def test_value_is_the_outputs_themselves():
    assert value.fn is None and value.index is None and value.coordinates == () and repr(value) == "ntk.value"
    assert value[3].fn is None and value[3].index == 3 and repr(value[3]) == "ntk.value[3]"
    assert value.bind() is value


def test_bind_makes_a_new_residual_and_binding_again_overrides():
    first = heat.bind(kappa=0.3)
    second = first.bind(kappa=0.5, power=3)
    assert heat.coefficients == {"power": 2}
    assert first.coefficients == {"kappa": 0.3, "power": 2}
    assert second.coefficients == {"kappa": 0.5, "power": 3}
    assert first.name == "heat" and first.coordinates == ("t", "x") and first.takes_at


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: residual("t", "t")(lambda u: u), ValueError, "distinct coordinate names"),
        (lambda: residual()(lambda u: u), ValueError, "at least one"),
        (lambda: residual("a b")(lambda u: u), ValueError, "identifiers, got 'a b'"),
        (lambda: residual(lambda u: u), TypeError, "as in @ntk.residual"),
        (lambda: Residual(3, ("x",)), TypeError, "expected a residual function, got int"),
        (lambda: residual("x")(lambda *u: u), TypeError, r"named parameters only, got \*u"),
        (lambda: residual("x")(lambda u, /: u), TypeError, "named parameters only, got u"),
        (lambda: residual("x")(torch.sin), TypeError, "a function of Python with named parameters, got <built-in"),
        (lambda: residual("x")(lambda: 0), ValueError, r"exactly one output, got \(\)"),
        (lambda: residual("x")(lambda at, u: u), ValueError, "a parameter for the output"),
        (lambda: residual("x", outputs=("v",))(lambda u: u), ValueError, "output 'v'"),
        (lambda: residual("x", outputs=("u", "v"))(lambda u, v: u), ValueError, r"one output, got \('u', 'v'\)"),
        (lambda: heat.bind(nu=1.0), ValueError, r"\('kappa', 'power'\), got 'nu'"),
        (lambda: heat.bind(u=1.0), ValueError, "got 'u'"),
        (lambda: value.bind(c=1.0), ValueError, "got 'c'"),
        (lambda: heat.bind(kappa="1"), TypeError, "number or a tensor for coefficient 'kappa', got str"),
        (lambda: heat.bind(kappa=torch.nn.Parameter(torch.ones(()))), ValueError, "constant for coefficient 'kappa'"),
        (lambda: heat.bind(kappa=torch.ones((), requires_grad=True)), ValueError, "constant for coefficient 'kappa'"),
        (lambda: wave[0], TypeError, "got an index on the residual wave"),
        (lambda: value[1][0], TypeError, r"got an index on the residual value\[1\]"),
        (lambda: value["u"], TypeError, "expected an int as the index, got 'u'"),
        (lambda: value[-1], ValueError, "at least 0, got -1"),
    ],
)
def test_refuses_with_a_sentence(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("points", "error", "message"),
    [
        ([[0.0, 1.0]], TypeError, "tensor of shape .* got list"),
        (torch.zeros(3, 2, dtype=torch.int64), TypeError, "float32 or float64, got torch.int64"),
        (torch.zeros(3, 2, dtype=torch.float16), TypeError, "float32 or float64, got torch.float16"),
        (torch.zeros(2), ValueError, r"shape \(n, d\), got shape \(2,\)"),
        (torch.zeros(3, 1, 2), ValueError, r"got shape \(3, 1, 2\)"),
        (torch.zeros(3, 3), ValueError, r"2 columns \('t', 'x'\), got 3"),
        (torch.tensor([[0.0, 1.0], [0.0, float("nan")]]), ValueError, "finite points, got .*nan.* in row 1"),
        (torch.tensor([[0.0, float("-inf")]]), ValueError, "row 0"),
        (torch.tensor([[float("inf"), 0.0], [float("-inf"), 0.0]]), ValueError, "row 0"),
    ],
)
def test_check_points_refuses_with_a_sentence(points, error, message):
    with pytest.raises(error, match=message):
        check_points(wave, points)


def test_check_points_accepts_large_numbers_and_no_points():
    check_points(wave, torch.full((10, 2), 3e38))
    check_points(wave, torch.zeros(0, 2))
    check_points(value, torch.zeros(4, 784))


def test_captured_points_are_not_looked_at(monkeypatch):
    class Captured:
        is_cuda = True

        def detach(self):
            raise AssertionError("a captured step waits for nothing")

    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    check_finite("the wave", Captured())


def test_check_points_can_leave_the_numbers_alone():
    check_points(wave, torch.full((1, 2), float("nan")), finite=False)


@residual("x")
def advection(u, speed):
    return speed * u.d(x=1)


def plain(u):
    return u * u


def equal(a, b):
    assert (a.coordinates, a.outputs, a.index, a.name) == (b.coordinates, b.outputs, b.index, b.name)
    assert list(a.coefficients) == list(b.coefficients)
    assert all(
        bool((torch.as_tensor(c) == torch.as_tensor(b.coefficients[k])).all()) for k, c in a.coefficients.items()
    )
    return True


def test_residuals_of_a_module_can_be_pickled():
    speeds = torch.tensor([1.0, 2.0])
    kept = (advection, advection.bind(speed=2.0), advection.bind(speed=1.0).bind(speed=speeds))
    for one in (*kept, value, value[3], Residual(plain, ("x",)), Residual(plain, ("y",))):
        back = pickle.loads(pickle.dumps(one))
        assert equal(back, one)
        net, points = torch.nn.Linear(1, 4 if one.fn is None else 1), torch.rand(2, 1)
        if not one._missing:
            assert torch.equal(back(net, points), one(net, points))
        assert equal(copy.deepcopy(one), one)


def test_what_its_module_has_under_its_name_need_not_be_it(monkeypatch):
    bound = advection.bind(speed=3.0)
    monkeypatch.setitem(globals(), "advection", bound)
    assert pickle.loads(pickle.dumps(bound)).coefficients == {"speed": 3.0}
    assert pickle.loads(pickle.dumps(bound.bind(speed=4.0))).coefficients == {"speed": 4.0}
    with pytest.raises(pickle.PicklingError):
        pickle.dumps(Residual(bound.fn.func, ("x",)))


@pytest.mark.parametrize("function", [lambda u, at: u.d(t=1) - at.x, lambda u, at: at.x * torch.sin(u)])
def test_points_are_constants_also_where_they_require_grad(function):
    net, x = MLP([2, 4, 1], dtype=torch.float64), torch.rand(5, 2, dtype=torch.float64, requires_grad=True)
    made = residual("t", "x")(function)
    for rows in (made(net, x), factors(net, x, made).rows):
        assert torch.equal(rows, made(net, x.detach()))
        rows.sum().backward()
    assert x.grad is None and all(p.grad is not None for p in net.parameters())


def test_the_outputs_cannot_be_iterated_over():
    with pytest.raises(TypeError, match="not iterable"):
        iter(value)


@pytest.mark.parametrize("function", [lambda u, kappa: kappa * u**2, lambda u, kappa: kappa * u.d(x=1)])
def test_coefficients_may_be_made_in_inference_mode(function):
    net, x = torch.nn.Linear(2, 1).double(), torch.rand(5, 2, dtype=torch.float64)
    made = residual("t", "x")(function)
    expected = trace(net, x, made.bind(kappa=torch.arange(5.0, dtype=torch.float64)))
    with torch.inference_mode():
        bound = made.bind(kappa=torch.arange(5.0, dtype=torch.float64))
        assert torch.equal(trace(net, x, bound), expected)
    assert torch.equal(trace(net, x, bound), expected)
    rows, sums = [], []
    for mode in (False, True):
        with torch.inference_mode(mode):
            bound = made.bind(kappa=torch.arange(5.0, dtype=torch.float64))
        rows.append(bound(net, x))
        sums.append(torch.autograd.grad(rows[-1].sum(), list(net.parameters()), allow_unused=True)[0])
    assert torch.equal(*rows) and torch.equal(*sums)
