"""ntk.factors: one packed sweep, a snapshot at θ, from which every kernel is made."""

import copy

import pytest
import torch
from cases import (
    CASES,
    Case,
    Problem,
    burgers,
    close,
    double,
    mlp,
    randomized,
    two_components,
    u_t,
    uniform,
    wave,
    wave_groups,
)
from torch import nn

import ntkfast as ntk
from ntkfast import reference

TANH = Case("tanh", lambda: mlp(nn.Tanh), wave)


def trainable(net: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in net.named_parameters() if p.requires_grad}


def directions(net: nn.Module, seed: int = 3) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(p.shape, dtype=torch.float64, generator=generator).to(p.dtype)
        for name, p in trainable(net).items()
    }


def flat(parts: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([part.flatten() for part in parts.values()])


def blocks_of(vector: torch.Tensor, net: nn.Module) -> tuple[torch.Tensor, ...]:
    return vector.split([p.numel() for p in trainable(net).values()])


def exact_jacobians(net: nn.Module, groups) -> dict[str, torch.Tensor]:
    return {name: reference.jacobian(double(net), x.double(), residual) for name, (x, residual) in groups.items()}


# --------------------------------------------------------------------------------------------- one group, every problem


def test_rows_equal_the_reference(problem: Problem):
    expected = reference.rows(double(problem.net), problem.points.double(), problem.residual).detach()
    f = ntk.factors(problem.net, problem.points, problem.residual)
    assert problem.close(f.rows.detach(), expected)
    assert problem.close(problem.residual(problem.net, problem.points).detach().flatten(), expected)


def test_jacobian_equals_the_reference(problem: Problem):
    assert problem.close(ntk.factors(problem.net, problem.points, problem.residual).jacobian(), problem.jacobian)


def test_products_with_vectors_equal_the_reference(problem: Problem):
    f, J = ntk.factors(problem.net, problem.points, problem.residual), problem.jacobian
    x = uniform(len(J), 1).flatten() - 0.4
    back = f.vjp(x.to(problem.dtype))
    assert list(back) == list(trainable(problem.net))
    assert all(back[name].shape == p.shape for name, p in trainable(problem.net).items())
    assert problem.close(flat(back), J.T @ x.to(problem.dtype).double())
    v = directions(problem.net)
    assert problem.close(f.jvp(v), J @ flat(v).double())


@pytest.mark.parametrize("widths", [(3, 259, 2), (7, 300, 259, 5, 1)], ids=str)
def test_products_with_vectors_of_wide_layers(widths: tuple[int, ...], dtype: torch.dtype):
    """Wider than what a task of vjp takes of a layer, on either side, and not by a multiple."""
    net, x = randomized(mlp(nn.Tanh, widths)).to(dtype), uniform(5, widths[0]).to(dtype)
    f, J = ntk.factors(net, x, ntk.value), exact_jacobians(net, {"": (x, ntk.value)})[""]
    r, v = (uniform(len(J), 1).flatten() - 0.4).to(dtype), directions(net)
    for (name, part), expected in zip(f.vjp(r).items(), blocks_of(J.T @ r.double(), net), strict=True):
        assert close(part.flatten(), expected, dtype), name
    assert close(f.jvp(v), J @ flat(v).double(), dtype)


@pytest.mark.parametrize("threads", [2, 3, 5])
def test_threads_share_wide_layers_and_many_rows(threads: int):
    """Enough operations that every thread takes some."""
    net, x, before = randomized(mlp(nn.Tanh, (2, 97, 73, 3))), uniform(400), torch.get_num_threads()
    f, J = ntk.factors(net, x, ntk.value), exact_jacobians(net, {"": (x, ntk.value)})[""]
    r = uniform(len(J), 1).flatten() - 0.4
    try:
        torch.set_num_threads(threads)
        found = f.vjp(r)
    finally:
        torch.set_num_threads(before)
    for (name, part), expected in zip(found.items(), blocks_of(J.T @ r, net), strict=True):
        assert close(part.flatten(), expected, torch.float64), name


def test_products_are_adjoint(problem: Problem):
    f = ntk.factors(problem.net, problem.points, problem.residual)
    x, v = uniform(len(f.rows), 1).flatten().to(problem.dtype) - 0.5, directions(problem.net)
    left, right = f.jvp(v).double() @ x.double(), flat(v).double() @ flat(f.vjp(x)).double()
    scale = torch.linalg.vector_norm(problem.jacobian) * x.double().norm() * flat(v).double().norm()
    assert abs(left - right) <= 8 * torch.finfo(problem.dtype).eps * scale


def test_kernels_equal_the_reference(problem: Problem):
    f, J = ntk.factors(problem.net, problem.points, problem.residual), problem.jacobian
    assert problem.close(f.diag(), J.square().sum(1))
    assert problem.close(f.trace(), J.square().sum())
    K = f.gram()
    assert problem.close(K, J @ J.T)
    assert torch.equal(K, K.T)
    blocks = f.trace(per_block=True)
    assert list(blocks) == list(problem.blocks)
    assert all(problem.close(blocks[name], part.square().sum()) for name, part in problem.blocks.items())


def test_the_backward_of_the_rows_is_the_gradient(problem: Problem):
    net = problem.net
    ntk.factors(net, problem.points, problem.residual).rows.square().mean().backward()
    twin = double(net)
    twin.zero_grad()
    loss = reference.rows(twin, problem.points.double(), problem.residual).square().mean()
    names = list(trainable(twin))
    expected = torch.autograd.grad(loss, list(trainable(twin).values()), materialize_grads=True)
    actual = [_or_zero(p) for p in trainable(net).values()]
    assert all(a.dtype == problem.dtype for a in actual), names
    assert problem.close(flat(dict(zip(names, actual, strict=True))), flat(dict(zip(names, expected, strict=True))))


def _or_zero(p: nn.Parameter) -> torch.Tensor:
    return torch.zeros_like(p) if p.grad is None else p.grad


# ---------------------------------------------------------------------------------------------------------- many groups


def test_groups_are_packed_in_the_order_of_the_dict(dtype: torch.dtype):
    net, groups = TANH.net(dtype), wave_groups(dtype=dtype)
    f, J = ntk.factors(net, groups), exact_jacobians(net, groups)
    assert list(f.names) == list(groups)
    assert f.rows.shape == (sum(len(part) for part in J.values()),)
    for name, (points, residual) in groups.items():
        expected = reference.rows(double(net), points.double(), residual).detach()
        assert close(f.rows[f.slices[name]].detach(), expected, dtype)
        assert torch.equal(f[name].rows, f.rows[f.slices[name]])
    assert close(f.jacobian(), torch.cat([*J.values()]), dtype)


def test_kernels_of_groups(dtype: torch.dtype):
    net, groups = TANH.net(dtype), wave_groups(dtype=dtype)
    f, J = ntk.factors(net, groups), exact_jacobians(net, groups)
    together = torch.cat([*J.values()])
    traces, diagonals = f.trace(), f.diag()
    assert list(traces) == list(diagonals) == list(groups)
    assert close(f.gram(), together @ together.T, dtype)
    for name, part in J.items():
        assert close(traces[name], part.square().sum(), dtype)
        assert close(diagonals[name], part.square().sum(1), dtype)
        assert close(f[name].trace(), part.square().sum(), dtype)
        assert close(f[name].diag(), part.square().sum(1), dtype)
        assert close(f[name].gram(), part @ part.T, dtype)
        assert close(f[name].jacobian(), part, dtype)
        assert close(f[name].gram(f["r"]), part @ J["r"].T, dtype)
    by_block = f.trace(per_block=True)
    assert list(by_block) == list(groups)
    assert close(sum(by_block["ut"].values()), traces["ut"], dtype)


def test_products_with_vectors_of_groups(dtype: torch.dtype):
    net, groups = TANH.net(dtype), wave_groups(dtype=dtype)
    f, J = ntk.factors(net, groups), exact_jacobians(net, groups)
    together, v = torch.cat([*J.values()]), directions(net)
    x = (uniform(len(together), 1).flatten() - 0.4).to(dtype)
    assert close(flat(f.vjp(x)), together.T @ x.double(), dtype)
    assert close(f.jvp(v), together @ flat(v).double(), dtype)
    part = x[f.slices["ut"]]
    assert close(flat(f["ut"].vjp(part)), J["ut"].T @ part.double(), dtype)
    assert close(f["ut"].jvp(v), J["ut"] @ flat(v).double(), dtype)


def test_groups_with_different_channels_and_components(dtype: torch.dtype):
    net = TANH.net(dtype)
    groups = {
        "burgers": (uniform(7, 2, 1).to(dtype), burgers),
        "two": (uniform(5, 2, 2).to(dtype), two_components),
        "value": (uniform(1, 2, 3).to(dtype), ntk.value),
        "wave": (uniform(33, 2, 4).to(dtype), wave),
    }
    f, J = ntk.factors(net, groups), exact_jacobians(net, groups)
    together = torch.cat([*J.values()])
    assert close(f.jacobian(), together, dtype)
    assert close(f.gram(), together @ together.T, dtype)
    assert close(ntk.gram(net, groups), together @ together.T, dtype)
    for name, part in J.items():
        assert close(f.diag()[name], part.square().sum(1), dtype)


def test_a_loss_of_groups_has_its_gradient(dtype: torch.dtype):
    net, groups = TANH.net(dtype), wave_groups(dtype=dtype)
    weights = {"u": 6.0, "ut": 2.5, "r": 0.01}
    f = ntk.factors(net, groups)
    sum(weights[g] * f[g].rows.square().mean() for g in f.names).backward()
    twin = double(net)
    twin.zero_grad()
    exact = {g: reference.rows(twin, x.double(), residual) for g, (x, residual) in groups.items()}
    sum(weights[g] * exact[g].square().mean() for g in groups).backward()
    actual = {name: _or_zero(p) for name, p in trainable(net).items()}
    assert close(flat(actual), flat({name: p.grad for name, p in trainable(twin).items()}), dtype)


def test_the_backward_of_a_part_leaves_the_rest_alone():
    net, groups = TANH.net(), wave_groups()
    f = ntk.factors(net, groups)
    f["ut"].rows.sum().backward()
    expected = exact_jacobians(net, groups)["ut"].sum(0)
    assert close(flat({name: _or_zero(p) for name, p in trainable(net).items()}), expected, torch.float64)


def test_two_sweeps_have_a_cross_kernel(dtype: torch.dtype):
    net, x, y = TANH.net(dtype), TANH.points(dtype), TANH.points(dtype, n=9, seed=2)
    f, g = ntk.factors(net, x, wave), ntk.factors(net, y, u_t)
    exact = reference.gram(double(net), x.double(), wave, y.double(), u_t)
    assert close(f.gram(g), exact, dtype)
    assert close(g.gram(f), exact.T, dtype)


def test_a_group_that_does_not_exist_is_named():
    f = ntk.factors(TANH.net(), wave_groups())
    with pytest.raises(KeyError, match="rr"):
        f["rr"]


# ------------------------------------------------------------------------------------------------------------- contract


@pytest.mark.parametrize("name", ["tanh-wave", "tanh-value", "tanh-burgers", "tanh-u_t", "wide-wave"])
def test_a_block_is_a_sum_of_outer_products_over_channels(name: str):
    # J_i[W] = Σ_c D_i⁽ᶜ⁾ ⊗ A_i⁽ᶜ⁾ and J_i[b] = D_i⁽⁰⁾.
    problem = next(case for case in CASES if case.name == name).problem()
    f = ntk.factors(problem.net, problem.points, problem.residual)
    assert list(f.blocks) == list(problem.blocks)
    for block, J in problem.blocks.items():
        A, D = f.blocks[block].A, f.blocks[block].D
        weight = sum(D[c][:, :, None] * A[c][:, None, :] for c in range(len(D)))
        assert close(torch.cat([weight.flatten(1), D[0]], 1), J, torch.float64)


def test_is_a_snapshot():
    net, x = TANH.net(), TANH.points()
    f = ntk.factors(net, x, wave)
    K, v = reference.gram(net, x, wave), directions(net)
    J = reference.jacobian(net, x, wave)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(1.0)
    assert close(f.gram(), K, torch.float64)
    assert close(f.diag(), K.diagonal(), torch.float64)
    assert close(flat(f.vjp(torch.ones(len(x), dtype=torch.float64))), J.sum(0), torch.float64)
    assert close(f.jvp(v), J @ flat(v), torch.float64)


def test_two_snapshots_do_not_share_memory():
    net, x, y = TANH.net(), TANH.points(), TANH.points(seed=2)
    f = ntk.factors(net, x, wave)
    before = f.gram(), f.rows.detach().clone()
    ntk.factors(net, y, wave).gram()
    assert torch.equal(f.gram(), before[0])
    assert torch.equal(f.rows, before[1])


def test_frozen_parameters_have_no_columns():
    net, x = TANH.net(), TANH.points()
    net[1].requires_grad_(False)
    net[3].bias.requires_grad_(False)
    f, J = ntk.factors(net, x, wave), reference.jacobian(net, x, wave)
    assert J.shape[1] == 16 * 16 + 17
    assert close(f.jacobian(), J, torch.float64)
    back = f.vjp(torch.ones(len(x), dtype=torch.float64))
    assert list(back) == ["3.weight", "5.weight", "5.bias"]
    assert close(flat(back), J.sum(0), torch.float64)
    assert close(f.jvp(directions(net)), J @ flat(directions(net)), torch.float64)
    f.rows.sum().backward()
    assert net[1].weight.grad is None and net[3].bias.grad is None
    assert close(net[3].weight.grad.flatten(), J.sum(0)[:256], torch.float64)


def test_gradients_accumulate_like_any_others():
    net, x = TANH.net(), TANH.points()
    J = reference.jacobian(net, x, wave)
    for _ in range(2):
        ntk.factors(net, x, wave).rows.sum().backward()
    assert close(flat({name: _or_zero(p) for name, p in trainable(net).items()}), 2 * J.sum(0), torch.float64)


def test_rows_are_differentiable_once():
    net, x = TANH.net(), TANH.points()
    rows = ntk.factors(net, x, wave).rows
    assert rows.requires_grad
    weight = net[3].weight
    with pytest.raises(RuntimeError, match="once"):
        (gradient,) = torch.autograd.grad(rows.square().sum(), weight, create_graph=True)
        torch.autograd.grad(gradient.sum(), weight)


def test_everything_but_the_rows_is_a_constant():
    net, x = TANH.net(), TANH.points()
    f = ntk.factors(net, x, wave)
    one = torch.ones(len(x), dtype=torch.float64)
    results = [f.trace(), f.diag(), f.gram(), f.jacobian(), f.jvp(directions(net)), *f.vjp(one).values()]
    assert not any(result.requires_grad for result in results)


def test_rows_without_gradients_where_none_are_wanted():
    net, x = TANH.net(), TANH.points()
    with torch.no_grad():
        f = ntk.factors(net, x, wave)
        assert not f.rows.requires_grad
    assert close(f.gram(), reference.gram(net, x, wave), torch.float64)


@pytest.mark.parametrize("n", [0, 1])
def test_very_small_groups(n: int, dtype: torch.dtype):
    net = TANH.net(dtype)
    groups = {"u": (TANH.points(dtype, n=n), ntk.value), "r": (TANH.points(dtype, n=4), wave)}
    f, J = ntk.factors(net, groups), exact_jacobians(net, groups)
    together = torch.cat([*J.values()])
    assert f["u"].rows.shape == (n,)
    assert close(f.gram(), together @ together.T, dtype)
    assert close(f.trace()["u"], J["u"].square().sum(), dtype)
    f["u"].rows.sum().backward()
    assert close(flat({k: _or_zero(p) for k, p in trainable(net).items()}), J["u"].sum(0), dtype)


def test_vectors_of_a_wrong_length_are_refused():
    net, x = TANH.net(), TANH.points()
    f = ntk.factors(net, x, wave)
    with pytest.raises(ValueError, match=rf"vjp: expected one number a row, \({len(x)},\) .* got \({len(x) + 1},\)"):
        f.vjp(torch.ones(len(x) + 1, dtype=torch.float64))
    with pytest.raises(ValueError, match="float64.*float32"):
        f.vjp(torch.ones(len(x), dtype=torch.float32))
    with pytest.raises(TypeError, match=r"vjp: expected a tensor of shape \(\d+,\), got int"):
        f.vjp(3)
    with pytest.raises(TypeError, match="vjp: expected out as a dict of tensors by parameter name, got int"):
        f.vjp(torch.ones(len(x), dtype=torch.float64), out=3)
    v = directions(net)
    with pytest.raises(ValueError, match=r"for '3\.weight', got \(2, 2\)"):
        f.jvp({**v, "3.weight": torch.ones(2, 2, dtype=torch.float64)})
    with pytest.raises(ValueError, match=r"expected names out of \('1\.weight'.*got '9\.weight'"):
        f.jvp({**v, "9.weight": torch.ones(2, 2, dtype=torch.float64)})


def test_the_network_is_left_as_it_was():
    net, x = TANH.net(), TANH.points()
    before = copy.deepcopy(net.state_dict())
    f = ntk.factors(net, x, wave)
    f.gram(), f.vjp(torch.ones(len(x), dtype=torch.float64))
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())


