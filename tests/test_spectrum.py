"""All eigenvalues, descending, in float64 whatever the parameters are."""

import pytest
import torch

from ntkfast import reference
from ntkfast.networks import MLP
from ntkfast.residual import residual, value
from ntkfast.spectrum import spectrum


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
