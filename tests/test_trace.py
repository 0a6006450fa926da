"""ntk.trace: tr K = Σ_i ‖∂r_i/∂θ‖², a plain sum."""

import subprocess
import sys

import pytest
import torch
from cases import Case, Problem, close, double, mlp, u_t, uniform, wave, wave_groups
from torch import nn

import ntkfast as ntk
from ntkfast import reference

TANH = Case("tanh", lambda: mlp(nn.Tanh), wave)


def test_equals_the_reference(problem: Problem):
    trace = ntk.trace(problem.net, problem.points, problem.residual)
    assert trace.shape == ()
    assert problem.close(trace, problem.jacobian.square().sum())


def test_is_the_sum_of_the_diagonal_and_of_the_blocks(problem: Problem):
    trace = ntk.trace(problem.net, problem.points, problem.residual)
    assert problem.close(ntk.diag(problem.net, problem.points, problem.residual).sum(), trace)
    blocks = ntk.trace(problem.net, problem.points, problem.residual, per_block=True)
    assert list(blocks) == list(problem.blocks)
    for name, J in problem.blocks.items():
        assert problem.close(blocks[name], J.square().sum())
    assert problem.close(sum(blocks.values()), trace)


def test_a_dict_of_groups_gives_a_dict(dtype: torch.dtype):
    net, groups = TANH.net(dtype), wave_groups(dtype=dtype)
    together = ntk.trace(net, groups)
    assert list(together) == list(groups)
    for name, (points, residual) in groups.items():
        assert close(together[name], reference.trace(double(net), points.double(), residual), dtype)
    by_block = ntk.trace(net, groups, per_block=True)
    assert list(by_block["ut"]) == ["1", "3", "5"]
    assert close(sum(by_block["ut"].values()), together["ut"], dtype)


def test_groups_do_not_interact():
    net, groups = TANH.net(), wave_groups()
    for name, (points, residual) in groups.items():
        assert close(ntk.trace(net, groups)[name], ntk.trace(net, points, residual), torch.float64)
        assert close(ntk.trace(net, {name: groups[name]})[name], ntk.trace(net, points, residual), torch.float64)


def test_many_groups_of_one_kind_and_of_mixed_kinds():
    net = TANH.net()
    kinds = [ntk.value, u_t, wave] * 5
    groups = {f"{i}": (uniform(3 + i, 2, i), residual) for i, residual in enumerate(kinds)}
    for name, trace in ntk.trace(net, groups).items():
        assert close(trace, reference.trace(net, *groups[name]), torch.float64)


def test_adds_up_over_points_as_a_plain_sum():
    net, x = TANH.net(), TANH.points(n=90)
    halves = ntk.trace(net, x[:31], wave) + ntk.trace(net, x[31:], wave)
    assert close(ntk.trace(net, x, wave), halves, torch.float64)
    assert close(ntk.trace(net, x.repeat(7, 1), wave), 7 * ntk.trace(net, x, wave), torch.float64)


@pytest.mark.parametrize("verb", [ntk.trace, ntk.diag, ntk.gram], ids=lambda verb: verb.__name__)
def test_kernels_are_constants_to_autograd(verb):
    kernel = verb(TANH.net(), TANH.points(), wave)
    assert not kernel.requires_grad and kernel.grad_fn is None


def test_float32_traces_are_summed_in_float64():
    # A float32 running sum over 200 000 equal terms is off by 1e-4 and more.
    net, x = TANH.net(torch.float32), TANH.points(torch.float32, n=50)
    expected = reference.trace(double(net), x.double(), ntk.value) * 4000
    assert close(ntk.trace(net, x.repeat(4000, 1)), expected, torch.float32)


@pytest.mark.parametrize("memory", ["1MB", "3MB", 2**20, 10_000_000])
def test_a_memory_budget_changes_nothing(memory):
    net, x = TANH.net(), TANH.points(n=3000)
    torch.testing.assert_close(ntk.trace(net, x, wave, memory=memory), ntk.trace(net, x, wave), rtol=1e-12, atol=0)
    groups = wave_groups(500)
    free = ntk.trace(net, groups)
    for name, trace in ntk.trace(net, groups, memory=memory).items():
        torch.testing.assert_close(trace, free[name], rtol=1e-12, atol=0)


