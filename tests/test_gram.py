"""ntk.gram: K = J Jᵀ, one tile at a time."""

import re

import numpy as np
import pytest
import torch
from cases import (
    CASES,
    Case,
    Problem,
    close,
    double,
    expected_jacobian,
    heat,
    mlp,
    randomized,
    two_components,
    u_t,
    uniform,
    variable_coefficient,
    wave,
    wave_groups,
)
from torch import nn

import ntkfast as ntk
from ntkfast import reference

TANH = Case("tanh", lambda: mlp(nn.Tanh), wave)
TWO = next(c for c in CASES if c.name == "tanh-two_components")


@pytest.mark.parametrize("method", ["auto", "structured", "explicit"])
def test_equals_the_reference(problem: Problem, method: str):
    K = ntk.gram(problem.net, problem.points, problem.residual, method=method)
    assert problem.close(K, problem.jacobian @ problem.jacobian.T)


def test_is_symmetric_to_the_last_bit(problem: Problem):
    K = ntk.gram(problem.net, problem.points, problem.residual)
    assert torch.equal(K, K.T)


def test_is_positive_semidefinite_and_its_trace_is_the_trace(problem: Problem):
    K = ntk.gram(problem.net, problem.points, problem.residual)
    eigenvalues, trace = torch.linalg.eigvalsh(K.double()), ntk.trace(problem.net, problem.points, problem.residual)
    assert eigenvalues.min() >= -8 * torch.finfo(problem.dtype).eps * trace
    assert problem.close(eigenvalues.sum().to(problem.dtype), trace)
    assert problem.close(K.trace(), trace)
    assert problem.close(K.diagonal(), ntk.diag(problem.net, problem.points, problem.residual))


def test_blocks_add_up_and_equal_the_reference(problem: Problem):
    blocks = ntk.gram(problem.net, problem.points, problem.residual, per_block=True)
    assert list(blocks) == list(problem.blocks)
    for name, J in problem.blocks.items():
        assert problem.close(blocks[name], J @ J.T)
        assert torch.equal(blocks[name], blocks[name].T)
    assert problem.close(sum(blocks.values()), ntk.gram(problem.net, problem.points, problem.residual))


@pytest.mark.parametrize("method", ["auto", "structured", "explicit"])
def test_cross_kernels_equal_the_reference(problem: Problem, case: Case, method: str):
    y = case.points(problem.dtype, n=11, seed=2)
    K = ntk.gram(problem.net, problem.points, problem.residual, y, ntk.value, method=method)
    right = reference.jacobian(double(problem.net), y.double(), ntk.value)
    assert problem.close(K, problem.jacobian @ right.T)


def test_exchanging_the_two_sides_transposes():
    net, x, y = TANH.net(), TANH.points(), TANH.points(n=30, seed=2)
    assert close(ntk.gram(net, y, u_t, x, wave), ntk.gram(net, x, wave, y, u_t).T, torch.float64)


def test_the_second_residual_defaults_to_the_first_and_the_second_points_to_the_first():
    net, x, y = TANH.net(), TANH.points(), TANH.points(n=30, seed=2)
    assert close(ntk.gram(net, x, wave, y), reference.gram(net, x, wave, y, wave), torch.float64)
    assert close(ntk.gram(net, x, wave, x), ntk.gram(net, x, wave), torch.float64)
    assert close(ntk.gram(net, x, wave, residual_y=u_t), reference.gram(net, x, wave, x, u_t), torch.float64)


def test_points_with_their_own_coefficients_on_both_sides():
    net, x, y = TANH.net(), TANH.points(), TANH.points(n=30, seed=2)
    expected = reference.gram(net, x, variable_coefficient, y, heat.bind(kappa=0.3))
    assert close(ntk.gram(net, x, variable_coefficient, y, heat.bind(kappa=0.3)), expected, torch.float64)


def test_a_dict_of_groups_gives_the_joint_matrix(dtype: torch.dtype):
    net, groups = TANH.net(dtype), wave_groups(dtype=dtype)
    K = ntk.gram(net, groups)
    exact = {name: (points.double(), residual) for name, (points, residual) in groups.items()}
    assert close(K, reference.gram(double(net), exact), dtype)
    assert torch.equal(K, K.T)
    sizes = [len(points) for points, _ in groups.values()]
    corner = ntk.gram(net, *groups["r"], *groups["u"])
    assert close(K[-sizes[2] :, : sizes[0]], corner, dtype)


