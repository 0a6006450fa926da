"""Boxes, faces and unions: where points lie, how they are distributed, and what is refused."""

import math

import numpy as np
import pytest
import torch

import ntkfast as ntk

D = ntk.Box(t=(0, 1), x=(-2, 4))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_points_lie_inside_and_have_the_moments_of_mean_and_std():
    points = D.sample(200_000, generator(), torch.float64)
    low, high = torch.tensor(D.low), torch.tensor(D.high)
    assert ((points >= low) & (points <= high)).all()
    assert torch.allclose(points.mean(0), D.mean, atol=0.02)
    assert torch.allclose(points.std(0), D.std, rtol=0.01)
    assert D.std[0].item() == pytest.approx(1 / math.sqrt(12), rel=1e-15)


def test_a_face_fixes_its_coordinate_exactly():
    for position in (0.0, 0.3, 1.0):
        assert (D.at(t=position).sample(50, generator())[:, 0] == torch.tensor(position)).all()
    assert D.at(t=0).free == ("x",)
    assert D.at(t=0, x=1).sample(3, generator()).tolist() == [[0, 1]] * 3


def test_the_same_seed_draws_the_same_points_and_dtype_is_honoured(dtype):
    first, second = D.sample(9, generator(3), dtype), D.sample(9, generator(3), dtype)
    assert torch.equal(first, second) and first.dtype == dtype
    assert not torch.equal(first, D.sample(9, generator(4), dtype))


@pytest.mark.parametrize("region", [D, D.at(x=1) | D.at(x=0)], ids=str)
def test_no_points_and_one_point_have_shapes(region):
    assert region.sample(0, generator()).shape == (0, 2)
    assert region.sample(1, generator()).shape == (1, 2)


def test_a_union_draws_from_its_boxes_in_proportion_to_their_measure():
    union = ntk.Box(t=(0, 1), x=(0, 3)).at(t=0) | ntk.Box(t=(0, 1), x=(0, 1)).at(t=1)
    points = union.sample(40_000, generator())
    assert set(points[:, 0].tolist()) == {0.0, 1.0}
    assert (points[:, 0] == 0).double().mean().item() == pytest.approx(0.75, abs=0.01)
    assert points[points[:, 0] == 1, 1].max() <= 1


def test_unions_join_in_any_order():
    a, b, c = D.at(x=0), D.at(x=1), D.at(x=2)
    assert (a | b | c).boxes == (a | (b | c)).boxes == (a, b, c)


def test_the_grid_has_both_ends_and_runs_over_the_free_coordinates():
    assert D.grid(3).tolist() == [[t, x] for t in (0, 0.5, 1) for x in (-2, 1, 4)]
    assert D.at(t=0.5).grid(3).tolist() == [[0.5, -2], [0.5, 1], [0.5, 4]]


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: ntk.Box(), "at least one coordinate"),
        (lambda: ntk.Box(x=(1, 0)), r"low < high, got x=\(1, 0\)"),
        (lambda: ntk.Box(x=(0, math.inf)), "finite"),
        (lambda: ntk.Box(x=1), r"expected x=\(low, high\), got x=1"),
        (lambda: D.at(y=0), r"expected a coordinate out of \('t', 'x'\), got 'y'"),
        (lambda: D.at(t=2), r"expected t in \[0, 1\], got 2"),
        (lambda: D.at(t=0) | ntk.Box(x=(0, 1)), "the coordinates"),
        (lambda: D | D.at(t=0), "same dimension"),
    ],
)
def test_bad_boxes_are_refused_with_expected_and_got(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


@pytest.mark.parametrize(
    ("draw", "sentence"),
    [
        (lambda: D.sample(-1), "a number of points of at least 0, got -1"),
        (lambda: (D.at(t=0) | D.at(t=1)).sample(-1), "a number of points of at least 0, got -1"),
        (lambda: D.grid(0), "a size of at least 1, got 0"),
    ],
)
def test_fewer_than_no_points_are_refused(draw, sentence):
    with pytest.raises(ValueError, match=sentence):
        draw()


@pytest.mark.parametrize("number", [2.5, "2", None, True])
@pytest.mark.parametrize("draw", [D.sample, (D.at(t=0) | D.at(t=1)).sample, D.grid], ids=["box", "union", "grid"])
def test_numbers_of_points_are_whole(draw, number):
    with pytest.raises(TypeError, match=f"expected a .* as a whole number, got {number!r}"):
        draw(number)


def test_whole_numbers_of_numpy_count():
    assert D.sample(np.int64(3)).shape == (3, 2) and D.grid(np.int64(3)).shape == (9, 2)


@pytest.mark.parametrize("ends", [(8.384683163980622, 8.997439856428457), (-1.0, 1e-9), (1000.0, 1000.1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_rounding_leaves_the_box(monkeypatch, ends, dtype):
    largest = 1 - torch.finfo(dtype).eps / 2
    monkeypatch.setattr(torch, "rand", lambda size, dtype, **_: torch.full(size, largest, dtype=dtype))
    (found,) = ntk.Box(x=ends).sample(1, dtype=dtype)
    assert found <= torch.tensor(ends[1], dtype=dtype)
