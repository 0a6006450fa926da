"""On a CUDA device trace, diag, gram, vjp and jvp are those of the reference, which runs on the CPU in float64."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from cases import TOLERANCE, Problem, mlp, randomized, uniform, wave, wave_groups
from torch import Tensor, nn

import ntkfast as ntk
from ntkfast import _C, reference

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not (torch.cuda.is_available() and _C.cuda_built), reason="needs a CUDA device and a build with CUDA"
    ),
]


def close(actual: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    """Norm-wise, and the result is where the network is."""
    assert actual.is_cuda and actual.dtype == dtype and actual.shape == expected.shape
    error = (actual.cpu().double() - expected.double()).norm()
    assert error <= TOLERANCE[dtype] * expected.double().norm()


def on_device(problem: Problem) -> tuple[nn.Module, Tensor]:
    return copy.deepcopy(problem.net).cuda(), problem.points.cuda()


def test_rows_diag_and_trace(problem: Problem) -> None:
    net, x = on_device(problem)
    f = ntk.factors(net, x, problem.residual)
    rows = reference.rows(copy.deepcopy(problem.net).double(), problem.points.double(), problem.residual)
    diag = problem.jacobian.square().sum(1)
    close(f.rows.detach(), rows, problem.dtype)
    close(f.diag(), diag, problem.dtype)
    close(ntk.diag(net, x, problem.residual), diag, problem.dtype)
    close(ntk.trace(net, x, problem.residual), diag.sum(), problem.dtype)


@pytest.mark.parametrize("method", ["auto", "structured", "explicit"])
def test_gram(problem: Problem, method: str) -> None:
    net, x = on_device(problem)
    K = ntk.gram(net, x, problem.residual, method=method)
    close(K, problem.jacobian @ problem.jacobian.T, problem.dtype)
    assert torch.equal(K, K.T)
    across = ntk.gram(net, x, problem.residual, x[::2].clone(), method=method)
    k = len(K) // len(x)
    rows = torch.arange(len(K)).view(-1, k)[::2].flatten()
    close(across, problem.jacobian @ problem.jacobian[rows].T, problem.dtype)


def test_vjp_and_jvp(problem: Problem) -> None:
    net, x = on_device(problem)
    f = ntk.factors(net, x, problem.residual)
    weights = torch.randn(f.shape[0], dtype=problem.dtype)
    gradient = torch.cat([g.reshape(-1) for g in f.vjp(weights.cuda()).values()])
    close(gradient, weights.double() @ problem.jacobian, problem.dtype)
    v = {name: torch.randn_like(p) for name, p in f.parameters().items()}
    flat = torch.cat([t.reshape(-1) for t in v.values()]).cpu().double()
    close(f.jvp(v), problem.jacobian @ flat, problem.dtype)


def test_loss_gradient(problem: Problem) -> None:
    net, x = on_device(problem)
    found = ntk.loss_gradient(net, {"": (x, problem.residual)}, {"": 1.5}, traces=True)
    rows = reference.rows(copy.deepcopy(problem.net).double(), problem.points.double(), problem.residual).detach()
    close(found.rows, rows.reshape(-1), problem.dtype)
    gradient = torch.cat([g.reshape(-1) for g in found.gradient.values()])
    close(gradient, 3 / rows.numel() * rows.reshape(-1) @ problem.jacobian, problem.dtype)
    close(found.traces[""], problem.jacobian.square().sum(), problem.dtype)


def test_groups(dtype: torch.dtype) -> None:
    net = randomized(mlp(nn.Tanh)).to(dtype)
    groups = wave_groups(12, dtype)
    there = {name: (x.cuda(), residual) for name, (x, residual) in groups.items()}
    f, g = ntk.factors(copy.deepcopy(net).cuda(), there), ntk.factors(net, groups)
    close(f.gram(), g.gram(), dtype)
    for name, diag in g.diag().items():
        close(f.diag()[name], diag, dtype)
    close(f["r"].gram(), g["r"].gram(), dtype)


def results(net: nn.Module, x: Tensor) -> list[Tensor]:
    f = ntk.factors(net, x, wave)
    grams = [ntk.gram(net, x, wave, method=method) for method in ("structured", "explicit")]
    return [*grams, f.gram(), f.diag(), *f.vjp(torch.ones_like(f.rows.detach())).values(), ntk.diag(net, x, wave)]


def test_the_same_numbers_every_time(dtype: torch.dtype) -> None:
    net, x = randomized(mlp(nn.Tanh, (2, 130, 65, 1))).to(dtype).cuda(), uniform(300).to(dtype).cuda()
    for first, second in zip(results(net, x), results(net, x), strict=True):
        assert torch.equal(first, second)


def test_a_memory_budget_changes_no_bit(dtype: torch.dtype) -> None:
    net, x = randomized(mlp(nn.Tanh)).to(dtype).cuda(), uniform(300).to(dtype).cuda()
    assert torch.equal(ntk.diag(net, x, wave, memory="1MB"), ntk.diag(net, x, wave))


@pytest.mark.parametrize("method", ["auto", "structured", "explicit"])
@pytest.mark.parametrize("memory", ["900kB", "2MB", "64MB"])
def test_a_memory_budget_changes_no_bit_of_a_gram(method: str, memory: str, dtype: torch.dtype) -> None:
    net, x = randomized(mlp(nn.Tanh, (2, 64, 64, 1))).to(dtype).cuda(), uniform(300).to(dtype).cuda()
    K = ntk.gram(net, x, wave, method=method)
    assert torch.equal(ntk.gram(net, x, wave, method=method, memory=memory), K)
    across = ntk.gram(net, x, wave, x[:40], ntk.value, method=method)
    assert torch.equal(ntk.gram(net, x, wave, x[:40], ntk.value, method=method, memory=memory), across)
    back = ntk.gram(net, x[:40], ntk.value, x, wave, method=method)
    assert torch.equal(across, back.T)


def test_runs_on_the_current_stream() -> None:
    """The result is right although the default stream is busy and never waited for."""
    net, x = randomized(mlp(nn.Tanh)).cuda(), uniform(300).cuda()
    expected = ntk.diag(net, x, wave).cpu()
    torch.cuda.synchronize()
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        actual = ntk.diag(net, x * 1.0, wave)
    side.synchronize()
    assert torch.equal(actual.cpu(), expected)


@pytest.mark.parametrize("empty", [0, 1])
def test_few_points(empty: int, dtype: torch.dtype) -> None:
    net, x = randomized(mlp(nn.Tanh)).to(dtype), uniform(empty).to(dtype)
    there = copy.deepcopy(net).cuda()
    for call in (ntk.diag, ntk.trace, ntk.gram):
        close(call(there, x.cuda(), wave), call(net, x, wave), dtype)


def test_a_factor_that_switches_beyond_the_trial_gives_nan() -> None:
    residual = ntk.residual("t", "x")(lambda u: torch.where(u > 10, 2.0, 1.0) * (u.d(x=2) + u.d(t=2)) + u**3)
    net, x = randomized(mlp(nn.Tanh)).cuda(), uniform(30).cuda()
    assert ntk.diag(net, x, residual).isfinite().all()
    with torch.no_grad():
        net[-1].bias.add_(100)
    assert ntk.diag(net, x, residual).isnan().all()
    with pytest.raises(ValueError, match="whatever the values of the jet"):
        ntk.diag(net.cpu(), x.cpu(), residual)


def refusal(call: Callable[[], object], message: str) -> None:
    with pytest.raises((ValueError, RuntimeError), match=message):
        call()


def test_refuses_mixed_devices() -> None:
    net, x = randomized(mlp(nn.Tanh)), uniform(5)
    refusal(lambda: ntk.diag(copy.deepcopy(net).cuda(), x, wave), "expected points like the network's parameters")
    f, there = ntk.factors(net, x, wave), ntk.factors(copy.deepcopy(net).cuda(), x.cuda(), wave)
    refusal(lambda: f.vjp(torch.ones(5).double().cuda()), "expected one number a row")
    refusal(lambda: there.jvp({"1.weight": torch.ones(16, 2).double()}), "expected .* on cuda:0 .* got .* on cpu")


def test_too_many_channels() -> None:
    @ntk.residual(*(f"x{i}" for i in range(170)))
    def laplacian(u):
        return u.laplacian(*(f"x{i}" for i in range(170)))

    net = randomized(mlp(nn.Tanh, (170, 4, 1))).cuda()
    refusal(lambda: ntk.diag(net, uniform(2, 170).cuda(), laplacian), "expected at most 160 channels a component")


def test_waits_for_every_launch_when_asked() -> None:
    code = """
import torch, ntkfast as ntk
net, x = ntk.MLP([2, 16, 1]).cuda(), torch.rand(5, 2).cuda()
assert ntk.trace(net, x) > 0
"""
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "NTKFAST_SYNC": "1"})
    assert done.returncode == 0