def test_two_dicts_of_groups_give_the_joint_cross_matrix(dtype: torch.dtype):
    net, groups = TANH.net(dtype), wave_groups(dtype=dtype)
    y = {"a": (TANH.points(dtype, n=5), wave), "b": (TANH.points(dtype, n=9), ntk.value)}
    exact = [{name: (x.double(), residual) for name, (x, residual) in side.items()} for side in (groups, y)]
    assert close(ntk.gram(net, groups, y=y), reference.gram(double(net), exact[0], y=exact[1]), dtype)


def test_more_strips_than_are_summed_together():
    case = Case("tall", lambda: mlp(nn.Tanh, (2, 7, 5, 1)), wave, n=1000)
    J, net, x = expected_jacobian(case, torch.float64), case.net(), case.points()
    assert close(ntk.gram(net, x, wave, method="structured"), J @ J.T, torch.float64)
    assert close(ntk.gram(net, x, wave, x[:9], method="structured"), J @ J[:9].T, torch.float64)


@pytest.mark.parametrize("explicit", [(0, 2), (1,)], ids=str)
def test_layers_of_both_kinds_add_up(explicit: tuple[int, ...], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch):
    """As large grams have them: explicit layers and structured ones in one matrix."""
    paths = ["explicit" if layer in explicit else "structured" for layer in range(3)]
    monkeypatch.setattr("ntkfast.contraction.gram_paths", lambda *sizes, **costs: paths)
    net, x, y = TANH.net(dtype), TANH.points(dtype, n=71), TANH.points(dtype, n=17, seed=2)
    J, other = (reference.jacobian(double(net), points.double(), wave) for points in (x, y))
    K = ntk.gram(net, x, wave)
    assert close(K, J @ J.T, dtype)
    assert torch.equal(K, K.T)
    assert close(ntk.gram(net, x, wave, y), J @ other.T, dtype)


@pytest.mark.parametrize("method", ["structured", "explicit"])
@pytest.mark.parametrize("n", [1, 2, 3, 7, 8, 9, 16, 17, 31, 33, 64, 65, 129])
def test_every_tile_border_is_handled(n: int, method: str):
    case = Case("tanh", lambda: mlp(nn.Tanh, (2, 9, 6, 1)), wave, n=129)
    J = expected_jacobian(case, torch.float64)
    K = ntk.gram(case.net(), case.points()[:n], wave, method=method)
    assert close(K, J[:n] @ J[:n].T, torch.float64)
    assert torch.equal(K, K.T)
    rectangle = ntk.gram(case.net(), case.points()[:n], wave, case.points()[:70], method=method)
    assert close(rectangle, J[:n] @ J[:70].T, torch.float64)


@pytest.mark.parametrize("method", ["structured", "explicit"])
@pytest.mark.parametrize("width", [1, 2, 3, 5, 8, 15, 17, 33, 65])
def test_every_width_has_its_remainder_handled(width: int, method: str, dtype: torch.dtype):
    case = Case(f"width {width}", lambda: mlp(nn.Tanh, (2, width, width, 1)), wave)
    J = expected_jacobian(case, dtype)
    assert close(ntk.gram(case.net(dtype), case.points(dtype), wave, method=method), J @ J.T, dtype)


def test_sum_components_adds_the_kernels_of_the_components(dtype: torch.dtype):
    net, x = TWO.net(dtype), TWO.points(dtype)
    expected = reference.gram(double(net), x.double(), TWO.residual, sum_components=True)
    K = ntk.gram(net, x, TWO.residual, sum_components=True)
    assert close(K, expected, dtype)
    assert torch.equal(K, K.T)
    n = len(x)
    full = ntk.gram(net, x, TWO.residual).view(n, 2, n, 2)
    assert close(full[:, 0, :, 0] + full[:, 1, :, 1], K, dtype)
    blocks = ntk.gram(net, x, TWO.residual, sum_components=True, per_block=True)
    assert close(sum(blocks.values()), K, dtype)


