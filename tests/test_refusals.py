"""Bad input gets one sentence that says what was expected and what came, whichever verb it is given to."""

import contextlib

import numpy as np
import pytest
import torch
from cases import Case, heat, mlp, randomized, u_t, uniform, wave
from torch import nn

import ntkfast as ntk
from ntkfast.memory import parse_memory

TANH = Case("tanh", lambda: mlp(nn.Tanh), wave)
VERBS = [ntk.trace, ntk.diag, ntk.gram, ntk.factors]


def gram_in_float64(*args):
    return ntk.gram(*args, dtype=torch.float64)


def drift(net, *args):
    return ntk.kernel_drift(net, net, *args)


@pytest.fixture(params=VERBS, ids=lambda verb: verb.__name__)
def verb(request: pytest.FixtureRequest):
    return request.param


@pytest.fixture(
    params=[*VERBS, ntk.spectrum, ntk.NTKOperator, ntk.check, gram_in_float64, drift], ids=lambda verb: verb.__name__
)
def any_verb(request: pytest.FixtureRequest):
    return request.param


@contextlib.contextmanager
def refused(*words: str, error=(ValueError, TypeError)):
    with pytest.raises(error) as caught:
        yield
    message = str(caught.value)
    assert "\n" not in message.strip() and len(message.split()) >= 4, message
    for word in words:
        assert word.lower() in message.lower(), f"{word!r} not in: {message}"


@pytest.mark.parametrize("columns", [1, 3])
def test_wrong_number_of_columns(any_verb, columns):
    with refused("2", f"{columns}", "expected", "got", error=ValueError):
        any_verb(TANH.net(), uniform(5, columns), wave)
    with refused("2", f"{columns}", "expected", "got", error=ValueError):
        any_verb(TANH.net(), uniform(5, columns), ntk.value)
    with refused("2", f"{columns}", "expected", "got", error=ValueError):
        any_verb(TANH.net(), {"u": (uniform(5), wave), "r": (uniform(5, columns), ntk.value)})


def test_residual_with_other_columns_than_the_network(any_verb):
    with refused("2", "3", error=ValueError):
        any_verb(randomized(mlp(nn.Tanh, (3, 4, 1))), uniform(5, 3), wave)


@pytest.mark.parametrize("points", [torch.rand(2, dtype=torch.float64), torch.rand(2, 2, 2, dtype=torch.float64)])
def test_points_of_other_than_two_dimensions(any_verb, points):
    with refused("expected", "got", error=ValueError):
        any_verb(TANH.net(), points)


@pytest.mark.parametrize("points", [[[0.0, 0.0]], None, "points"])
def test_points_that_are_no_tensor(any_verb, points):
    with refused("tensor", "got", error=TypeError):
        any_verb(TANH.net(), points)


def test_an_unknown_coordinate(any_verb):
    derivative = ntk.residual("t", "x")(lambda u: u.d(z=1))
    with refused("expected", "('t', 'x')", "'z'", error=ValueError):
        any_verb(TANH.net(), TANH.points(), derivative)
    position = ntk.residual("t", "x")(lambda u, at: u * at.z)
    with refused("expected a column out of ('t', 'x'), got at.z", error=ValueError):
        any_verb(TANH.net(), TANH.points(), position)


def test_a_column_named_like_a_coordinate(verb):
    with refused("columns", "coordinates", "'x'", error=ValueError):
        verb(TANH.net(), ntk.Points(TANH.points(), x=TANH.points()[:, 0]), wave)


def test_points_in_another_floating_type_than_the_network(verb):
    with refused("float64", "float32"):
        verb(TANH.net(), TANH.points(torch.float32), wave)
    with refused("float64", "float32"):
        verb(TANH.net(torch.float32), TANH.points(), ntk.value)


def test_points_on_another_device_than_the_network(verb):
    with refused("meta", "cpu"):
        verb(TANH.net(), TANH.points().to("meta"), wave)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("residual", [ntk.value, wave], ids=["value", "wave"])
def test_points_that_are_not_finite(any_verb, residual, bad):
    x = TANH.points()
    x[7, 1] = bad
    with refused("finite", "7", error=ValueError):
        any_verb(TANH.net(), x, residual)


def test_large_finite_points_are_finite(verb):
    x = torch.full((4, 2), 1e308, dtype=torch.float64)  # their sum is not
    verb(TANH.net(), x, ntk.value)


def test_workspaces_that_are_none():
    for verb in (ntk.factors, lambda *args, **more: ntk.loss_gradient(args[0], {"u": args[1:]}, **more)):
        with refused("Workspace", "int", error=TypeError):
            verb(TANH.net(), TANH.points(), ntk.value, workspace=3)


def test_points_with_columns_that_are_no_tensors():
    for wrong in (lambda: ntk.Points([[0.0, 1.0]]), lambda: ntk.Points(TANH.points(), nx=[1.0])):
        with refused("tensor", "list", error=TypeError):
            wrong()


def test_drift_of_what_is_no_network():
    with refused("Module", "int", error=TypeError):
        ntk.parameter_drift(1, 2)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.bool])
def test_points_that_are_no_floats(any_verb, dtype):
    with refused("float", "got"):
        any_verb(TANH.net(), torch.ones(3, 2, dtype=dtype), wave)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(any_verb, dtype):
    with refused("float32", "got"):
        any_verb(TANH.net().to(dtype), TANH.points().to(dtype), ntk.value)


