"""The probe: rows that mix points and functions that branch on values are found."""

import pytest
import torch

from ntkfast.diag import diag
from ntkfast.networks import MLP
from ntkfast.recording import record
from ntkfast.residual import Residual

COORDINATES = ("t", "x", "y")
ALIGNED = torch.rand(100, dtype=torch.float64)


def points_of(n):
    return torch.rand(n, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(n))


REFUSED = {
    "mean": (lambda u: u - u.mean(), ValueError, "rows that mix points"),
    "norm": (lambda u: u / u.norm(), ValueError, "rows that mix points"),
    "neighbour": (lambda u: u - u.roll(1), ValueError, "rows that mix points"),
    "flip": (lambda u: u + u.flip(0), ValueError, "rows that mix points"),
    "first": (lambda u: u - u[0], ValueError, "rows that mix points"),
    "running sum": (lambda u: u + u.cumsum(0), ValueError, "rows that mix points"),
    "mean of a logarithm": (lambda u: u - torch.log(u).mean(), ValueError, "rows that mix points"),
    "mean of the points": (lambda u, at: u - at.x.mean(), ValueError, "rows that mix points"),
    "coefficient that mixes": (lambda u, at: u.d(t=1) - at.x.mean() * u.d(x=2), ValueError, "rows that mix points"),
    "coefficients that mix": (lambda u, at: u.d(t=1) - at.x.flip(0) * u.d(x=2), ValueError, "rows that mix points"),
    "beside aligned data": (lambda u, at: u - ALIGNED * u.mean(), ValueError, "rows that mix points"),
    "noise": (lambda u, at: u - torch.rand_like(at.x), ValueError, "rows that mix points"),
    "branch": (lambda u: u if u > 0 else -u, TypeError, "got a branch"),
    "branch on a mean": (lambda u: u if u.mean() > 0 else -u, TypeError, "got a branch"),
    "branch on one": (lambda u: u if u[0].item() > 0 else -u, TypeError, "got a branch"),
    "branch on points": (lambda u, at: u if at.x > 0 else -u, TypeError, "got a branch"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses_with_a_sentence(name):
    function, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        record(Residual(function, COORDINATES), points_of(100), 1)


@pytest.mark.parametrize("n", [1, 2, 3, 65, 400])
def test_mixed_rows_are_found_for_any_number_of_points(n):
    for function in (lambda u: u - u.mean(), lambda u: u * u.flip(0), lambda u: u - u[0], lambda u: u - u[-1]):
        with pytest.raises(ValueError, match="rows that mix points"):
            record(Residual(function, COORDINATES), points_of(n), 1)


def test_aligned_data_is_not_mixing():
    residual = Residual(lambda u: u**2 - ALIGNED, COORDINATES)
    assert record(residual, points_of(100), 1).n_components == 1
    with pytest.raises(ValueError, match=r"shape \(30,\)"):
        record(Residual(lambda u: u - ALIGNED, COORDINATES), points_of(30), 1)


@pytest.mark.parametrize("name", [name for name in REFUSED if "branch" in name])
def test_a_branch_is_found_on_one_point(name):
    with pytest.raises(TypeError, match="got a branch"):
        record(Residual(REFUSED[name][0], COORDINATES), points_of(1), 1)


@pytest.mark.parametrize("extra", [lambda u: 0.0, lambda u: u**3], ids=["linear", "nonlinear"])
def test_a_coefficient_that_is_no_number_at_one_point_is_nan_there(extra):
    """sin x / x on the axis: that row is NaN, and not taken to depend on others."""
    points = points_of(30)
    points[2, 1] = 0
    residual = Residual(lambda u, at: u.d(t=1) - torch.sin(at.x) / at.x * u.d(x=2) + extra(u), COORDINATES)
    net = MLP([3, 5, 1], dtype=torch.float64)
    assert diag(net, points, residual).isnan().nonzero().flatten().tolist() == [2]
    bound = Residual(lambda u, k: k * u.d(x=2) + u.d(t=2) + extra(u), COORDINATES).bind(k=float("nan"))
    assert diag(net, points, bound).isnan().all()