def test_data_that_a_function_captures_cannot_be_cut_under_a_budget_but_a_coefficient_can():
    net, x, data = TANH.net(), TANH.points(n=6000), uniform(6000, 1)[:, 0]
    captured = ntk.residual("t", "x")(lambda u: u**2 * data)
    with pytest.raises(ValueError, match="a tensor that it captures cannot be cut: bind it"):
        ntk.trace(net, x, captured, memory="200kB")
    bound = ntk.residual("t", "x")(lambda u, data: u**2 * data).bind(data=data)
    torch.testing.assert_close(
        ntk.trace(net, x, bound, memory="200kB"), ntk.trace(net, x, captured), rtol=1e-12, atol=0
    )


def test_one_megabyte_is_enough_up_to_width_64():
    case = Case("64", lambda: mlp(nn.Tanh, (2, 64, 64, 64, 1)), wave)
    net, x = case.net(), case.points(n=400)
    torch.testing.assert_close(ntk.trace(net, x, wave, memory="1MB"), ntk.trace(net, x, wave), rtol=1e-12, atol=0)


@pytest.mark.parametrize("wrt", ["3.weight", "*.weight", "*.bias", ["1.*", "5.weight"]])
def test_patterns_choose_parameters(wrt):
    net, x = TANH.net(), TANH.points()
    assert close(ntk.trace(net, x, wave, wrt=wrt), reference.trace(net, x, wave, wrt=wrt), torch.float64)
    assert close(
        ntk.trace(net, wave_groups(), wrt=wrt)["u"], reference.trace(net, wave_groups(), wrt=wrt)["u"], torch.float64
    )


def test_freezing_a_layer_removes_exactly_its_block():
    net, x = TANH.net(), TANH.points()
    blocks = ntk.trace(net, x, wave, per_block=True)
    net[1].requires_grad_(False)
    assert close(ntk.trace(net, x, wave), blocks["3"] + blocks["5"], torch.float64)
    assert list(ntk.trace(net, x, wave, per_block=True)) == ["3", "5"]


def test_the_last_layer_is_in_the_traces_of_derivatives_and_its_bias_is_not():
    net, x = TANH.net(), TANH.points()
    for residual in (u_t, wave):
        last = ntk.trace(net, x, residual, wrt="5.weight")
        assert float(last) > 0
        assert close(last, reference.trace(net, x, residual, wrt="5.weight"), torch.float64)
        assert float(ntk.trace(net, x, residual, wrt="5.bias")) == 0.0
    assert float(ntk.trace(net, x, ntk.value, wrt="5.bias")) == len(x)


def test_of_no_points_is_zero_and_of_one_point_its_row(dtype: torch.dtype):
    net, x = TANH.net(dtype), TANH.points(dtype)
    none = ntk.trace(net, x[:0], wave)
    assert float(none) == 0.0 and none.dtype == dtype
    assert close(ntk.trace(net, x[:1], wave), ntk.diag(net, x[:1], wave)[0], dtype)


def test_of_a_network_with_everything_frozen_is_zero_or_refused():
    net, x = TANH.net().requires_grad_(False), TANH.points()
    try:
        trace = ntk.trace(net, x, wave)
    except ValueError as error:
        assert "got" in str(error)
    else:
        assert float(trace) == 0.0


MEASURE = """
import resource, sys
import torch, ntkfast as ntk
torch.manual_seed(0)
net = ntk.MLP([2, 40, 40, 1])
burgers = ntk.residual("t", "x")(lambda u: u.d(t=1) + u * u.d(x=1) - 0.1 * u.d(x=2))
wave = ntk.residual("t", "x")(lambda u: u.d(t=2) - 4.0 * u.d(x=2))
residual = {"burgers": burgers, "wave": wave}[sys.argv[1]]
x = torch.rand(400_000, 2)
ntk.trace(net, x[:1000], residual)  # libraries and threads
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
ntk.trace(net, x, residual, memory="4MB")
print(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))
"""


@pytest.mark.parametrize("residual", ["wave", "burgers"])
def test_memory_stays_within_the_budget_for_any_number_of_points(tmp_path, residual):
    """Resident memory of a process of its own, beyond the standardised copy of the points (here none)."""
    done = subprocess.run([sys.executable, "-c", MEASURE, residual], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) <= 6e6
