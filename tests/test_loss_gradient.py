"""ntk.loss_gradient: ∇ Σ_g λ_g mean(r_g²) = Jᵀx with x = 2 λ r / n, from one sweep."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from cases import (
    Case,
    Problem,
    burgers,
    close,
    double,
    heat,
    mlp,
    randomized,
    two_components,
    uniform,
    wave,
    wave_groups,
)
from torch import Tensor, nn

import ntkfast as ntk
from ntkfast import _ops, reference
from ntkfast.sweep import chain_args, group_args

TANH = Case("tanh", lambda: mlp(nn.Tanh), wave)
WEIGHTS = {"u": 3.0, "ut": 0.5, "r": 2.0}


def flat(gradient: dict[str, Tensor]) -> Tensor:
    return torch.cat([g.reshape(-1) for g in gradient.values()])


def by_autograd(net: nn.Module, groups: dict, weights: dict[str, float]) -> tuple[dict[str, Tensor], Tensor]:
    """Losses and gradient from the reference's rows, in float64."""
    exact = double(net)
    losses = {
        name: reference.rows(exact, x.double(), residual).square().mean() for name, (x, residual) in groups.items()
    }
    total = sum(weights[name] * loss for name, loss in losses.items())
    return losses, torch.cat([g.reshape(-1) for g in torch.autograd.grad(total, list(exact.parameters()))])


def test_equals_the_reference(problem: Problem):
    found = ntk.loss_gradient(problem.net, {"": (problem.points, problem.residual)}, {"": 1.5}, traces=True)
    rows = reference.rows(double(problem.net), problem.points.double(), problem.residual).detach().reshape(-1)
    assert problem.close(found.rows, rows)
    assert problem.close(found.losses[""], rows.square().mean())
    assert problem.close(flat(found.gradient), 1.5 * 2 / len(rows) * rows @ problem.jacobian)
    assert problem.close(found.traces[""], problem.jacobian.square().sum())
    assert {n: g.shape for n, g in found.gradient.items()} == {n: p.shape for n, p in problem.net.named_parameters()}


def test_groups_and_weights(dtype: torch.dtype):
    net, groups = TANH.net(dtype), wave_groups(40, dtype)
    found = ntk.loss_gradient(net, groups, WEIGHTS, traces=True)
    losses, gradient = by_autograd(net, groups, WEIGHTS)
    assert close(flat(found.gradient), gradient, dtype)
    for name, group in groups.items():
        assert close(found.losses[name], losses[name].detach(), dtype)
        assert close(found.traces[name], ntk.trace(net, *group), dtype)
    tensors = {name: torch.tensor(weight) for name, weight in WEIGHTS.items()}
    again = ntk.loss_gradient(net, groups, tensors)
    assert torch.equal(flat(again.gradient), flat(found.gradient)) and again.traces is None


def test_is_what_factors_give(dtype: torch.dtype):
    """Rows and traces bit for bit; the gradient adds in another order."""
    net, groups = TANH.net(dtype), {**wave_groups(70, dtype), "heat": (uniform(33).to(dtype), heat.bind(kappa=0.3))}
    found, f = ntk.loss_gradient(net, groups), ntk.factors(net, groups)
    rows = f.rows.detach()
    assert close(found.rows, rows.double(), dtype)
    x = torch.cat([2 / (s.stop - s.start) * rows[s] for s in f.slices.values()])
    assert close(flat(found.gradient), flat(f.vjp(x)).double(), dtype)


def test_linear_and_other_residuals_together(dtype: torch.dtype):
    net, groups = TANH.net(dtype), {**wave_groups(30, dtype), "two": (uniform(9).to(dtype), two_components)}
    weights = {**WEIGHTS, "two": 0.7}
    found = ntk.loss_gradient(net, groups, weights)
    assert close(flat(found.gradient), by_autograd(net, groups, weights)[1], dtype)


@pytest.mark.parametrize("width", [1, 2, 3, 15, 16, 17, 31, 32, 33, 64, 65])
def test_every_width_has_its_remainder_handled(width: int, dtype: torch.dtype):
    net = randomized(mlp(nn.Tanh, (2, width, width + 1, 1))).to(dtype)
    groups = wave_groups(12, dtype)
    assert close(flat(ntk.loss_gradient(net, groups, WEIGHTS).gradient), by_autograd(net, groups, WEIGHTS)[1], dtype)


@pytest.mark.parametrize("n", [1, 2, 7, 16, 31, 63, 64, 65, 127, 129, 257])
def test_every_number_of_points(n: int):
    net = randomized(mlp(nn.Tanh, (2, 9, 6, 1)))
    groups = {"r": (uniform(257)[:n], wave), "u": (uniform(3), ntk.value)}
    weights = {"r": 2.0, "u": 1.0}
    assert close(
        flat(ntk.loss_gradient(net, groups, weights).gradient), by_autograd(net, groups, weights)[1], torch.float64
    )


