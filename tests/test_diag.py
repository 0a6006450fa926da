"""ntk.diag: K_ii = ‖∂r_i/∂θ‖²."""

import pytest
import torch
from cases import (
    CASES,
    Case,
    Problem,
    close,
    double,
    expected_jacobian,
    heat,
    mlp,
    randomized,
    uniform,
    wave,
    wave_groups,
)
from torch import nn

import ntkfast as ntk
from ntkfast import reference

TANH = Case("tanh", lambda: mlp(nn.Tanh), wave)


def test_equals_the_reference(problem: Problem):
    diag = ntk.diag(problem.net, problem.points, problem.residual)
    assert problem.close(diag, problem.jacobian.square().sum(1))


def test_blocks_add_up_and_equal_the_reference(problem: Problem):
    blocks = ntk.diag(problem.net, problem.points, problem.residual, per_block=True)
    assert list(blocks) == list(problem.blocks)
    for name, J in problem.blocks.items():
        assert problem.close(blocks[name], J.square().sum(1))
    assert problem.close(sum(blocks.values()), ntk.diag(problem.net, problem.points, problem.residual))


def test_is_never_negative(problem: Problem):
    assert bool((ntk.diag(problem.net, problem.points, problem.residual) >= 0).all())


def test_a_dict_of_groups_gives_a_dict(dtype: torch.dtype):
    net, groups = TANH.net(dtype), wave_groups(dtype=dtype)
    together = ntk.diag(net, groups)
    assert list(together) == list(groups)
    for name, (points, residual) in groups.items():
        assert close(together[name], reference.diag(double(net), points.double(), residual), dtype)
    by_block = ntk.diag(net, groups, per_block=True)
    assert close(sum(by_block["r"].values()), together["r"], dtype)


@pytest.mark.parametrize("residual", [ntk.value, wave], ids=["value", "wave"])
@pytest.mark.parametrize("width", [1, 2, 3, 5, 8, 15, 16, 17, 31, 33, 64, 65])
def test_every_width_has_its_remainder_handled(width: int, residual, dtype: torch.dtype):
    case = Case(f"width {width}", lambda: mlp(nn.Tanh, (2, width, width, 1)), residual)
    assert close(
        ntk.diag(case.net(dtype), case.points(dtype), residual), expected_jacobian(case, dtype).square().sum(1), dtype
    )


@pytest.mark.parametrize("n", [1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 127, 128, 129, 257])
def test_every_number_of_points_gives_the_same_rows(n: int):
    case = Case("tanh", lambda: mlp(nn.Tanh, (2, 9, 6, 1)), wave, n=257)
    diag = ntk.diag(case.net(), case.points()[:n], wave)
    assert close(diag, expected_jacobian(case, torch.float64).square().sum(1)[:n], torch.float64)


def test_permuting_points_permutes_rows():
    net, x = TANH.net(), TANH.points(n=75)
    order = torch.randperm(75, generator=torch.Generator().manual_seed(0))
    assert close(ntk.diag(net, x[order], wave), ntk.diag(net, x, wave)[order], torch.float64)


def test_duplicating_points_duplicates_rows(dtype: torch.dtype):
    net, x = TANH.net(dtype), TANH.points(dtype, n=23)
    assert close(ntk.diag(net, x.repeat(40, 1), wave), ntk.diag(net, x, wave).repeat(40), dtype)


def test_components_are_point_major():
    case = next(c for c in CASES if c.name == "tanh-two_components")
    net, x = case.net(), case.points()
    rows = ntk.diag(net, x, case.residual).view(-1, 2)
    assert close(rows[3:5].flatten(), ntk.diag(net, x[3:5], case.residual), torch.float64)


@pytest.mark.parametrize("frozen", ["1.weight", "1.bias", "3.weight", "3.bias", "5.weight", "5.bias"])
def test_freezing_a_parameter_removes_exactly_its_part(frozen: str):
    net, x = TANH.net(), TANH.points()
    full, part = ntk.diag(net, x, wave), reference.diag(net, x, wave, wrt=frozen)
    net.get_parameter(frozen).requires_grad_(False)
    assert close(ntk.diag(net, x, wave), full - part, torch.float64)