def test_sum_components_across_two_sets_of_points():
    net, x, y = randomized(mlp(nn.Tanh, (2, 9, 3))), uniform(8), uniform(5, seed=2)
    assert close(ntk.gram(net, x, ntk.value, y, sum_components=True), _summed(net, x, y), torch.float64)
    with pytest.raises(ValueError, match=r"expected the same number of components everywhere, got \[1, 3\]"):
        ntk.gram(net, x, ntk.value, y, ntk.value[1], sum_components=True)


def _summed(net, x, y):
    return reference.gram(net, x, None, y, sum_components=True)


def test_permuting_and_duplicating_points_permutes_and_duplicates_rows():
    net, x = TANH.net(), TANH.points(n=75)
    order = torch.randint(75, (90,), generator=torch.Generator().manual_seed(0))
    K = ntk.gram(net, x, wave)
    assert close(ntk.gram(net, x[order], wave), K[order][:, order], torch.float64)
    assert close(ntk.gram(net, x[order], wave, x, wave), K[order], torch.float64)


def test_freezing_a_layer_removes_exactly_its_block():
    net, x = TANH.net(), TANH.points()
    blocks = ntk.gram(net, x, wave, per_block=True)
    net[3].requires_grad_(False)
    left = ntk.gram(net, x, wave, per_block=True)
    assert list(left) == ["1", "5"]
    assert close(ntk.gram(net, x, wave), blocks["1"] + blocks["5"], torch.float64)


@pytest.mark.parametrize("method", ["structured", "explicit"])
@pytest.mark.parametrize("wrt", ["3.weight", "*.weight", "*.bias", ["1.*", "5.weight"], "1.bias"])
def test_patterns_choose_parameters(wrt, method: str):
    net, x = TANH.net(), TANH.points()
    assert close(ntk.gram(net, x, wave, wrt=wrt, method=method), reference.gram(net, x, wave, wrt=wrt), torch.float64)


@pytest.mark.parametrize("residual", [wave, two_components], ids=lambda residual: residual.name)
@pytest.mark.parametrize("width", [64, 140])
@pytest.mark.parametrize("method", ["auto", "structured", "explicit"])
def test_a_memory_budget_changes_no_bit(method: str, width: int, residual, dtype: torch.dtype):
    case = Case("", lambda: mlp(nn.Tanh, (2, width, width, 1)), wave)
    net, x = case.net(dtype), case.points(dtype, n=150)
    free = ntk.gram(net, x, residual, method=method)
    for memory in ("2MB", 3_000_000, "64MB"):
        assert torch.equal(ntk.gram(net, x, residual, method=method, memory=memory), free)
    cross = ntk.gram(net, x, residual, x[:40], u_t, method=method)
    assert torch.equal(ntk.gram(net, x, residual, x[:40], u_t, method=method, memory="2MB"), cross)
    assert close(ntk.gram(net, x[:40], u_t, x, residual, method=method), cross.T, dtype)


@pytest.mark.parametrize("method", ["auto", "structured", "explicit"])
def test_a_classifier_with_wide_inputs_fits_its_budget(method: str, dtype: torch.dtype):
    net, x = randomized(mlp(nn.ReLU, (784, 24, 10))).to(dtype), uniform(12, 784).to(dtype)
    K = ntk.gram(net, x, memory="8MB", method=method)
    assert close(K, reference.gram(double(net), x.double()), dtype)
    assert torch.equal(K, K.T)


def test_of_no_points_is_empty(dtype: torch.dtype):
    net, x = TANH.net(dtype), TANH.points(dtype)
    assert ntk.gram(net, x[:0], wave).shape == (0, 0)
    assert ntk.gram(net, x[:0], wave, x).shape == (0, len(x))
    assert ntk.gram(net, x, wave, x[:0]).shape == (len(x), 0)
    some = ntk.gram(net, {"u": (x[:0], ntk.value), "r": (x, wave)})
    assert close(some, ntk.gram(net, x, wave), dtype)


def test_a_wider_type_can_be_asked_for():
    net, x = TANH.net(torch.float32), TANH.points(torch.float32)
    K = ntk.gram(net, x, wave, dtype=torch.float64)
    assert K.dtype == torch.float64
    expected = reference.gram(double(net), x.double(), wave)
    assert torch.linalg.matrix_norm(K - expected) <= 1e-5 * torch.linalg.matrix_norm(expected)