@pytest.fixture
def unwritten_memory_is_nan() -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)  # and torch fills what it allocates
    yield
    torch.use_deterministic_algorithms(before)


@pytest.mark.parametrize("frozen", [slice(1, 3), slice(0, 2), slice(0, 5), slice(3, 6)], ids=str)
@pytest.mark.usefixtures("unwritten_memory_is_nan")
def test_frozen_parameters_are_left_out(frozen: slice):
    net = TANH.net()
    for parameter in list(net.parameters())[frozen]:
        parameter.requires_grad_(False)
    groups = wave_groups(20)
    found, f = ntk.loss_gradient(net, groups, traces=True), ntk.factors(net, groups)
    assert list(found.gradient) == list(f.parameters())
    x = torch.cat([2 / (s.stop - s.start) * f.rows.detach()[s] for s in f.slices.values()])
    assert close(flat(found.gradient), flat(f.vjp(x)), torch.float64)
    for name, trace in f.trace().items():
        assert close(found.traces[name], trace, torch.float64)


@ntk.residual("t", "x")
def uneven(u):
    return {
        "value": 3.0 * u.value,
        "x": u.d(x=2) + u.d(x=1),
        "t": u.d(t=2),
        "slope": u.d(x=1),
        "all": u.d(x=2) - u.d(t=2),
    }


def test_components_that_need_some_channels_of_their_group(dtype: torch.dtype):
    net, groups = TANH.net(dtype), {"u": (uniform(23).to(dtype), uneven)}
    found, f = ntk.loss_gradient(net, groups, {"u": 0.3}, traces=True), ntk.factors(net, groups)
    assert close(flat(found.gradient), by_autograd(net, groups, {"u": 0.3})[1], dtype)
    assert close(found.rows, reference.rows(double(net), groups["u"][0].double(), uneven).detach().flatten(), dtype)
    assert close(found.traces["u"], f.trace()["u"].double(), dtype)


SEVERAL = {
    "uneven": (lambda: mlp(nn.Tanh), 2, uneven),
    "three outputs": (lambda: mlp(nn.Tanh, (2, 9, 3)), 2, ntk.value),
    "classifier": (lambda: mlp(nn.ReLU, (30, 40, 33, 10)), 30, ntk.value),
    "activation at the end": (lambda: nn.Sequential(*mlp(nn.Tanh, (2, 9, 3)), nn.Sigmoid()), 2, ntk.value),
    "one layer": (lambda: nn.Sequential(nn.Linear(2, 4)), 2, ntk.value),
}


@pytest.mark.parametrize("n", [1, 33, 700])
@pytest.mark.parametrize("name", SEVERAL)
def test_components_go_back_together_with_the_same_bits_whether_traces_are_asked_for(
    name: str, n: int, dtype: torch.dtype
):
    """Beside a group of one component, and with parameters that are left out."""
    make, columns, residual = SEVERAL[name]
    net, x = randomized(make()).to(dtype), uniform(n, columns).to(dtype)
    groups, weights = {"several": (x, residual), "one": (x[:20], residual)}, {"several": 3.0, "one": 0.5}
    if residual is ntk.value:
        groups["one"] = (x[:20], ntk.value[1])
    gradient = flat(ntk.loss_gradient(net, groups, weights).gradient)
    assert close(gradient, by_autograd(net, groups, weights)[1], dtype)
    watched = ntk.loss_gradient(net, groups, weights, traces=True)
    assert torch.equal(gradient, flat(watched.gradient))
    assert all(close(watched.traces[name], ntk.trace(net, *groups[name]).double(), dtype) for name in groups)
    name, first = next(iter(net.named_parameters()))
    expected = flat(ntk.loss_gradient(net, groups, weights).gradient)[first.numel() :]
    first.requires_grad_(False)
    assert close(flat(ntk.loss_gradient(net, groups, weights).gradient), expected.double(), dtype)


def test_components_that_go_back_together_give_the_same_bits_every_time():
    net, x = randomized(mlp(nn.ReLU, (30, 40, 10))), uniform(500, 30)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append([flat(ntk.loss_gradient(net, {"u": (x, ntk.value)}).gradient) for _ in range(3)])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(same[0], each) for same in found for each in same)
    assert close(found[0][0], found[1][0], torch.float64)


def test_seeds_may_have_any_strides(dtype: torch.dtype):
    net, x = randomized(mlp(nn.Tanh, (2, 9, 3))).to(dtype), uniform(7).to(dtype)
    chain, args = chain_args(net)
    groups = group_args(chain, {"u": (x, ntk.value)})
    scattered = [torch.randn(3, 7, 1, dtype=dtype).permute(2, 1, 0) for _ in range(3)]
    pull, nothing = torch.randn(21, dtype=dtype), torch.empty(0, dtype=dtype)
    results = []
    for seeds in (scattered, [seed.contiguous() for seed in scattered]):
        rows, grads = torch.empty_like(pull), [torch.empty_like(p) for p in args.parameters]
        _ops.linear_sweep(args, groups, seeds, nothing, pull, 0, rows, grads, nothing.double(), nothing, nothing)
        results.append([rows, *grads])
    assert all(close(a, b.double(), dtype) for a, b in zip(*results, strict=True))
    expected = torch.stack([(s[0].double() * double(net)(x.double())).sum(-1) for s in scattered], -1).flatten()
    assert close(results[0][0], expected.detach(), dtype)


