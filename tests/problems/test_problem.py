"""Problems: names come from the domain, groups from components, errors from the exact solution."""

import copy

import pytest
import torch
from torch import nn

import ntkfast as ntk
from ntkfast.problems import predict

D = ntk.Box(t=(0, 1), x=(0, 1))


def line(at):
    return 1 + at.t - 2 * at.x


class Line(nn.Module):
    """The exact solution as a network."""

    def __init__(self, offset: float = 0.0) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.tensor(offset, dtype=torch.float64))

    def forward(self, xy):
        return (1 + self.offset + xy[:, :1] - 2 * xy[:, 1:]).expand(-1, 1)


def test_plain_functions_become_residuals_in_the_names_of_the_domain():
    problem = ntk.Problem(D, {"r": ntk.Condition(D, lambda u: u.d(t=1), n=3)})
    assert problem.conditions["r"].residual.coordinates == ("t", "x")


def test_a_component_is_its_own_group_and_a_lone_one_takes_the_name_of_its_condition():
    problem = ntk.Problem(
        D,
        {
            "start": ntk.Condition(D, lambda u: {"u": u, "ut": u.d(t=1)}, n=3),
            "left": ntk.Condition(D.at(x=0), n=3, group="u"),
            "right": ntk.Condition(D.at(x=1), n=3),
        },
    )
    assert problem.groups_of("start", ("u", "ut")) == ("u", "ut")
    assert problem.groups_of("left", ("",)) == ("u",)
    assert problem.groups_of("right", ("",)) == ("right",)


def test_group_for_a_residual_that_names_its_components_is_refused():
    problem = ntk.Problem(D, {"start": ntk.Condition(D, lambda u: {"u": u}, n=3, group="w")})
    with pytest.raises(ValueError, match="expected no group= of condition 'start', .* got 'w'"):
        problem.groups_of("start", ("u",))


def test_the_error_is_zero_for_the_exact_solution_and_relative_otherwise():
    problem = ntk.Problem(D, {"u": ntk.Condition(D, n=3)}, exact=line)
    assert problem.error(Line(), size=20) < 1e-14
    norm = problem.solution(D.grid(20)).square().mean().sqrt().item()
    assert problem.error(Line(0.5), size=20) == pytest.approx(0.5 / norm, rel=1e-12)


def test_the_chunk_of_a_prediction_changes_nothing():
    grid = D.grid(7)
    assert torch.equal(predict(Line(), grid, chunk=5), predict(Line(), grid))


@ntk.residual("x", "t")
def swapped(u):
    return u


@pytest.mark.parametrize(
    ("conditions", "sentence"),
    [
        ({}, "at least one condition"),
        ({"a": ntk.Condition(D, swapped, n=3)}, r"'a' in the domain's coordinates \('t', 'x'\), got \('x', 't'\)"),
        ({"a": ntk.Condition(ntk.Box(y=(0, 1)), n=3)}, r"'a' on the domain's coordinates \('t', 'x'\), got \('y',\)"),
        ({"a": ntk.Condition(torch.zeros(4, 3))}, r"'a' with a column for each of \('t', 'x'\), got 3 columns"),
        (
            {"a": ntk.Condition(ntk.Points(torch.zeros(4, 2), x=torch.zeros(4)))},
            r"'a': expected columns with other names than the coordinates \('t', 'x'\), got 'x'",
        ),
    ],
)
def test_conditions_that_disagree_with_the_domain_are_refused(conditions, sentence):
    with pytest.raises(ValueError, match=sentence):
        ntk.Problem(D, conditions)


def test_without_an_exact_solution_there_is_no_error_to_measure():
    with pytest.raises(ValueError, match="Problem.error: expected a problem with an exact solution, got one without"):
        ntk.Problem(D, {"u": ntk.Condition(D, n=3)}).error(Line())


