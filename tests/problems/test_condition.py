"""Conditions: what is drawn where, and targets aligned with it."""

import pytest
import torch

import ntkfast as ntk

D = ntk.Box(t=(0, 1), x=(0, 1))
XY = torch.rand(10, 2, generator=torch.Generator().manual_seed(0))


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def drawn(condition: ntk.Condition, n: int | None = None):
    return condition.draw(n or condition.size, generator(), torch.float32)


def test_fixed_points_come_back_whole_and_in_order():
    condition = ntk.Condition(XY, target=XY[:, 0])
    draw = drawn(condition)
    assert torch.equal(draw.points.xy, XY)
    assert torch.equal(condition.targets(("",), D.names, draw)[:, 0], XY[:, 0])


def test_a_subset_of_fixed_points_keeps_targets_and_columns_aligned_and_repeats_none():
    condition = ntk.Condition(ntk.Points(XY, nx=XY[:, 1]), target=XY[:, 0], n=4)
    draw = drawn(condition)
    assert torch.equal(condition.targets(("",), D.names, draw)[:, 0], draw.points.xy[:, 0])
    assert torch.equal(draw.points.columns["nx"], draw.points.xy[:, 1])
    assert len(draw.points.xy.unique(dim=0)) == 4


def test_a_function_is_a_geometry():
    def circle(n, generator):
        angle = torch.rand(n, generator=generator) * 6.28
        return ntk.Points(torch.stack([angle.cos(), angle.sin()], 1), nx=angle.cos())

    draw = drawn(ntk.Condition(circle, n=5))
    assert torch.allclose(draw.points.xy.norm(dim=1), torch.ones(5))
    assert torch.equal(draw.points.columns["nx"], draw.points.xy[:, 0])


def test_targets_by_component_default_to_zero_and_all_zero_targets_cost_nothing():
    condition = ntk.Condition(D, lambda u: {"u": u, "ut": u.d(t=1)}, target={"u": lambda at: at.x + 1}, n=6)
    draw = drawn(condition)
    targets = condition.targets(("u", "ut"), D.names, draw)
    assert torch.equal(targets[:, 0], draw.points.xy[:, 1] + 1)
    assert (targets[:, 1] == 0).all()
    assert ntk.Condition(D, n=6).targets(("",), D.names, draw) is None
    assert (ntk.Condition(D, target=2, n=6).targets(("",), D.names, draw) == 2).all()


@pytest.mark.parametrize(
    ("make", "error", "sentence"),
    [
        (lambda: ntk.Condition(D), ValueError, "expected n"),
        (lambda: ntk.Condition(D, n=0), ValueError, "expected n >= 1, got 0"),
        (lambda: ntk.Condition(XY, n=11), ValueError, "n <= 10.*got 11"),
        (lambda: ntk.Condition("left", n=3), TypeError, "got str"),
        (lambda: ntk.Condition(ntk.value, D, n=3), TypeError, "expected where to be a Box.*got Residual"),
        (lambda: ntk.Condition(lambda u: u, D, n=3), TypeError, "where first and then a residual.*got Box"),
        (lambda: ntk.Condition(D, target="x", n=3), TypeError, "target as a number.*got str"),
        (lambda: ntk.Condition(D, target={"u": "x"}, n=3), TypeError, "target as a number.*got str"),
        (lambda: ntk.Condition(D, n=3.5), TypeError, "n as a whole number, got 3.5"),
        (lambda: ntk.Condition(D, n=3, group=1), TypeError, "group as a name, got 1"),
        (lambda: drawn(ntk.Condition(lambda n, g: None, n=3)), TypeError, "a tensor or Points, got NoneType"),
        (lambda: ntk.Condition(torch.tensor([[0.0, torch.nan]])), ValueError, "expected finite points.*row 0"),
        (lambda: drawn(ntk.Condition(lambda n, g: XY, n=3)), ValueError, "expected 3 points, got 10"),
        (lambda: drawn(ntk.Condition(lambda n, g: XY[:3] / 0, n=3)), ValueError, "expected finite points"),
    ],
)
def test_bad_conditions_are_refused(make, error, sentence):
    with pytest.raises(error, match=sentence):
        make()


@pytest.mark.parametrize(
    ("condition", "sentence"),
    [
        (ntk.Condition(D, target={"v": 1.0}, n=3), r"expected components out of \('u', 'ut'\), got 'v'"),
        (
            ntk.Condition(D, target=torch.zeros(3), n=3),
            "a tensor only beside fixed points, got one beside points that are drawn",
        ),
        (ntk.Condition(XY, target=torch.zeros(3)), r"expected shape \(10,\), got \(3,\)"),
        (
            ntk.Condition(D, target=lambda at: torch.zeros(2), n=3),
            r"expected shape \(3,\) from the function, got \(2,\)",
        ),
    ],
)
def test_targets_that_do_not_fit_are_refused(condition, sentence):
    with pytest.raises(ValueError, match=sentence):
        condition.targets(("u", "ut"), D.names, drawn(condition))


def test_fixed_points_that_are_moved_are_drawn_where_they_are():
    """Also where every draw is a copy: in another dtype, with columns and an aligned target."""
    xy, weight, target = (torch.rand(5, *shape, dtype=torch.float64) for shape in ((2,), (), ()))
    condition = ntk.Condition(ntk.Points(xy, weight=weight), target=target)
    generator = torch.Generator()
    for _ in range(2):
        draw = condition.draw(5, generator, torch.float32)
        assert torch.equal(draw.points.xy, xy.float()) and torch.equal(draw.points.columns["weight"], weight.float())
        assert torch.equal(condition.targets(("",), ("t", "x"), draw)[:, 0], target.float())
        for tensor in (xy, weight, target):
            tensor.mul_(0.5)


def test_points_and_targets_that_are_replaced_are_placed_anew():
    points, target = ntk.Points(XY.clone()), {"": torch.zeros(10, dtype=torch.float64)}
    condition = ntk.Condition(points, target=target)
    drawn(condition)
    points.xy = XY + 1
    draw = drawn(condition)
    assert torch.equal(draw.points.xy, XY + 1)
    for k in range(5):
        target.clear()  # so that the next one may come to the same place in memory
        target[""] = torch.full((10,), k + 1.0, dtype=torch.float64)
        assert (condition.targets(("",), D.names, draw) == k + 1).all()


def test_a_condition_without_points_is_refused():
    with pytest.raises(ValueError, match="at least one fixed point, got none"):
        ntk.Condition(XY[:0])
