"""Grams of residuals with several rows a point: what their components share, and sums over them."""

import pytest
import torch
from cases import CASES, Case, close, double, mlp, randomized, two_components, u_t, uniform, wave
from torch import nn

import ntkfast as ntk
from ntkfast import assembly, reference
from ntkfast.contraction import contract

SEVERAL = [case for case in CASES if len(ntk.plan(case.net(), case.residual, n=3).channels) > 1]
METHODS = ("auto", "structured", "explicit")


@ntk.residual("t", "x")
def three(u, at):
    """Components that need other channels each."""
    return {"value": u, "slope": u.d(x=1) + at.t * u, "wave": u.d(t=2) - 4.0 * u.d(x=2)}


def summed(K: torch.Tensor, k: int) -> torch.Tensor:
    n, m = (size // k for size in K.shape)
    return K.view(n, k, m, k).diagonal(dim1=1, dim2=3).sum(-1)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("case", SEVERAL, ids=lambda case: case.name)
def test_sums_equal_the_reference(case: Case, method: str, dtype: torch.dtype):
    net, x, y = case.net(dtype), case.points(dtype), case.points(dtype, n=11, seed=2)
    exact = double(net)
    K = ntk.gram(net, x, case.residual, sum_components=True, method=method)
    assert close(K, reference.gram(exact, x.double(), case.residual, sum_components=True), dtype)
    assert torch.equal(K, K.T)
    across = ntk.gram(net, x, case.residual, y, sum_components=True, method=method)
    assert close(across, reference.gram(exact, x.double(), case.residual, y.double(), sum_components=True), dtype)


@pytest.mark.parametrize("residual", [three, two_components], ids=lambda residual: residual.name)
@pytest.mark.parametrize("n", [1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 48, 63, 64, 65, 100, 129])
def test_every_tile_border_is_handled(n: int, residual, dtype: torch.dtype):
    """Of shared products and of sums: strips, panels and blocks of them, on either side of the diagonal."""
    net, x = randomized(mlp(nn.Tanh, (2, 9, 6, 1))).to(dtype), uniform(129).to(dtype)
    k, exact = len(reference.jacobian(double(net), x[:1].double(), residual)), double(net)
    expected = reference.gram(exact, x[:n].double(), residual)
    K = ntk.gram(net, x[:n], residual, method="structured")
    assert close(K, expected, dtype)
    assert torch.equal(K, K.T)
    S = ntk.gram(net, x[:n], residual, method="structured", sum_components=True)
    assert close(S, summed(expected, k), dtype)
    assert torch.equal(S, S.T)
    expected = reference.gram(exact, x[:n].double(), residual, x[:70].double())
    assert close(ntk.gram(net, x[:n], residual, x[:70], method="structured"), expected, dtype)
    S = ntk.gram(net, x[:n], residual, x[:70], method="structured", sum_components=True)
    assert close(S, summed(expected, k), dtype)


@pytest.mark.parametrize("options", [{}, {"sum_components": True}], ids=["whole", "summed"])
@pytest.mark.parametrize("columns", [10, 64])
def test_exchanging_the_sides_and_cutting_points_changes_no_bit(columns: int, options: dict, dtype: torch.dtype):
    """Wherever an entry stands, its terms are added in one order."""
    net = randomized(mlp(nn.ReLU, (columns, 64, 128, 10))).to(dtype)
    x, y = uniform(70, columns).to(dtype), uniform(45, columns, seed=2).to(dtype)
    k = 1 if options else 10
    K = ntk.gram(net, x, method="structured", **options)
    assert torch.equal(ntk.gram(net, x[5:], method="structured", **options), K[5 * k :, 5 * k :])
    across = ntk.gram(net, x, ntk.value, y, method="structured", **options)
    assert torch.equal(across, ntk.gram(net, y, ntk.value, x, method="structured", **options).T)


@pytest.mark.parametrize("together", [False, True], ids=["whole", "summed"])
@pytest.mark.parametrize("residual", ["gradient", "value and laplacian"])
def test_many_channels_of_which_few_are_shared(residual: str, together: bool, dtype: torch.dtype):
    names = [f"x{i}" for i in range(20)]
    functions = {
        "gradient": lambda u: {name: u.d(**{name: 1}) for name in names},
        "value and laplacian": lambda u: {"value": u, "laplacian": u.laplacian(*names)},
    }
    many = ntk.residual(*names)(functions[residual])
    net, x = randomized(mlp(nn.Tanh, (20, 9, 6, 1))).to(dtype), uniform(35, 20).to(dtype)
    expected = reference.gram(double(net), x.double(), many, sum_components=together)
    assert close(ntk.gram(net, x, many, sum_components=together, method="structured"), expected, dtype)


@pytest.mark.parametrize("n", [33, 70])
def test_components_that_share_products_have_the_bits_of_each_alone(n: int, dtype: torch.dtype):
    net, x = randomized(mlp(nn.ReLU, (30, 40, 5))).to(dtype), uniform(n, 30).to(dtype)
    K = ntk.gram(net, x, method="structured").view(n, 5, n, 5)
    for i in range(5):
        for j in range(5):
            alone = ntk.gram(net, x, ntk.value[i], x, ntk.value[j], method="structured")
            assert torch.equal(K[:, i, :, j], alone), (i, j)


def test_groups_of_as_many_components_are_summed_together():
    net, x = randomized(mlp(nn.Tanh, (2, 9, 6, 1))), uniform(60)
    groups = {"a": (x[:7], two_components), "none": (x[:0], two_components), "b": (x[7:], two_components)}
    S = ntk.gram(net, groups, sum_components=True)
    assert close(S, reference.gram(net, x, two_components, sum_components=True), torch.float64)
    assert torch.equal(S, S.T)
    across = ntk.gram(net, groups, y={"c": (x[:40], two_components)}, sum_components=True)
    assert close(across, S[:, :40], torch.float64)
    with pytest.raises(ValueError, match=r"the same number of components everywhere, got \[2, 3\]"):
        ntk.gram(net, {"a": (x, two_components), "b": (x, three)}, sum_components=True)


def test_the_residuals_of_both_sides_may_differ():
    net, x, y = randomized(mlp(nn.Tanh, (2, 9, 6, 1))), uniform(40), uniform(35, seed=2)
    pair = ntk.residual("t", "x")(lambda u: {"slope": u.d(t=1), "wave": u.d(t=2) - 4.0 * u.d(x=2)})
    S = ntk.gram(net, x, two_components, y, pair, sum_components=True)
    assert close(S, reference.gram(net, x, two_components, y, pair, sum_components=True), torch.float64)
    K = ntk.gram(net, x, three, y, wave, method="structured")
    assert close(K, reference.gram(net, x, three, y, wave), torch.float64)
    K = ntk.gram(net, x, u_t, y, three, method="structured")
    assert close(K, reference.gram(net, x, u_t, y, three), torch.float64)


@pytest.mark.parametrize("wrt", ["*.bias", "*.weight", "1.weight", ["3.bias", "5.weight"]])
def test_patterns_choose_parameters(wrt):
    net, x = randomized(mlp(nn.Tanh, (2, 9, 6, 1))), uniform(50)
    expected = reference.gram(net, x, three, wrt=wrt)
    assert close(ntk.gram(net, x, three, wrt=wrt, method="structured"), expected, torch.float64)
    assert close(ntk.gram(net, x, three, wrt=wrt, sum_components=True), summed(expected, 3), torch.float64)


@pytest.mark.parametrize(("method", "entries"), [("structured", 1), ("explicit", 3)])
def test_only_explicit_layers_make_the_entries_that_are_summed(method: str, entries: int, monkeypatch):
    shapes = []

    def recorded(f, g, out, *more, **others):
        shapes.append(tuple(out.shape))
        return contract(f, g, out, *more, **others)

    monkeypatch.setattr(assembly, "contract", recorded)
    ntk.gram(mlp(nn.Tanh).double(), uniform(20), three, sum_components=True, method=method)
    assert shapes == [(20 * entries, 20 * entries)]


@pytest.mark.parametrize("memory", ["300kB", "1MB", "5MB"])
def test_a_memory_budget_changes_no_bit(memory: str, dtype: torch.dtype):
    net, x = randomized(mlp(nn.ReLU, (30, 40, 10))).to(dtype), uniform(150, 30).to(dtype)
    for options in ({}, {"sum_components": True}):
        free = ntk.gram(net, x, **options)
        assert torch.equal(ntk.gram(net, x, memory=memory, **options), free)
