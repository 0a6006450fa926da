"""A plan adds up to the cost model, and gives the reason where there is nothing to plan."""

import pytest
import torch
from torch import nn

from ntkfast import _C
from ntkfast.contraction import paths
from ntkfast.cost import gram_cost, sweep_cost, trace_cost
from ntkfast.networks import MLP
from ntkfast.plan import plan
from ntkfast.problems import Points
from ntkfast.residual import residual, value
from ntkfast.sweep import chain_args, group_args


@residual("t", "x")
def wave(u):
    return u.d(t=2) - 4.0 * u.d(x=2)


@residual("t", "x")
def pair(u):
    return {"rate": u.d(t=1), "wave": u.d(t=2) - 4.0 * u.d(x=2)}


SIZES = (2, 500, 500, 500, 1)
PAIRS = list(zip(SIZES[:-1], SIZES[1:], strict=True))


def test_the_plan_of_the_paper_network():
    found = plan(MLP(SIZES), wave, n=300)
    assert found.native and found.reason == ""
    assert (found.points, found.rows, found.channels, found.sweep_channels) == (300, 300, (("", 4),), 4)
    assert [layer.path for layer in found.layers] == ["explicit", "structured", "structured", "explicit"]
    assert found.totals() == (
        sum(sweep_cost(*p, 4, 300) for p in PAIRS),
        sum(trace_cost(*p, 4, 300) for p in PAIRS),
        sum(gram_cost(layer.path, *p, 4, 300) for p, layer in zip(PAIRS, found.layers, strict=True)),
    )
    assert dict(found.memory) == {
        "factors": 4 * 300 * 4 * sum(a + b for a, b in PAIRS),
        "gram": 4 * 300 * 300,
        "jacobian": 4 * 300 * 503_001,
    }


def test_it_is_shown_as_a_table():
    text = str(plan(MLP([2, 50, 1], "softplus"), wave, n=10))
    assert text == repr(plan(MLP([2, 50, 1], "softplus"), wave, n=10))
    head, titles, first, second, total, *_ = text.splitlines()
    assert head == "10 points, 10 rows, torch.float32; channels 4 (sweep: 4)"
    assert titles.split()[:4] == ["layer", "in", "out", "activation"]
    assert first.split()[:4] == ["0", "2", "50", "softplus"]
    assert second.split()[:4] == ["2", "50", "1", "identity"]
    assert total.startswith("total")
    assert "memory: factors" in text


def test_components_have_channels_of_their_own():
    found = plan(MLP([2, 8, 1]), pair, n=10)
    assert found.channels == (("rate", 2), ("wave", 4))
    assert found.rows == 20
    (a, b), structured = (2, 8), found.layers[0].trace
    assert structured == trace_cost(a, b, 2, 10) + trace_cost(a, b, 4, 10)


def test_values_of_several_outputs():
    found = plan(nn.Sequential(nn.Linear(784, 32), nn.ReLU(), nn.Linear(32, 10)), value, n=7)
    assert found.rows == 70
    assert [count for _, count in found.channels] == [1] * 10


def test_frozen_layers_cost_no_kernel():
    net = MLP([2, 8, 1])
    getattr(net, "0").requires_grad_(False)
    first, last = plan(net, wave).layers
    assert (first.trained, first.trace, first.gram) == ("frozen", 0, 0)
    assert first.sweep > 0
    assert (last.trained, last.trace > 0) == ("weight, bias", True)


@pytest.mark.parametrize(
    ("net", "sentence"),
    [
        (nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)), "layer '1' (BatchNorm1d) is not native"),
        (MLP([2, 4, 1], "relu"), "ReLU"),
        (MLP([3, 4, 1]), "columns"),
    ],
)
def test_what_is_not_native_has_a_reason(net, sentence):
    found = plan(net, wave)
    assert not found.native
    assert sentence.lower() in found.reason.lower()
    assert str(found) == f"not native: {found.reason}"


def test_planning_computes_nothing_and_needs_no_memory():
    found = plan(MLP([2, 64, 1]), wave, n=10**9)
    assert found.rows == 10**9
    assert "G" in str(found)


