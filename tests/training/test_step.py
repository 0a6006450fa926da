"""The step: one sweep gives losses, gradient, traces and spectra, and they are those of the definitions."""

import pytest
import torch

import ntkfast as ntk
from ntkfast.training.step import StepRows

PROBLEM = ntk.problems.Wave1D()
SIZES = {"start": 4, "left": 3, "right": 5, "r": 6}
LOSS_GROUPS = {"u": ["start", "left", "right"], "ut": ["start"], "r": ["r"]}


@pytest.fixture
def net():
    torch.manual_seed(0)
    return ntk.MLP([2, 7, 6, 1], standardize=PROBLEM.domain, dtype=torch.float64)


@pytest.fixture
def layout(net):
    return StepRows(PROBLEM, SIZES, net, torch.Generator().manual_seed(5))


def rows_and_jacobian(net, batch):
    """Rows (n, k) and Jacobian (n, k, P) by condition, from the definitions."""
    found = {}
    for name, (points, residual) in batch.groups.items():
        rows = ntk.reference.rows(net, points, residual).detach().reshape(len(points), -1)
        found[name] = rows, ntk.reference.jacobian(net, points, residual).reshape(*rows.shape, -1)
    return found


def traces_of(layout, net, batch):
    """(G,), from the diagonal of one sweep, as the trainer finds them."""
    return layout.sums(torch.cat(list(ntk.factors(net, batch.groups).diag().values())))


def test_rows_are_laid_out_by_condition_and_counted_by_group(layout):
    assert layout.groups == ("u", "ut", "r")
    assert layout.components == {"start": ("u", "ut"), "left": ("",), "right": ("",), "r": ("",)}
    assert layout.rows == {"u": 12, "ut": 4, "r": 6}


def test_making_a_layout_draws_nothing(net):
    generator = torch.Generator().manual_seed(5)
    StepRows(PROBLEM, SIZES, net, generator)
    assert torch.equal(generator.get_state(), torch.Generator().manual_seed(5).get_state())


def test_losses_are_sums_over_conditions_of_mean_squares(net, layout):
    batch = layout.draw(torch.Generator().manual_seed(1))
    rows = {name: r for name, (r, _) in rows_and_jacobian(net, batch).items()}
    losses = layout.losses(ntk.factors(net, batch.groups).rows.detach())
    expected = [
        rows["start"][:, 0].square().mean() + rows["left"].square().mean() + rows["right"].square().mean(),
        rows["start"][:, 1].square().mean(),
        rows["r"].square().mean(),
    ]
    assert torch.allclose(losses, torch.stack(expected), rtol=1e-10)


def test_the_pulled_back_rows_are_the_gradient_of_the_weighted_loss(net, layout):
    batch = layout.draw(torch.Generator().manual_seed(2))
    lam = torch.tensor([3.0, 0.5, 2.0], dtype=torch.float64)
    f = ntk.factors(net, batch.groups)
    gradient = torch.cat([g.flatten() for g in f.vjp(layout.pull(lam) * f.rows.detach()).values()])
    expected = torch.zeros_like(gradient)
    for name, (rows, jacobian) in rows_and_jacobian(net, batch).items():
        of_component = lam[[layout.groups.index(g) for g in layout.component_groups[name]]]
        expected += torch.einsum("k,nk,nkp->p", of_component, rows, jacobian) * 2 / len(rows)
    assert (gradient - expected).norm() < 1e-10 * expected.norm()


def test_traces_are_those_of_the_kernels_of_the_groups(net, layout):
    batch = layout.draw(torch.Generator().manual_seed(3))
    traces = traces_of(layout, net, batch)
    squares = {name: jacobian.square().sum(2) for name, (_, jacobian) in rows_and_jacobian(net, batch).items()}
    expected = {
        "u": squares["start"][:, 0].sum() + squares["left"].sum() + squares["right"].sum(),
        "ut": squares["start"][:, 1].sum(),
        "r": squares["r"].sum(),
    }
    for group, trace in zip(layout.groups, traces.tolist(), strict=True):
        assert trace == pytest.approx(expected[group].item(), rel=1e-10)


def test_eigenvalues_add_up_to_the_trace_and_descend(net, layout):
    batch = layout.draw(torch.Generator().manual_seed(3))
    traces = dict(zip(layout.groups, traces_of(layout, net, batch).tolist(), strict=True))
    for group, eigenvalues in layout.spectra(net, batch).items():
        assert len(eigenvalues) == layout.rows[group]
        assert sum(eigenvalues) == pytest.approx(traces[group], rel=1e-10)
        assert eigenvalues == sorted(eigenvalues, reverse=True)


def test_a_fresh_trace_comes_from_as_many_new_points_as_asked(net, layout):
    fresh = layout.fresh("ut", 9)
    assert (fresh.sizes, fresh.count) == ({"start": 9}, 9)
    batch = layout.draw(torch.Generator().manual_seed(4), fresh.sizes)
    trace = fresh.trace(*layout.prepare(net, batch))
    start = PROBLEM.conditions["start"]
    points = start.draw(9, torch.Generator().manual_seed(4), torch.float64).points.xy
    jacobian = ntk.reference.jacobian(net, points, start.residual).reshape(9, 2, -1)
    assert trace.item() == pytest.approx(jacobian[:, 1].square().sum().item(), rel=1e-10)


