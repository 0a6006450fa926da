"""The probe: rows that mix points and functions that branch on values are found."""

import math
import subprocess
import sys

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
    "branch on one": (lambda u: u if u[0] > 0 else -u, TypeError, "got a branch"),
    "branch by bool": (lambda u: u * bool(u.max()), TypeError, "got a branch .*bool"),
    "float": (lambda u: u * float(u.max()), TypeError, "got a conversion to float"),
    "function of one number": (lambda u: u * math.sin(u.max()), TypeError, "got a conversion to float"),
    "int": (lambda u: u * int(u.max()), TypeError, "got a conversion to int"),
    "item": (lambda u: u * u.max().item(), TypeError, r"got a conversion by \.item\(\)"),
    "list": (lambda u: u * u.tolist()[0], TypeError, r"got a conversion by \.tolist\(\)"),
    "index": (lambda u: u * (1, 2)[(u.max() > 0).long()], TypeError, "got a conversion to an index"),
    "branch on points": (lambda u, at: u if at.x > 0 else -u, TypeError, "got a branch"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses_with_a_sentence(name):
    function, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        record(Residual(function, COORDINATES), points_of(100), 1)


def test_torch_does_not_warn_of_numbers_that_are_refused(tmp_path):
    """Torch warns once in a process, so it needs one of its own."""
    code = (
        "import torch, ntkfast as ntk\n"
        "residual = ntk.residual('t', 'x')(lambda u: u * float(u.max()))\n"
        "ntk.trace(ntk.MLP([2, 4, 1]), torch.rand(3, 2), residual)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert "got a conversion to float" in done.stderr.splitlines()[-1] and "Warning" not in done.stderr


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
