"""The report agrees where the native core is right, and says so where it is not."""

import dataclasses
import importlib
import subprocess
import sys

import pytest
import torch

from ntkfast.check import Check, check
from ntkfast.networks import MLP
from ntkfast.problems import Points
from ntkfast.residual import residual, value
from ntkfast.trace import trace

check_module = importlib.import_module("ntkfast.check")  # the package's attribute of that name is the function


@residual("t", "x")
def heat(u, kappa):
    return u.d(t=1) - kappa * u.d(x=2)


@residual("t", "x")
def flux(u, at):
    return at.nx * u.d(x=1)


def net_and_points(dtype=torch.float64, n=200):
    torch.manual_seed(0)
    return MLP([2, 10, 10, 1], dtype=dtype), torch.rand(n, 2, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_right_results_pass(dtype, capsys):
    net, x = net_and_points(dtype)
    found = check(net, x, heat.bind(kappa=0.3))
    assert found.passed and found.dtype == dtype
    assert (found.tile, found.trace_points) == (check_module.TILE_POINTS, {"": check_module.TRACE_POINTS})
    assert str(found).splitlines()[-1] == f"agree (tolerance {found.tolerance:.0e})"
    assert capsys.readouterr().out == ""


def test_no_warning_of_torch_about_itself_is_shown(tmp_path):
    """Torch warns once in a process, so it needs one of its own."""
    code = (
        "import torch, ntkfast as ntk\n"
        "residual = ntk.residual('t', 'x')(lambda u: u.d(t=1))\n"
        "assert ntk.check(ntk.MLP([2, 4, 1]), torch.rand(3, 2), residual).passed"
    )
    done = subprocess.run([sys.executable, "-Walways", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "torch.jit.script" not in done.stderr


def test_groups_are_reported_by_name():
    net, x = net_and_points(n=5)
    found = check(net, {"u": (x[:2], value), "r": (x, heat.bind(kappa=0.3))})
    assert found.passed
    assert found.trace_points == {"u": 2, "r": 5} and found.tile == 7
    assert "trace of 'u', 2 points" in str(found)


def test_coefficients_aligned_with_the_points_follow_them():
    net, x = net_and_points()
    assert check(net, x, heat.bind(kappa=torch.rand(200, dtype=torch.float64))).passed


def test_points_with_further_columns():
    net, x = net_and_points()
    assert check(net, Points(x, nx=torch.rand(200, dtype=torch.float64)), flux).passed


@pytest.mark.parametrize("name", ["trace", "gram"])
def test_wrong_results_do_not_pass(name, monkeypatch):
    right = getattr(check_module, name)
    monkeypatch.setattr(check_module, name, lambda *args: right(*args) * (1 + 1e-6))
    net, x = net_and_points()
    found = check(net, x)
    assert not found.passed
    assert "DISAGREE (tolerance 1e-10)" in str(found)
    error = found.gram_error if name == "gram" else found.trace_errors[""]
    assert error == pytest.approx(1e-6, rel=1e-3)


def test_not_a_number_does_not_pass():
    found = Check({"": 0.0}, float("nan"), {"": 1}, 1, torch.float64, 1e-10)
    assert not found.passed


def test_the_seed_chooses_the_points():
    net, x = net_and_points(torch.float32)
    assert check(net, x, seed=1) == check(net, x, seed=1)
    assert check(net, x, seed=1).trace_errors != check(net, x, seed=2).trace_errors


def test_the_report_is_frozen():
    net, x = net_and_points()
    with pytest.raises(dataclasses.FrozenInstanceError):
        check(net, x).tile = 3


def test_no_points_are_refused():
    net, x = net_and_points()
    with pytest.raises(ValueError, match="at least one point, got none"):
        check(net, x[:0])
    with pytest.raises(ValueError, match="at least one point in group 'u', got none"):
        check(net, {"u": (x[:0], value), "r": (x, value)})
    with pytest.raises(ValueError, match="at least one group, got none"):
        check(net, {})


def test_coefficients_that_are_not_aligned_with_the_points_stay_whole():
    x, k = torch.rand(50, 2), torch.tensor([0.3])
    burgers = residual("t", "x")(lambda u, k: u * u.d(t=1) - k * u.d(x=2)).bind(k=k)
    net = MLP([2, 8, 1])
    assert check(net, x, burgers).passed
    assert torch.allclose(trace(net, x, burgers, memory="40kB"), trace(net, x, burgers))


def test_residuals_may_choose_by_the_value():
    chosen = residual("t", "x")(lambda u: torch.where(u > 0, u**2, u))
    assert check(MLP([2, 8, 1]), torch.rand(50, 2), chosen).passed