def test_a_given_output_is_filled():
    net, x = TANH.net(), TANH.points()
    out = torch.full((len(x), len(x)), torch.nan, dtype=torch.float64)
    K = ntk.gram(net, x, wave, out=out)
    assert K.data_ptr() == out.data_ptr()
    assert torch.equal(out, ntk.gram(net, x, wave))
    n = len(x)
    for wrong, got in (
        (torch.empty(3, 3, dtype=torch.float64), "(3, 3) in torch.float64 on cpu, strides (3, 1)"),
        (out.T, f"({n}, {n}) in torch.float64 on cpu, strides (1, {n})"),
        (out.float(), f"({n}, {n}) in torch.float32 on cpu, strides ({n}, 1)"),
    ):
        sentence = f"expected out contiguous, ({n}, {n}) in torch.float64 on cpu, got {got}"
        with pytest.raises(ValueError, match=re.escape(sentence)):
            ntk.gram(net, x, wave, out=wrong)


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match="expected a method out of .*, got 'fast'"):
        ntk.gram(TANH.net(), TANH.points(), wave, method="fast")


def test_a_linear_operator_acts_on_the_kernel_twice():
    # For a linear layer on z = x/σ: K_u = z·z' + 1, K_{u_t} = 1/σ_t², K_{u, u_t} = t/σ_t².
    net, x = randomized(nn.Sequential(ntk.Standardize([0.0, 0.0], [0.5, 2.0]), nn.Linear(2, 1))), uniform(6)
    z = x / torch.tensor([0.5, 2.0])
    assert close(ntk.gram(net, x), z @ z.T + 1, torch.float64)
    assert close(ntk.gram(net, x, u_t), torch.full((6, 6), 4.0, dtype=torch.float64), torch.float64)
    assert close(ntk.gram(net, x, ntk.value, x, u_t), (4 * x[:, :1]).expand(6, 6), torch.float64)


@pytest.mark.parametrize("memory", [None, "400kB"])
def test_a_memory_mapped_output_is_filled(tmp_path, memory):
    net, x = TANH.net(), uniform(150)
    mapped = np.memmap(tmp_path / "K.bin", dtype=np.float64, mode="w+", shape=(150, 150))
    ntk.gram(net, x, wave, out=torch.from_numpy(mapped), memory=memory)
    mapped.flush()
    read = np.fromfile(tmp_path / "K.bin", dtype=np.float64).reshape(150, 150)
    assert np.array_equal(read, ntk.gram(net, x, wave).numpy())


def test_groups_beside_points_are_refused():
    net, x = nn.Sequential(nn.Linear(2, 1)), torch.rand(3, 2)
    with pytest.raises(ValueError, match="expected y to be points, as x is"):
        ntk.gram(net, x, y={"a": (x, ntk.value)})
    with pytest.raises(ValueError, match="expected y to be a dict of groups, .* got Tensor"):
        ntk.gram(net, {"a": (x, ntk.value)}, y=x)
    with pytest.raises(ValueError, match="and no residual_y, got a residual_y"):
        ntk.gram(net, {"a": (x, ntk.value)}, y={"a": (x, ntk.value)}, residual_y=wave)


def test_a_residual_may_ask_for_a_gram_itself():
    net, x = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1)), torch.rand(5, 2)
    square = ntk.residual("t", "x")(lambda u: u * u)

    def asks(u):
        ntk.gram(net, x + 1, square)
        return u * u

    assert torch.equal(ntk.gram(net, x, ntk.residual("t", "x")(asks)), ntk.gram(net, x, square))


@pytest.mark.parametrize("n", (31, 64, 70, 100))
def test_blocks_on_the_diagonal_are_those_of_the_whole_kernel(n):
    # There each pair of channels is computed once; a second set of the same points asks for all of them.
    net, x = ntk.MLP([2, 20, 20, 1]), torch.rand(n, 2)
    wave = ntk.residual("t", "x")(lambda u: u.d(t=2) - 4.0 * u.d(x=2))
    full = ntk.gram(net, x, wave, y=x.clone(), method="structured")
    assert torch.equal(ntk.gram(net, x, wave, method="structured"), full)