def test_freezing_a_layer_removes_exactly_its_block():
    net, x = TANH.net(), TANH.points()
    blocks = ntk.diag(net, x, wave, per_block=True)
    net[3].requires_grad_(False)
    left = ntk.diag(net, x, wave, per_block=True)
    assert list(left) == ["1", "5"]
    assert all(torch.equal(left[name], blocks[name]) for name in left)


@pytest.mark.parametrize("wrt", ["3.weight", "*.weight", "*.bias", ["1.*", "5.weight"], ("3.*",)])
def test_patterns_choose_parameters(wrt):
    net, x = TANH.net(), TANH.points()
    expected = reference.diag(net, x, wave, wrt=wrt)
    assert close(ntk.diag(net, x, wave, wrt=wrt), expected, torch.float64)
    assert close(ntk.factors(net, x, wave, wrt=wrt).diag(), expected, torch.float64)


def test_inputs_whose_squares_overflow_leave_the_rows_of_biases_alone():
    net, x = nn.Sequential(nn.Linear(2, 1)), torch.full((3, 2), 1e30)
    assert ntk.diag(net, x, wrt="*.bias").tolist() == [1, 1, 1]
    assert ntk.factors(net, x, wrt="*.bias").diag().tolist() == [1, 1, 1]
    assert ntk.diag(net, x).isinf().all()


def test_a_coefficient_is_the_one_that_was_bound():
    net, x = TANH.net(), TANH.points()
    for kappa in (0.3, 0.7, 0.3, torch.tensor(1.1, dtype=torch.float64)):
        residual = heat.bind(kappa=kappa)
        assert close(ntk.diag(net, x, residual), reference.diag(net, x, residual), torch.float64)


def test_follows_the_parameters():
    net, x = TANH.net(), TANH.points()
    ntk.diag(net, x, wave)
    randomized(net, seed=5)
    assert close(ntk.diag(net, x, wave), reference.diag(net, x, wave), torch.float64)


def test_no_points_no_rows(dtype: torch.dtype):
    net = TANH.net(dtype)
    assert ntk.diag(net, TANH.points(dtype, n=0), wave).shape == (0,)
    groups = {"u": (TANH.points(dtype, n=0), ntk.value), "r": (TANH.points(dtype), wave)}
    together = ntk.diag(net, groups)
    assert together["u"].shape == (0,)
    assert close(together["r"], ntk.diag(net, *groups["r"]), dtype)


def test_wide_inputs_and_many_outputs(dtype: torch.dtype):
    net = randomized(mlp(nn.ReLU, (784, 12, 10))).to(dtype)
    x = uniform(6, 784).to(dtype)
    assert close(ntk.diag(net, x), reference.diag(double(net), x.double()), dtype)


def test_a_memory_budget_changes_nothing():
    net, x = TANH.net(), TANH.points(n=700)
    free = ntk.diag(net, x, wave)
    for memory in ("1MB", 2**21):
        torch.testing.assert_close(ntk.diag(net, x, wave, memory=memory), free, rtol=1e-12, atol=0)


def test_is_never_below_zero(dtype: torch.dtype):
    """u_xx + k² u of waves of wave number k is zero: channels cancel, and what is left is rounding."""
    k = 2.3
    net = nn.Sequential(nn.Linear(1, 37), ntk.Sin(), nn.Linear(37, 19), nn.Linear(19, 1)).to(dtype)
    net.requires_grad_(False)[2].weight.requires_grad_(True)
    nn.init.constant_(net[0].weight, k)
    x, helmholtz = 6 * torch.rand(200, 1, dtype=dtype), ntk.residual("x")(lambda u: u.d(x=2) + k * k * u)
    f = ntk.factors(net, x, helmholtz)
    for diag in (ntk.diag(net, x, helmholtz), f.diag(), ntk.diag(net, x, helmholtz, per_block=True)["2"]):
        assert (diag >= 0).all()
    structured = ntk.gram(net, x, helmholtz, method="structured").diagonal()
    assert structured.min() < 0, "what it would be"
    assert ntk.NTKWeights()(net, {"r": (x, helmholtz), "u": (x, ntk.value)}).keys() == {"r", "u"}
