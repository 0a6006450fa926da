"""Points and their named columns travel together."""

import pytest
import torch

import ntkfast as ntk


def test_columns_are_indexed_and_moved_with_their_points():
    points = ntk.Points(torch.arange(6.0).view(3, 2), nx=torch.tensor([7.0, 8.0, 9.0]))
    some = points[torch.tensor([2, 0])].to(dtype=torch.float64)
    assert some.xy.tolist() == [[4, 5], [0, 1]]
    assert some.columns["nx"].tolist() == [9, 7] and some.columns["nx"].dtype == torch.float64


def test_at_names_coordinates_and_columns():
    at = ntk.Points(torch.tensor([[1.0, 2.0]]), nx=torch.tensor([3.0])).at(("t", "x"), "test")
    assert (at.t.item(), at.x.item(), at.nx.item()) == (1, 2, 3)
    with pytest.raises(ValueError, match="expected a column out of .*got at.y"):
        _ = at.y


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: ntk.Points(torch.zeros(3)), r"shape \(n, d\), got \(3,\)"),
        (lambda: ntk.Points(torch.zeros(3, 2), w=torch.zeros(2)), r"column 'w' of shape \(3,\), got \(2,\)"),
        (lambda: ntk.Points(torch.zeros(3, 2)).at(("x",), "target"), r"target: expected points \(n, 1\)"),
        (lambda: ntk.Points(torch.zeros(3, 1), x=torch.zeros(3)).at(("x",), "target"), "other names .* got 'x'"),
    ],
)
def test_bad_shapes_are_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
