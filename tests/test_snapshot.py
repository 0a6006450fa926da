"""What a sweep leaves behind belongs to its factors, and what factors return belongs to the caller."""

import copy

import pytest
import torch
from cases import Case, burgers, close, heat, mlp, uniform, wave
from torch import nn

import ntkfast as ntk
from ntkfast import reference

TANH = Case("tanh", lambda: mlp(nn.Tanh), wave)


def test_factors_whose_buffers_were_used_again_say_so():
    net, x = TANH.net(), TANH.points()
    workspace = ntk.Workspace()
    old = ntk.factors(net, x, wave, workspace=workspace)
    rows, traced = old.rows, old.trace()
    new = ntk.factors(net, 2 * x, wave, workspace=workspace)
    assert not torch.equal(new.trace(), traced)
    acts = [old.trace, old.diag, old.gram, old.jacobian, lambda: old.blocks, lambda: old.vjp(rows.detach())]
    for act in [*acts, lambda: old.jvp({}), lambda: new.gram(old), rows.sum().backward]:
        with pytest.raises(ValueError, match="expected factors whose buffers are still theirs"):
            act()


def test_without_points_parameters_or_groups_there_is_still_a_jacobian(dtype: torch.dtype):
    net, x = TANH.net(dtype), TANH.points(dtype)
    assert ntk.factors(net, x[:0], wave).jacobian().shape == (0, 337)
    assert ntk.factors(net, x[:0], wave).blocks["1"].A.shape == (4, 0, 2)
    assert ntk.factors(net, {}).jacobian().shape == (0, 337)
    frozen = copy.deepcopy(net).requires_grad_(False)
    assert ntk.factors(frozen, x, wave).jacobian().shape == (len(x), 0)


def test_given_gradients_must_fit():
    net, x = TANH.net(), TANH.points()
    f = ntk.factors(net, x, wave)
    good = {name: torch.empty_like(p) for name, p in net.named_parameters()}
    ones = torch.ones(len(x), dtype=torch.float64)
    assert all(torch.equal(a, b) for a, b in zip(f.vjp(ones, out=good).values(), f.vjp(ones).values(), strict=True))
    weight = good["3.weight"]
    for wrong in (weight.T, weight[:5], weight.float(), weight.new_empty(0)):
        with pytest.raises(ValueError, match="vjp: expected out contiguous, .* for '3.weight'"):
            f.vjp(ones, out={**good, "3.weight": wrong})
    with pytest.raises(ValueError, match="vjp: expected a tensor for '3.weight' in out, got NoneType"):
        f.vjp(ones, out={name: g for name, g in good.items() if name != "3.weight"})


def test_rows_of_a_forward_sweep_refuse_parameters_that_changed():
    net, x = TANH.net(), TANH.points()
    loss = wave(net, x).square().sum()
    with torch.no_grad():
        net[3].weight += 1.0
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("wrt", ["*.bias", None])
def test_a_row_that_overflows_leaves_the_others_alone(wrt):
    """Inner products left behind by one tile must not reach another."""
    net, x = TANH.net(torch.float32), uniform(3000, 2).float()
    x[1234] = 1e30
    sane = torch.ones(3000, dtype=torch.bool)
    sane[1234] = False
    burgers_rows = ntk.factors(net, x, burgers, wrt=wrt)
    found = [burgers_rows.diag(), ntk.diag(net, x, burgers, wrt=wrt)]
    for diag in found:
        assert diag[sane].isfinite().all()


def test_rows_of_a_forward_sweep_refuse_points_and_coefficients_that_changed():
    net, x = TANH.net(), TANH.points()
    kappa = torch.tensor(0.3, dtype=torch.float64)
    for changed in (x, kappa):
        rows = heat.bind(kappa=kappa)(net, x)
        changed.mul_(1.5)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            rows.sum().backward()


def test_what_is_returned_is_the_callers_own():
    f = ntk.factors(TANH.net(), TANH.points(), wave)
    trace, rows = f.trace(), f.rows.detach().clone()
    for block in f.diag(per_block=True).values():
        block.zero_()
    with torch.no_grad():
        f.rows.mul_(2)
    assert torch.equal(f.trace(), trace) and torch.equal(f.rows.detach(), rows)


def test_factors_of_different_parameterizations_do_not_pair():
    x = uniform(4)
    plain = ntk.MLP([2, 8, 1], dtype=torch.float64)
    scaled = ntk.MLP([2, 8, 1], parameterization="ntk", dtype=torch.float64)
    with pytest.raises(ValueError, match="gram: expected factors of one parameterization"):
        ntk.factors(plain, x).gram(ntk.factors(scaled, x))


def test_a_scale_of_zero_is_no_frozen_parameter():
    net, x = ntk.MLP([2, 8, 1], parameterization="ntk", w_std=0.0, dtype=torch.float64), uniform(4)
    f = ntk.factors(net, x)
    assert f.shape == (4, 33)
    assert close(f.jacobian(), reference.jacobian(net, x), torch.float64)
    assert list(f.vjp(torch.ones(4, dtype=torch.float64))) == [name for name, _ in net.named_parameters()]


def test_outputs_tell_autograd_that_they_were_written():
    net, x = TANH.net(), TANH.points()
    out = torch.ones(len(x), len(x), dtype=torch.float64)
    w = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    y = (w * out).sum()
    ntk.gram(net, x, wave, out=out)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()
    with pytest.raises(ValueError, match="expected an out that requires no grad"):
        ntk.gram(net, x, wave, out=out.clone().requires_grad_())
    with pytest.raises(TypeError, match="gram: expected a tensor as out, got list"):
        ntk.gram(net, x, wave, out=[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_a_caller_does_to_the_diagonal_stays_there(dtype):
    f = ntk.factors(nn.Sequential(nn.Linear(2, 1, dtype=dtype)), torch.rand(3, 2, dtype=dtype))
    before = f.trace()
    f.diag().mul_(2)
    f.diag(per_block=True)["0"].mul_(2)
    assert torch.equal(f.trace(), before)


def test_the_diagonal_is_found_once_and_not_copied():
    f = ntk.factors(TANH.net(), TANH.points(), wave)
    assert f._snapshot.layer_diag() is f._snapshot.layer_diag()
    assert copy.deepcopy(f).trace() == f.trace()
