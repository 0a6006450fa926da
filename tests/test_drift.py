"""Drift of kernel and parameters: the definition, tile by tile."""

import copy

import pytest
import torch
from cases import Case, burgers, mlp, u_t, wave
from torch import nn

import ntkfast as ntk
from ntkfast.drift import kernel_drift, parameter_drift

TANH = Case("tanh", lambda: mlp(nn.Tanh), wave)


@pytest.fixture
def nets():
    start = TANH.net()
    net = copy.deepcopy(start)
    with torch.no_grad():
        for p in net.parameters():
            p += 0.05 * torch.randn_like(p)
    return net, start


def definition(net, start, *args) -> torch.Tensor:
    now, then = ntk.gram(net, *args), ntk.gram(start, *args)
    return (now - then).norm() / then.norm()


@pytest.mark.parametrize("residual", [ntk.value, wave, burgers], ids=lambda r: r.name)
def test_is_the_definition(nets, residual):
    x = TANH.points(n=40)
    found = kernel_drift(*nets, x, residual)
    assert found.shape == () and found.dtype == torch.float64
    assert torch.isclose(found, definition(*nets, x, residual), rtol=1e-10)


@pytest.mark.parametrize("memory", [None, "600kB"])
def test_tiles_add_up(nets, memory):
    x = TANH.points(n=600)
    groups = {"u": (x[:300], ntk.value), "ut": (x[:7], u_t), "r": (x, wave)}
    assert torch.isclose(kernel_drift(*nets, groups, memory=memory), definition(*nets, groups), rtol=1e-10)


def test_patterns_choose_parameters(nets):
    x = TANH.points(n=20)
    now, then = (ntk.gram(net, x, wave, wrt="*.bias") for net in nets)
    assert torch.isclose(kernel_drift(*nets, x, wave, wrt="*.bias"), (now - then).norm() / then.norm(), rtol=1e-10)


def test_nothing_moved_and_nothing_there(nets):
    assert kernel_drift(nets[0], nets[0], TANH.points(n=5), wave) == 0
    assert kernel_drift(*nets, TANH.points(n=5)[:0], wave) == 0
    assert kernel_drift(*nets, {}) == 0
    assert parameter_drift(nets[0], nets[0]) == 0


def test_parameters(nets):
    now, then = (torch.cat([p.detach().flatten() for p in net.parameters()]) for net in nets)
    assert torch.isclose(parameter_drift(*nets), (now - then).norm() / then.norm(), rtol=1e-12)


def test_refusals(nets):
    other = ntk.MLP([2, 5, 1], dtype=torch.float64)
    with pytest.raises(ValueError, match="expected networks of the same sizes"):
        kernel_drift(nets[0], other, TANH.points(n=5))
    with pytest.raises(ValueError, match="expected parameters of the same shapes"):
        parameter_drift(nets[0], other)
    with pytest.raises(ValueError, match=r"memory: expected at least \d+ bytes"):
        kernel_drift(*nets, TANH.points(n=5), memory=100)


def test_a_frozen_copy_is_a_start_like_any_other(nets):
    net, start = nets
    x = torch.rand(5, 2, dtype=torch.float64)
    expected = kernel_drift(net, start, x)
    assert kernel_drift(net, copy.deepcopy(start).requires_grad_(False), x) == expected > 0


def test_a_start_at_zero_is_infinitely_far_away():
    net = nn.Sequential(nn.Linear(2, 1, bias=False), nn.Linear(1, 1, bias=False))
    start = copy.deepcopy(net)
    with torch.no_grad():
        for p in start.parameters():
            p.zero_()
    assert kernel_drift(net, start, torch.rand(5, 2)) == parameter_drift(net, start) == float("inf")


@pytest.mark.parametrize("scale", [1e-85, 1.0, 1e80])
def test_squares_beyond_the_numbers_there_are_change_nothing(nets, scale):
    net, start, x = nets[0], nets[1], torch.rand(20, 2, dtype=torch.float64)
    scaled = ntk.residual("t", "x")(lambda u: scale * u)
    expected = kernel_drift(net, start, x, ntk.value)
    assert kernel_drift(net, start, x, scaled) == pytest.approx(expected.item(), rel=1e-10)
    for network in (pair := [copy.deepcopy(n) for n in (net, start)]):
        for p in network.parameters():
            p.data.mul_(scale**2)
    assert parameter_drift(*pair) == pytest.approx(parameter_drift(net, start).item(), rel=1e-10)