def test_fresh_points_are_shared_out_in_proportion(layout):
    fresh = layout.fresh("u", 24)
    assert (fresh.sizes, fresh.count) == ({"start": 8, "left": 6, "right": 10}, 24)
    assert fresh.rows.tolist() == [*range(0, 16, 2), *range(16, 32)]


def test_targets_are_subtracted_row_by_row(net):
    D = PROBLEM.domain
    residual = lambda u: {"a": u, "b": u.d(x=1)}  # noqa: E731
    shifted = lambda u, at: {"a": u - at.t, "b": u.d(x=1) - 2.0}  # noqa: E731
    target = {"a": lambda at: at.t, "b": 2.0}
    losses = []
    for condition in (ntk.Condition(D, residual, target, n=5), ntk.Condition(D, shifted, n=5)):
        problem = ntk.Problem(D, {"free": ntk.Condition(D.at(t=0), n=2), "c": condition})
        layout = StepRows(problem, {"free": 2, "c": 5}, net, torch.Generator())
        batch = layout.draw(torch.Generator().manual_seed(6))
        rows = ntk.factors(net, batch.groups).rows.detach()
        losses.append(layout.losses(rows if batch.targets is None else rows - batch.targets))
    assert torch.allclose(losses[0], losses[1], rtol=1e-12)


def test_named_columns_reach_the_residual(net):
    D = PROBLEM.domain
    xy = D.sample(6, torch.Generator().manual_seed(0), torch.float64)
    with_column = ntk.Condition(ntk.Points(xy, datum=3 * xy[:, 0]), lambda u, at: u - at.datum)
    without = ntk.Condition(xy, lambda u, at: u - 3 * at.t)
    rows = []
    for condition in (with_column, without):
        layout = StepRows(ntk.Problem(D, {"c": condition}), {"c": 6}, net, torch.Generator())
        rows.append(ntk.factors(net, layout.draw(torch.Generator()).groups).rows.detach())
    assert torch.allclose(rows[0], rows[1], rtol=1e-12)


def test_a_group_loss_is_the_mean_over_its_rows():
    """Two outputs of one condition are 2n rows of one group."""
    xy = torch.rand(6, 2, dtype=torch.float64)
    problem = ntk.Problem(ntk.Box(t=(0, 1), x=(0, 1)), {"both": ntk.Condition(xy)})
    net = ntk.MLP([2, 8, 2], dtype=torch.float64)
    trainer = ntk.Trainer(problem, net)
    history = trainer.fit(1, progress=False)
    torch.manual_seed(0)
    expected = ntk.MLP([2, 8, 2], dtype=torch.float64)
    trainer = ntk.Trainer(problem, expected)
    with torch.no_grad():
        mean = float(expected(xy).square().mean())
    assert trainer.fit(1, progress=False).loss["both"].values[0] == pytest.approx(mean, rel=1e-12)
    assert len(history.loss["both"]) == 2


def test_no_more_fixed_points_than_there_are():
    xy = torch.rand(6, 2)
    problem = ntk.Problem(ntk.Box(t=(0, 1), x=(0, 1)), {"edge": ntk.Condition(xy, n=3), "r": ntk.Condition(xy)})
    with pytest.raises(ValueError, match="expected at most 6 of the fixed points of 'edge', got 7"):
        ntk.Trainer(problem, ntk.MLP([2, 4, 1]), batch={"edge": 7})
    weights = ntk.NTKWeights(every=1, points={"edge": 50})
    ntk.Trainer(problem, ntk.MLP([2, 4, 1]), weights=weights).fit(2, progress=False)


def test_a_subset_of_fixed_points_follows_the_seed_alone():
    xy = torch.rand(40, 2)
    problem = ntk.Problem(ntk.Box(t=(0, 1), x=(0, 1)), {"edge": ntk.Condition(xy, n=5)})

    def losses(global_seed: int) -> list[float]:
        torch.manual_seed(7)
        trainer = ntk.Trainer(problem, ntk.MLP([2, 4, 1]), seed=3)
        torch.manual_seed(global_seed)
        return trainer.fit(4, progress=False, record_every=1).loss["edge"].values

    assert losses(0) == losses(1)


@pytest.mark.parametrize("residual", [ntk.value, lambda u: u.d(t=1)], ids=["value", "residual"])
def test_a_function_that_draws_too_many_columns_is_refused_by_the_name_of_its_condition(net, residual):
    D = PROBLEM.domain
    problem = ntk.Problem(D, {"ball": ntk.Condition(lambda n, g: torch.rand(n, 3, generator=g), residual, n=4)})
    with pytest.raises(ValueError, match=r"condition 'ball': expected .* each of \('t', 'x'\) .*got 3 columns"):
        StepRows(problem, {"ball": 4}, net, torch.Generator())
