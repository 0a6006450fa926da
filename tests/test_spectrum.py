"""All eigenvalues, descending, in float64 whatever the parameters are."""

import math

import pytest
import torch

from ntkfast import reference
from ntkfast.networks import MLP
from ntkfast.residual import residual, value
from ntkfast.spectrum import condition_number, effective_rank, mode_decay, spectrum


@residual("t", "x")
def wave(u):
    return u.d(t=2) - 4.0 * u.d(x=2)


@pytest.fixture(params=[torch.float64, torch.float32], ids=["float64", "float32"])
def problem(request):
    torch.manual_seed(0)
    net = MLP([2, 9, 9, 1], standardize=((0.5, 0.5), (0.3, 0.3)), dtype=request.param)
    return net, torch.rand(7, 2, dtype=request.param)


def exact(net, points):
    """The eigenvalues of the reference gram in float64, at the same weights and points."""
    twin = MLP([2, 9, 9, 1], standardize=((0.5, 0.5), (0.3, 0.3)), dtype=torch.float64)
    twin.load_state_dict(net.state_dict())
    if isinstance(points, dict):
        points = {name: (x.double(), fn) for name, (x, fn) in points.items()}
        return torch.linalg.eigvalsh(reference.gram(twin, points)).flip(0)
    return torch.linalg.eigvalsh(reference.gram(twin, points.double(), wave)).flip(0)


def test_it_is_that_of_the_definition_in_float64(problem):
    net, x = problem
    found = spectrum(net, x, wave)
    assert found.shape == (7,) and found.dtype == torch.float64
    assert (found[:-1] >= found[1:]).all()
    assert torch.allclose(found, exact(net, x), rtol=0, atol=1e-10 * found[0].item())


def test_the_joint_spectrum_of_groups(problem):
    net, x = problem
    groups = {"u": (x[:3], value), "r": (x, wave)}
    found = spectrum(net, groups)
    assert found.shape == (10,)
    assert torch.allclose(found, exact(net, groups), rtol=0, atol=1e-10 * found[0].item())


def test_network_and_points_stay_as_they_are(problem):
    net, x = problem
    dtype, before = x.dtype, {name: p.clone() for name, p in net.state_dict().items()}
    spectrum(net, x, wave)
    assert x.dtype == dtype
    assert all(p.dtype == dtype and torch.equal(p, before[name]) for name, p in net.state_dict().items())


def test_more_rows_than_parameters_leave_zeros(problem):
    torch.manual_seed(0)
    net = MLP([2, 2, 1], dtype=torch.float64)
    found = spectrum(net, torch.rand(20, 2, dtype=torch.float64))
    rank = sum(p.numel() for p in net.parameters())
    assert (found[rank:].abs() <= 1e-13 * found[0]).all()


def test_wrt_takes_the_blocks_apart(problem):
    net, x = problem
    total = spectrum(net, x, wave).sum()
    parts = [spectrum(net, x, wave, wrt=pattern).sum() for pattern in ("0.*", "2.*", "4.*")]
    assert sum(parts).item() == pytest.approx(total.item(), rel=1e-12)


def test_no_rows_have_no_eigenvalues(problem):
    net, x = problem
    assert spectrum(net, x[:0], wave).shape == (0,)


def test_the_condition_number_is_the_ratio_of_the_extremes():
    assert condition_number(torch.tensor([0.5, 8.0, 2.0])) == 16.0
    assert condition_number(torch.tensor([1.0, 0.0])) == math.inf
    assert condition_number(torch.tensor([1.0, -1e-18])) == math.inf


def test_the_effective_rank_counts_equal_modes():
    assert effective_rank(torch.tensor([2.0, 2.0, 2.0, 0.0])) == pytest.approx(3.0)
    assert effective_rank(torch.tensor([5.0])) == pytest.approx(1.0)
    assert effective_rank(torch.tensor([1.0, -1e-17])) == pytest.approx(1.0)
    uneven = torch.tensor([0.9, 0.1], dtype=torch.float64)
    entropy = -(uneven * uneven.log()).sum()
    assert effective_rank(7 * uneven) == pytest.approx(float(entropy.exp()), rel=1e-12)


def test_mode_decay_is_what_gradient_flow_does():
    """Small steps of gradient descent on Σ r² of a linear model, whose kernel is frozen."""
    torch.manual_seed(0)
    J, theta, r = torch.randn(4, 6).double(), torch.zeros(6).double(), torch.randn(4).double()
    values, vectors = torch.linalg.eigh(J @ J.T)
    lr, steps = 1e-6, 4000
    for _ in range(steps):
        theta -= lr * 2 * J.T @ (r + J @ theta)
    left = vectors.T @ (r + J @ theta) / (vectors.T @ r)
    assert torch.allclose(left, mode_decay(values, lr, steps), rtol=1e-4)


def test_mode_decay_over_several_times():
    values = torch.tensor([3.0, 1.0, 0.0])
    found = mode_decay(values, 0.1, torch.tensor([0, 10]))
    assert found.shape == (2, 3) and found.dtype == torch.float64
    assert torch.equal(found[0], torch.ones(3, dtype=torch.float64))
    assert torch.equal(found[1], mode_decay(values, 0.1, 10))


@pytest.mark.parametrize("act", [condition_number, effective_rank, lambda mu: mode_decay(mu, 0.1, 1)])
def test_eigenvalues_that_are_none_are_refused(act):
    with pytest.raises(TypeError, match="expected a tensor of eigenvalues, got list"):
        act([1.0])
    with pytest.raises(ValueError, match=r"expected eigenvalues of shape \(N,\) with N ≥ 1, got \(0,\)"):
        act(torch.empty(0))
    with pytest.raises(ValueError, match="expected finite eigenvalues, got NaN or infinity"):
        act(torch.tensor([1.0, float("nan")]))


def test_what_has_no_answer_is_refused():
    with pytest.raises(ValueError, match="expected at least one positive eigenvalue, got none"):
        effective_rank(torch.zeros(3))
    with pytest.raises(ValueError, match="expected lr and steps of at least 0, got lr=-1.0 and steps=2"):
        mode_decay(torch.ones(2), -1.0, 2)


@pytest.mark.parametrize(("bad", "word"), [(math.nan, "NaN"), (1e200, "infinity")])
def test_a_kernel_that_is_not_finite_has_no_spectrum(bad, word):
    net = MLP([2, 5, 1], activation="identity", dtype=torch.float64)
    with torch.no_grad():
        next(net.parameters()).fill_(bad)
    with pytest.raises(ValueError, match=f"spectrum: expected a finite kernel, got {word}"):
        spectrum(net, torch.rand(4, 2, dtype=torch.float64))


def test_numbers_near_the_largest_have_a_rank_and_null_modes_never_decay():
    assert effective_rank(torch.full((3,), 1e308, dtype=torch.float64)) == pytest.approx(3, rel=1e-12)
    assert mode_decay(torch.tensor([1.0, 0.0]), 0.1, math.inf).tolist() == [0, 1]
    with pytest.raises(ValueError, match="at least 0, got lr=nan"):
        mode_decay(torch.ones(2), math.nan, 1.0)
    with pytest.raises(ValueError, match="at least 0"):
        mode_decay(torch.ones(2), 0.1, math.nan)
    with pytest.raises(TypeError, match="expected real eigenvalues, got torch.complex128"):
        effective_rank(torch.ones(2, dtype=torch.complex128))