@pytest.mark.parametrize(
    ("exact", "error", "sentence"),
    [
        (
            lambda at: line(at)[:, None],
            ValueError,
            r"exact: expected shape \(16,\), one value per point, got \(16, 1\)",
        ),
        (lambda at: line(at).sum(), ValueError, r"got \(\)"),
        (lambda at: 0.0, TypeError, r"exact: expected a tensor of shape \(16,\), got float"),
        (
            lambda x: x[:, 0],
            TypeError,
            r"exact: expected a function of at, the points by column, as in at.x, got at\[…\]",
        ),
    ],
)
def test_an_exact_solution_gives_one_value_per_point(exact, error, sentence):
    problem = ntk.Problem(D, {"u": ntk.Condition(D, n=3)}, exact=exact)
    with pytest.raises(error, match=sentence):
        problem.error(Line(), size=4)


@pytest.mark.parametrize("exact", [0.0, torch.zeros(3)])
def test_an_exact_solution_is_a_function(exact):
    with pytest.raises(TypeError, match="expected exact as a function of at, or None, got (float|Tensor)"):
        ntk.Problem(D, {"u": ntk.Condition(D, n=3)}, exact=exact)


@pytest.mark.parametrize(
    ("domain", "conditions", "sentence"),
    [
        (D, [ntk.Condition(D, n=3)], "a dict of conditions by name.*got list"),
        (D, {"u": D}, "'u' to be an ntk.Condition, got Box"),
        ({"x": (0, 1)}, {"u": ntk.Condition(D, n=3)}, "an ntk.Box as the domain, got dict"),
    ],
)
def test_a_problem_of_something_else_is_refused(domain, conditions, sentence):
    with pytest.raises(TypeError, match=sentence):
        ntk.Problem(domain, conditions)


@pytest.mark.parametrize("rows", [lambda u: u.d(t=1), lambda u: u.d(t=1) + u * u.d(x=1)], ids=["linear", "nonlinear"])
def test_a_problem_and_its_trainer_can_be_copied(rows):
    D = ntk.Box(t=(0, 1), x=(0, 1))
    problem = ntk.Problem(D, {"r": ntk.Condition(D, rows, n=5)}, exact=lambda at: at.t)
    trainer = ntk.Trainer(copy.deepcopy(problem), ntk.MLP([2, 4, 1]), ntk.NTKWeights(every=2))
    trainer.fit(3, progress=False)
    other = copy.deepcopy(trainer)
    for each in (trainer, other):
        each.fit(3, progress=False)
    assert trainer.net is not other.net
    assert all(torch.equal(a, b) for a, b in zip(trainer.net.parameters(), other.net.parameters(), strict=True))


def test_errors_are_taken_on_grids_that_fit_memory():
    box = ntk.Box(t=(0, 1), x=(0, 1), y=(0, 1), z=(0, 1))
    sizes = []
    problem = ntk.Problem(
        box,
        {"r": ntk.Condition(box, lambda u: u.d(t=1), n=5)},
        exact=lambda at: sizes.append(len(at.t)) or at.t,
    )
    problem.error(ntk.MLP([4, 4, 1]))
    assert sizes == [14**4]


def test_problems_and_conditions_are_equal_to_themselves_alone():
    one, other = ntk.problems.Wave1D(), ntk.problems.Wave1D()
    assert one == one and one != other and len({one, other, one.conditions["r"]}) == 3


def test_an_error_needs_one_output():
    with pytest.raises(ValueError, match=r"expected a network with 1 output, got outputs of shape \(4, 2\)"):
        ntk.problems.Wave1D().error(ntk.MLP([2, 3, 2]), size=2)


class Ring(ntk.Condition):
    """Made from a radius alone."""

    def __init__(self, radius):
        super().__init__(self.points, lambda u: u.d(t=1), n=10)
        object.__setattr__(self, "radius", radius)

    def points(self, n, generator):
        angle = 2 * torch.pi * torch.rand(n, generator=generator)
        return self.radius * torch.stack([angle.cos(), angle.sin()], 1)


def test_a_condition_may_be_of_a_class_of_its_own():
    ring = Ring(0.5)
    problem = ntk.Problem(ntk.Box(t=(-1, 1), x=(-1, 1)), {"r": ring})
    assert type(problem.conditions["r"]) is Ring and problem.conditions["r"].residual.coordinates == ("t", "x")
    assert not isinstance(ring.residual, ntk.Residual) and problem.conditions["r"]._placed is not ring._placed
    ntk.Trainer(problem, ntk.MLP([2, 4, 1])).fit(2, progress=False)