@pytest.mark.parametrize("n", [-1, 2.5, True])
def test_a_wrong_number_of_points_is_named(n):
    with pytest.raises(ValueError, match="n as a whole number of points, at least 0, got"):
        plan(MLP([2, 4, 1]), wave, n=n)


def test_no_points():
    assert plan(MLP([2, 4, 1], dtype=torch.float64), wave, n=0).totals() == (0, 0, 0)


def test_points_or_a_dict_of_groups_go_where_they_go_elsewhere():
    net, x = MLP([2, 40, 1]), torch.rand(30, 2)
    assert plan(net, x, wave) == plan(net, wave, n=30) == plan(net, residual=wave, n=30)
    assert plan(net, x) == plan(net, value, n=30)
    assert plan(net, wave).points == 300
    found = plan(net, {"u": (x[:10], value), "r": (x, pair)})
    assert (found.points, found.rows) == (40, 70)
    assert found.channels == (("u", 1), ("r.rate", 2), ("r.wave", 4))
    u, r = plan(net, x[:10]), plan(net, x, pair)
    assert found.sweep_channels == u.sweep_channels + r.sweep_channels
    assert found.totals()[:2] == tuple(a + b for a, b in zip(u.totals()[:2], r.totals()[:2], strict=True))
    assert dict(found.memory)["gram"] == 4 * 70 * 70
    assert plan(net, {"r": (x, wave)}).totals() == plan(net, x, wave).totals()


@residual("t", "x")
def flux(u, at):
    return at.k * u.d(x=1) - at.f


def test_columns_of_points_are_planned():
    net, x = MLP([2, 8, 1]), torch.rand(5, 2)
    columns = {"k": torch.rand(5), "f": torch.rand(5)}
    assert plan(net, Points(x, **columns), flux).channels == plan(net, flux, n=5).channels
    missing = plan(net, x, flux)
    assert not missing.native and "at.k" in missing.reason


@pytest.mark.parametrize(
    ("arguments", "options", "error", "sentence"),
    [
        ((wave, 30), {}, TypeError, r"expected \(net, residual, n=300\) or .*, got 30 after a residual"),
        ((wave, wave), {}, TypeError, "after a residual"),
        ((), {}, TypeError, "expected points, a dict of groups or a residual, got NoneType"),
        ((lambda u: u,), {}, TypeError, "got function"),
        (({"r": wave},), {}, TypeError, r"group 'r': expected \(points, residual\), got Residual"),
        ((torch.rand(3, 2), wave), {"n": 3}, ValueError, "n only where there are no points, got n=3"),
    ],
)
def test_a_plan_of_something_else_is_refused(arguments, options, error, sentence):
    with pytest.raises(error, match=sentence):
        plan(MLP([2, 4, 1]), *arguments, **options)


@pytest.mark.skipif(_C.isa() == "amx", reason="digits are not shared")
def test_components_share_the_products_of_inputs():
    one, ten = (plan(MLP([784, 64, outputs]), value, n=30).layers[0].gram for outputs in (1, 10))
    assert one == gram_cost("structured", 784, 64, 1, 30)
    assert ten == gram_cost("structured", 784, 0, 1, 300) // 10 + gram_cost("structured", 0, 64, 1, 300)


def test_the_plan_is_what_a_gram_of_uneven_groups_takes():
    net, x = MLP([2, 16, 16, 1]), torch.rand(300, 2)
    groups = {"u": (x, value), "r": (x, residual("t", "x")(lambda u: u.d(t=2) - 4.0 * u.d(x=2)))}
    chain, _ = chain_args(net)
    taken = paths(chain, group_args(chain, groups), None, "auto")
    assert [layer.path == "explicit" for layer in plan(net, groups).layers] == [bool(path) for path in taken]


def test_points_of_a_group_that_are_no_tensor_are_refused():
    with pytest.raises(TypeError, match="plan: expected points of group 'a' as a tensor, got int"):
        plan(MLP([2, 4, 1]), {"a": (3, value)})