def test_tangents_of_another_device_are_refused():
    f = ntk.factors(nn.Sequential(nn.Linear(2, 1)), torch.rand(3, 2))
    with pytest.raises(ValueError, match="on cpu for '0.weight', got .* on meta"):
        f.jvp({"0.weight": torch.empty(1, 2, device="meta")})


def test_rows_know_of_frozen_parameters_that_change_before_the_backward():
    net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
    net[0].requires_grad_(False)
    rows = ntk.value(net, torch.rand(4, 2))
    with torch.no_grad():
        net[0].weight.mul_(-3)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        rows.sum().backward()


def test_rows_of_a_dict_of_groups_are_refused():
    net, x = nn.Sequential(nn.Linear(2, 1)), torch.rand(3, 2)
    with pytest.raises(TypeError, match="expected points, got a dict of groups"):
        ntk.value(net, {"u": (x, ntk.value)})


def test_grams_of_factors_that_do_not_fit_are_refused():
    net, x = nn.Sequential(nn.Linear(2, 1)), torch.rand(3, 2)
    f = ntk.factors(net, x)
    with pytest.raises(TypeError, match="expected factors, got Tensor"):
        f.gram(x)
    with pytest.raises(ValueError, match="one dtype and device, got torch.float32 on cpu and torch.float64 on cpu"):
        f.gram(ntk.factors(copy.deepcopy(net).double(), x.double()))
