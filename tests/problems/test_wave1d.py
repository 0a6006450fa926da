"""The wave problems: their exact solutions satisfy every condition, and no other speed is let through."""

import dataclasses

import pytest
import torch
from torch import nn

import ntkfast as ntk


class Exact(nn.Module):
    """An exact solution as a network; its one parameter does nothing."""

    def __init__(self, problem: ntk.Problem) -> None:
        super().__init__()
        self.problem = problem
        self.unused = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, xy):
        t, x = xy.unbind(1)
        columns = type("At", (), {"t": t, "x": x})
        return self.problem.exact(columns)[:, None] + 0 * self.unused


@pytest.mark.parametrize(
    "problem",
    [
        ntk.problems.Wave1D(),
        ntk.problems.Wave1D(a=-1.5),
        ntk.problems.MultiscaleWave1D(),
        ntk.problems.MultiscaleWave1D(c=3.0, a=5),
    ],
    ids=["paper", "amplitude", "multiscale", "any speed"],
)
@pytest.mark.parametrize("name", ["start", "left", "right", "r"])
def test_the_exact_solution_has_zero_rows(problem, name):
    condition = problem.conditions[name]
    points = condition.draw(20, torch.Generator().manual_seed(0), torch.float64).points.xy
    rows = ntk.reference.rows(Exact(problem), points, condition.residual)
    scale = 1e3 if name == "r" else 1.0  # second derivatives are of the size (a c pi)^2
    assert rows.abs().max() < 1e-11 * scale


def test_another_speed_is_refused_and_the_problem_that_takes_it_is_named():
    with pytest.raises(ValueError, match=r"expected c = 2.*got c = 3.0.*MultiscaleWave1D\(c, a\)"):
        ntk.problems.Wave1D(c=3.0)


def test_a_frequency_that_moves_the_ends_is_refused():
    with pytest.raises(ValueError, match="integer frequency a.*got 1.5"):
        ntk.problems.MultiscaleWave1D(a=1.5)


def test_the_batch_of_the_paper():
    problem = ntk.problems.Wave1D()
    assert {name: condition.size for name, condition in problem.conditions.items()} == {
        "start": 100,
        "left": 100,
        "right": 100,
        "r": 300,
    }


@pytest.mark.parametrize("a", [0.5, float("inf"), float("nan")])
def test_frequencies_that_are_no_integers_are_refused(a):
    with pytest.raises(ValueError, match="expected an integer frequency a"):
        ntk.problems.MultiscaleWave1D(a=a)


def test_another_exact_solution_is_put_in_by_replace():
    assert dataclasses.replace(ntk.problems.Wave1D(), exact=None).exact is None
