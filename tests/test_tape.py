"""Runs: what a residual function may capture and return."""

from types import SimpleNamespace

import pytest
import torch

from ntkfast import tape
from ntkfast.check import check
from ntkfast.networks import MLP
from ntkfast.recording import record
from ntkfast.residual import Residual

COORDINATES = ("t", "x", "y")
PARAMETER = torch.nn.Parameter(torch.tensor(0.5, dtype=torch.float64))


def points_of(n):
    return torch.rand(n, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(n))


REFUSED = {
    "captured coefficient": (lambda u: u.d(t=1) - PARAMETER * u.d(x=2), ValueError, "captured tensor .* requires grad"),
    "captured source": (lambda u, at: u - PARAMETER * at.x, ValueError, "captured tensor of shape"),
    "captured inside": (lambda u: torch.sin(PARAMETER * u), ValueError, "captured tensor of shape"),
    "switch in an operator": (lambda u: (u > 0.7) * (u.d(t=1) + u.d(y=1)), ValueError, "torch.where"),
    "switch around a Laplacian": (
        lambda u: torch.where(u > 0.7, 2.0, 1.0) * u.laplacian("t", "x") + u**3,
        ValueError,
        r"put them inside: torch\.where",
    ),
    "derivative of a product": (lambda u: (u * u).d(x=1), ValueError, "got a product or a function"),
    "Laplacian of a function": (lambda u: torch.sin(u).laplacian("x"), ValueError, "got a product or a function"),
    "number": (lambda u: 0.0, TypeError, r"shape \(100,\) or a dict of them, got float"),
    "nothing": (lambda u: None, TypeError, "got NoneType"),
    "tuple": (lambda u: (u, u), TypeError, "got tuple"),
    "empty dict": (lambda u: {}, ValueError, "got an empty dict"),
    "unnamed component": (lambda u: {0: u}, TypeError, "named by strings, got 0"),
    "scalar": (lambda u: u.mean(), ValueError, r"rows of shape \(100,\), got \(\)"),
    "matrix": (lambda u, at: u.exp()[:, None] * at.x, ValueError, r"rows of shape \(100,\), got \(100, 100\)"),
    "wrong component": (lambda u: {"a": u, "b": u.exp()[:3]}, ValueError, r"component 'b'.*got \(3,\)"),
    "booleans": (lambda u: u > 0, TypeError, "got torch.bool"),
    "missing coefficient": (lambda u, kappa: kappa * u, ValueError, r"got none for kappa; use bind\(kappa=…\)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses_with_a_sentence(name):
    function, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        record(Residual(function, COORDINATES), points_of(100), 1)


def test_a_second_run_that_goes_another_way_is_refused():
    state = SimpleNamespace(calls=0)

    def unsteady(u):
        state.calls += 1
        return u.d(t=1) * u if state.calls < 500 else u * u

    recording = record(Residual(unsteady, COORDINATES), points_of(3), 1)
    state.calls = 500
    with pytest.raises(ValueError, match="whatever the values of the jet"):
        recording.rows(torch.ones(2, 3, 1, dtype=torch.float64))


def unsteady_beyond(limit):
    """A coefficient inside a collapsed channel that switches on values which the probe does not reach."""

    def rows(u, at):
        a = torch.where(u > limit, 2.0, 1.0) * at.x
        return u.d(t=1) - (a * u.d(x=2) + at.y * u.d(y=2)) + u**3

    return rows


@pytest.mark.parametrize("attached", [False, True])
def test_where_a_look_would_wait_rows_and_seeds_of_other_coefficients_are_nan(monkeypatch, attached):
    points = points_of(20)
    residual = Residual(unsteady_beyond(10.0), COORDINATES)
    recording = record(residual, points, 1)
    out = torch.rand(recording.spec.n_channels, 20, 1, dtype=torch.float64)
    expected = recording.rows(out.clone().requires_grad_(attached)), recording.seeds(out)
    monkeypatch.setattr(tape, "_may_look", lambda *_: False)
    found = recording.rows(out.clone().requires_grad_(attached)), recording.seeds(out)
    assert torch.equal(found[0], expected[0]) and all(map(torch.equal, found[1], expected[1]))
    out[0, 4] = 11.0
    for values in (recording.rows(out.clone().requires_grad_(attached))[:, 0], recording.seeds(out)[0].sum((0, 2))):
        assert values.isnan().nonzero().flatten().tolist() == [4]
    monkeypatch.undo()
    with pytest.raises(ValueError, match="whatever the values of the jet"):
        recording.rows(out)


def test_derivatives_may_switch_inside_of_where():
    """What the refusal of a factor that switches advises."""

    def rows(u):
        laplacian = u.laplacian("t", "x")
        return torch.where(u > 0.1, 2 * laplacian, laplacian)

    assert check(MLP([3, 8, 1], dtype=torch.float64), points_of(30), Residual(rows, COORDINATES)).passed


def test_pieces_of_a_probed_residual_do_not_look_either(monkeypatch):
    """A piece binds the part of a coefficient that belongs to its points: that is no new function to be looked at."""
    points, kappa = points_of(20), torch.rand(20, dtype=torch.float64)
    residual = Residual(lambda u, kappa: u.d(t=1) - (1 + kappa) * u.d(x=2) + kappa * u.d(y=2) + u**3, COORDINATES)
    recording = record(residual.bind(kappa=kappa), points, 1)
    monkeypatch.setattr(tape, "_may_look", lambda residual, points: not residual._probed)
    monkeypatch.setattr(tape, "same_numbers", lambda *_: pytest.fail("a look"))
    piece = recording.part(5, 12)
    out = torch.rand(piece.spec.n_channels, 7, 1, dtype=torch.float64)
    assert piece.rows(out).isfinite().all()