def test_the_number_of_threads_changes_no_more_than_rounding():
    net, groups = randomized(mlp(nn.Tanh, (2, 60, 60, 1))), wave_groups(200)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append([flat(ntk.loss_gradient(net, groups).gradient) for _ in range(3)])
    finally:
        torch.set_num_threads(before)
    for same in found:
        assert torch.equal(same[0], same[1]) and torch.equal(same[0], same[2]), "the same bits every time"
        assert close(same[0], found[0][0], torch.float64)


@pytest.mark.parametrize("residual", [wave, two_components], ids=["streamed", "by way of factors"])
def test_writes_into_the_callers_tensors(residual):
    net = TANH.net()
    groups = {"r": (uniform(11), residual)}
    out = {name: torch.full_like(p, torch.nan, requires_grad=False) for name, p in net.named_parameters()}
    versions = {name: g._version for name, g in out.items()}
    found = ntk.loss_gradient(net, groups, out=out)
    assert all(found.gradient[name] is out[name] for name in out)
    assert all(out[name]._version > versions[name] for name in out)
    assert torch.equal(flat(out), flat(ntk.loss_gradient(net, groups).gradient))


def test_nan_in_a_parameter_reaches_the_gradient():
    net = TANH.net()
    with torch.no_grad():
        next(net.parameters())[0, 0] = torch.nan
    found = ntk.loss_gradient(net, wave_groups(9))
    assert found.losses["r"].isnan() and flat(found.gradient).isnan().any()


X = uniform(5)


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        (((X, wave),), TypeError, "loss_gradient: expected a dict of groups, got tuple"),
        (({"r": X},), TypeError, r"group 'r': expected \(points, residual\), got Tensor"),
        (({},), ValueError, "expected at least one group, got none"),
        (({"r": (X, wave)}, {"r": "big"}), TypeError, "expected a number or a 0-d tensor for group 'r', got 'big'"),
        (({"r": (X, wave)}, {"r": float("inf")}), ValueError, "expected a finite weight for group 'r', got inf"),
        (({"r": (X[:0], wave)},), ValueError, "expected at least one row in group 'r', got 0"),
        (({"r": (X, wave)}, {"u": 1.0}), ValueError, r"weights for exactly the groups \('r',\), got \('u',\)"),
        (({"r": (X, wave)}, 2.0), ValueError, r"weights for exactly the groups \('r',\), got float"),
        (({"r": (X, wave)}, {"r": torch.ones(5)}), ValueError, r"a 0-d weight for group 'r', got \(5,\)"),
        (({"r": (X * torch.nan, wave)},), ValueError, "expected finite points"),
    ],
    ids=[
        "no dict",
        "no pair",
        "no group",
        "a word",
        "infinite",
        "empty",
        "other groups",
        "a number",
        "a vector",
        "nan",
    ],
)
def test_bad_input_is_refused_in_one_sentence(arguments: tuple, error: type[Exception], sentence: str):
    with pytest.raises(error, match=sentence):
        ntk.loss_gradient(TANH.net(), *arguments)


def test_an_out_that_does_not_fit_is_refused():
    net = TANH.net()
    with pytest.raises(ValueError, match="loss_gradient: expected a tensor for '1.weight' in out, got NoneType"):
        ntk.loss_gradient(net, wave_groups(), out={})
    square = mlp(nn.Tanh, (2, 2, 2, 1)).double()
    out = {name: torch.empty_like(p) for name, p in square.named_parameters()}
    overlapping = torch.empty(6, dtype=torch.float64)
    for shared in ({"3.weight": out["1.weight"]}, {"1.weight": overlapping[:4].view(2, 2), "1.bias": overlapping[3:5]}):
        with pytest.raises(
            ValueError, match="memory of its own for every parameter in out, got tensors that share some"
        ):
            ntk.loss_gradient(square, wave_groups(), out={**out, **shared})


@pytest.mark.parametrize("residual", [ntk.value, wave, burgers], ids=["value", "wave", "not linear"])
def test_many_points_cost_no_digits(residual: ntk.Residual) -> None:
    """Sums in float32 over all of them would be wrong by 1e-5 and more."""
    torch.manual_seed(0)
    net, x = ntk.MLP([2, 32, 32, 1]), torch.rand(60_000, 2)
    found = ntk.loss_gradient(net, {"r": (x, residual)}).gradient
    exact = flat(ntk.loss_gradient(double(net), {"r": (x.double(), residual)}).gradient)
    f = ntk.factors(net, x, residual)
    for gradient in (found, f.vjp(2 / len(x) * f.rows.detach())):
        assert (flat(gradient) - exact).norm() <= 3e-6 * exact.norm()