def test_a_second_derivative_of_relu(any_verb):
    net = randomized(mlp(nn.ReLU))
    with refused("ReLU", "second", error=ValueError):
        any_verb(net, TANH.points(), wave)
    with refused("ReLU", "second", error=ValueError):
        any_verb(net, {"u": (TANH.points(), ntk.value), "r": (TANH.points(), heat.bind(kappa=0.1))})
    any_verb(net, TANH.points(), ntk.value)


def test_a_layer_that_is_not_native_is_named(any_verb):
    net = nn.Sequential(nn.Linear(2, 4), nn.LayerNorm(4), nn.Linear(4, 1)).double()
    with refused("LayerNorm", "'1'", error=ValueError):
        any_verb(net, TANH.points())


def test_a_network_that_is_no_module(any_verb):
    with refused("Module", "function", error=TypeError):
        any_verb(lambda x: x, TANH.points())


def test_rows_of_a_wrong_shape(any_verb):
    x = TANH.points()
    for wrong, shape in (
        (lambda u: torch.sum(u.d(t=1)), "()"),
        (lambda u: torch.stack([torch.sin(u), torch.cos(u)], 1), f"({len(x)}, 2)"),
    ):
        with refused(f"expected rows of shape ({len(x)},), got {shape}", error=ValueError):
            any_verb(TANH.net(), x, ntk.residual("t", "x")(wrong))


def test_values_by_an_index_of_several_axes(any_verb):
    for wrong in (lambda u: u[:, 0], lambda u: (u**2)[:, 0], lambda u: u.d(x=1)[..., 0, 0]):
        with refused("expected u and its derivatives as they are, (n,)", "got an index of several axes"):
            any_verb(TANH.net(), TANH.points(), ntk.residual("t", "x")(wrong))


def test_points_by_an_index(any_verb):
    with refused("expected a function of at, the points by column, as in at.x, got at[…]", error=TypeError):
        any_verb(TANH.net(), TANH.points(), ntk.residual("t", "x")(lambda u, at: u * at[:, 0]))


def test_functions_of_numpy(any_verb):
    for wrong in (lambda u: np.sin(u), lambda u: np.sin(u**2), lambda u: np.add(u, 1.0)):
        with refused("expected a torch function, as in torch.sin(u), got one of NumPy", error=TypeError):
            any_verb(TANH.net(), TANH.points(), ntk.residual("t", "x")(wrong))


def test_an_error_of_the_function_itself_is_its_own(any_verb):
    def wrong(u):
        return [u][1]

    with pytest.raises(IndexError, match="list index out of range"):
        any_verb(TANH.net(), TANH.points(), ntk.residual("t", "x")(wrong))


def test_a_coefficient_without_a_value(any_verb):
    with refused("expected a value for every coefficient, got none for kappa", error=ValueError):
        any_verb(TANH.net(), TANH.points(), heat)


@pytest.mark.parametrize("group", [torch.rand(3, 2, dtype=torch.float64), (wave,), None])
def test_a_group_that_is_no_pair(any_verb, group):
    with refused("group 'r': expected (points, residual), got", error=TypeError):
        any_verb(TANH.net(), {"r": group})


@pytest.mark.parametrize("verb", [ntk.trace, ntk.diag, ntk.gram], ids=lambda verb: verb.__name__)
class TestOptions:
    @pytest.mark.parametrize("wrt", ["7.weight", ["1.weight", "nothing"], []])
    def test_patterns_without_a_match(self, verb, wrt):
        with refused("wrt", "1.weight", error=ValueError):
            verb(TANH.net(), TANH.points(), wave, wrt=wrt)

    @pytest.mark.parametrize("memory", [1, 100, "1KB"])
    def test_a_budget_below_the_least(self, verb, memory):
        with refused("memory: expected at least", f"got {parse_memory(memory)}", error=ValueError):
            verb(TANH.net(), TANH.points(n=200), wave, memory=memory)

    def test_the_least_budget_is_stated_and_enough(self, verb):
        net, x = TANH.net(), TANH.points(n=200)
        with pytest.raises(ValueError) as caught:
            verb(net, x, wave, memory=1)
        numbers = [int(word) for word in str(caught.value).replace(",", "").replace("_", "").split() if word.isdigit()]
        least = max(numbers)
        assert 1 < least <= 2**20
        free = verb(net, x, wave)
        torch.testing.assert_close(verb(net, x, wave, memory=least), free, rtol=1e-12, atol=0)

    @pytest.mark.parametrize("memory", ["much", "MB", "12 parsecs", -5, 0])
    def test_a_budget_that_is_no_size(self, verb, memory):
        with refused("memory", "got"):
            verb(TANH.net(), TANH.points(), wave, memory=memory)


def test_an_output_that_the_network_does_not_have(verb):
    with refused("expected an output below 3, got ntk.value[3]", error=ValueError):
        verb(randomized(mlp(nn.Tanh, (2, 4, 3))), TANH.points(), ntk.value[3])


def test_the_network_is_usable_after_a_refusal(verb):
    net, x = TANH.net(), TANH.points()
    expected = ntk.diag(net, x, u_t)
    with refused():
        verb(net, x.float(), u_t)
    assert torch.equal(ntk.diag(net, x, u_t), expected)
