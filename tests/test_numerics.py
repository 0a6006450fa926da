"""What every verb owes its caller: the same bits again, untouched inputs, any memory layout, every CPU level."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from cases import (
    CASES,
    WIDE,
    Case,
    burgers,
    close,
    double,
    expected_jacobian,
    heat,
    mlp,
    products,
    randomized,
    two_components,
    uniform,
    variable_coefficient,
    wave,
    wave_groups,
)
from torch import nn

import ntkfast as ntk
from ntkfast import reference

TANH = Case("tanh", lambda: mlp(nn.Tanh, (2, 37, 37, 1)), wave, n=83)
VERBS = {
    "trace": ntk.trace,
    "diag": ntk.diag,
    "gram": ntk.gram,
    "structured": lambda *args: ntk.gram(*args, method="structured"),
    "explicit": lambda *args: ntk.gram(*args, method="explicit"),
    "jacobian": lambda *args: ntk.factors(*args).jacobian(),
    "rows": lambda *args: ntk.factors(*args).rows.detach(),
    "vjp": lambda *args: torch.cat([g.flatten() for g in _vjp(ntk.factors(*args)).values()]),
}


def _vjp(f):
    return f.vjp(torch.linspace(-1, 1, len(f.rows), dtype=f.rows.dtype))


@pytest.fixture(params=VERBS)
def verb(request: pytest.FixtureRequest):
    return VERBS[request.param]


@pytest.mark.parametrize("case", [TANH, WIDE], ids=lambda case: case.name)
@pytest.mark.parametrize("residual", [ntk.value, wave, burgers, two_components], ids=lambda residual: residual.name)
def test_the_same_call_gives_the_same_bits(verb, residual, case: Case, dtype: torch.dtype):
    net, x = case.net(dtype), case.points(dtype)
    first = verb(net, x, residual)
    for _ in range(3):
        assert torch.equal(verb(net, x, residual), first)


def test_groups_give_the_same_bits_again():
    net, groups = TANH.net(), wave_groups(60)
    first = ntk.gram(net, groups), ntk.trace(net, groups)
    again = ntk.gram(net, groups), ntk.trace(net, groups)
    assert torch.equal(first[0], again[0])
    assert all(torch.equal(first[1][name], again[1][name]) for name in groups)


@pytest.mark.parametrize(
    "layout",
    [
        lambda x: torch.stack([x, x + 1], 2)[..., 0],
        lambda x: x.T.contiguous().T,
        lambda x: torch.cat([x, x + 1], 1)[:, :2],
        lambda x: x.repeat_interleave(2, 0)[::2],
        lambda x: torch.cat([torch.zeros(1, dtype=x.dtype), x.flatten()])[1:].view_as(x),
        lambda x: nn.Parameter(x),
    ],
    ids=["strided", "columns", "sliced", "stepped", "unaligned", "parameter"],
)
def test_memory_layout_of_the_points_changes_no_bit(verb, layout, dtype: torch.dtype):
    net, x = TANH.net(dtype), TANH.points(dtype)
    assert torch.equal(layout(x).detach(), x)
    assert torch.equal(verb(net, layout(x), wave), verb(net, x, wave))


def test_no_groups_give_nothing():
    net = TANH.net()
    assert ntk.trace(net, {}) == ntk.diag(net, {}) == {}
    assert ntk.gram(net, {}).shape == (0, 0)


def test_points_that_are_all_the_same_one(verb):
    net, x = TANH.net(), TANH.points()[:1]
    assert torch.equal(verb(net, x.expand(40, 2), wave), verb(net, x.repeat(40, 1), wave))


@pytest.mark.parametrize("kind", ["strided", "transposed", "unaligned"])
def test_memory_layout_of_the_parameters_changes_nothing(kind: str):
    net, x = TANH.net(), TANH.points()
    K = ntk.gram(net, x, wave)
    weight = net[3].weight.data
    if kind == "strided":
        weight = torch.stack([weight, weight + 1], 2)[..., 0]
    elif kind == "transposed":
        weight = weight.T.contiguous().T
    else:
        weight = torch.cat([weight.new_zeros(1), weight.flatten()])[1:].view_as(weight)
    net[3].weight = nn.Parameter(weight)
    assert close(ntk.gram(net, x, wave), K, torch.float64)
    f = ntk.factors(net, x, wave)
    assert close(f.gram(), K, torch.float64)
    f.rows.sum().backward()
    assert net[3].weight.grad.shape == weight.shape


def test_points_are_constants_even_if_they_require_grad(verb):
    net, x = TANH.net(), TANH.points().requires_grad_()
    result = verb(net, x * 1.0, wave)
    assert not result.requires_grad
    ntk.factors(net, x, wave).rows.sum().backward()
    assert x.grad is None


def test_results_cannot_be_differentiated_silently():
    net, x = TANH.net(), TANH.points()
    for result in (ntk.trace(net, x, wave), ntk.diag(net, x, wave).sum(), ntk.gram(net, x, wave).sum()):
        with pytest.raises(RuntimeError, match=r"\w+ \w+ \w+"):
            result.backward()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_gradient_modes_change_no_bit(verb, mode):
    net, x = TANH.net(), TANH.points()
    expected = verb(net, x, burgers)
    with mode():
        assert torch.equal(verb(net, x, burgers), expected)
    assert torch.equal(verb(net, x, burgers), expected)


def test_inputs_are_left_as_they_were(verb):
    net, x = TANH.net(), TANH.points()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    verb(net, x, wave)
    assert torch.equal(x, TANH.points())
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())


def test_float32_and_float64_agree(verb):
    net, x = TANH.net(torch.float32), TANH.points(torch.float32)
    low, high = verb(net, x, wave), verb(net.double(), x.double(), wave)
    assert torch.linalg.vector_norm(low.double() - high) <= 1e-5 * torch.linalg.vector_norm(high)


def test_saturated_and_extreme_activations_stay_finite(dtype: torch.dtype):
    x = torch.tensor([[0.0, 0.0], [1e2, -1e2], [-1e3, 1e3], [1e-30, -1e-30]], dtype=dtype)
    for make in (nn.Tanh, nn.Sigmoid, ntk.Sin, ntk.Erf, nn.Softplus, nn.SiLU, nn.GELU, lambda: nn.GELU("tanh")):
        net = Case("", lambda make=make: mlp(make), wave).net(dtype)
        assert bool(torch.isfinite(ntk.diag(net, x, burgers)).all()), make
        assert bool(torch.isfinite(ntk.gram(net, x, wave)).all()), make


def test_a_parameter_that_is_not_a_number_reaches_the_result():
    net, x = TANH.net(), TANH.points()
    with torch.no_grad():
        net[3].weight[2, 1] = torch.nan
    assert bool(ntk.trace(net, x, wave).isnan())
    assert bool(ntk.diag(net, x, ntk.value).isnan().all())


def test_two_threads_do_not_disturb_each_other():
    net, x = TANH.net(), TANH.points(n=200)
    expected = ntk.gram(net, x, wave), ntk.trace(net, x, burgers)
    wrong: list[str] = []

    def work() -> None:
        for _ in range(10):
            if not torch.equal(ntk.gram(net, x, wave), expected[0]):
                wrong.append("gram")
            if not torch.equal(ntk.trace(net, x, burgers), expected[1]):
                wrong.append("trace")

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
def test_any_number_of_threads_agrees(threads: int):
    net, x, before = TANH.net(), TANH.points(), torch.get_num_threads()
    J = expected_jacobian(TANH, torch.float64)
    try:
        torch.set_num_threads(threads)
        assert close(ntk.gram(net, x, wave), J @ J.T, torch.float64)
        assert close(ntk.diag(net, x, wave), J.square().sum(1), torch.float64)
        assert close(ntk.trace(net, x, wave), J.square().sum(), torch.float64)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("case", [TANH, WIDE], ids=lambda case: case.name)
def test_the_number_of_threads_changes_no_bit(verb, case: Case, dtype: torch.dtype):
    net, x, before = case.net(dtype), case.points(dtype), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = verb(net, x, wave)
        for threads in (2, 3):
            torch.set_num_threads(threads)
            assert torch.equal(verb(net, x, wave), alone)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("sizes", [(2, 1), (2, 4, 1)], ids=str)
def test_the_number_of_threads_changes_no_bit_of_a_sum_over_many_rows(sizes):
    """A sum of so many numbers is one that torch shares among its threads."""
    net, before = mlp(nn.Tanh, sizes).double(), torch.get_num_threads()
    try:
        for seed in range(5):  # a sum in another order may come to the same
            x = uniform(100_000, 2, seed)
            torch.set_num_threads(1)
            alone = ntk.trace(net, x), ntk.factors(net, x).trace()
            for threads in (2, 3):
                torch.set_num_threads(threads)
                assert (ntk.trace(net, x), ntk.factors(net, x).trace()) == alone
    finally:
        torch.set_num_threads(before)


BUDGETS = [None, "1MB", 300_000]
AWKWARD = {
    "burgers": burgers,
    "two_components": two_components,
    "variable_coefficient": variable_coefficient,
    "products": products,
    "aligned": heat.bind(kappa=uniform(600, 1, 4).flatten()),
    "value": ntk.value,
}


@pytest.mark.parametrize("name", AWKWARD)
def test_budgets_cut_what_belongs_to_the_points_along_with_them(name: str):
    net, residual = Case("", lambda: mlp(nn.Tanh, (2, 9, 9, 1)), wave).net(), AWKWARD[name]
    x = uniform(600)
    J = reference.jacobian(net, x, residual)
    some = J[: 12 * (len(J) // 600)]
    for memory in BUDGETS:
        assert close(ntk.trace(net, x, residual, memory=memory), J.square().sum(), torch.float64)
        assert close(ntk.diag(net, x, residual, memory=memory), J.square().sum(1), torch.float64)
        assert close(ntk.gram(net, x, residual, memory=memory), J @ J.T, torch.float64)
        if name != "aligned":
            cross = ntk.gram(net, x, residual, x[:12], residual, memory=memory)
            assert close(cross, J @ some.T, torch.float64)


def test_budgets_cut_groups():
    net = Case("", lambda: mlp(nn.Tanh, (2, 9, 9, 1)), wave).net()
    groups = wave_groups(300) | {"b": (uniform(210, 2, 3), burgers), "v": (uniform(90, 2, 4), variable_coefficient)}
    J = {group: reference.jacobian(net, x, residual) for group, (x, residual) in groups.items()}
    together = torch.cat([*J.values()])
    for memory in BUDGETS:
        assert close(ntk.gram(net, groups, memory=memory), together @ together.T, torch.float64)
        traces, diagonals = ntk.trace(net, groups, memory=memory), ntk.diag(net, groups, memory=memory)
        for group, part in J.items():
            assert close(traces[group], part.square().sum(), torch.float64)
            assert close(diagonals[group], part.square().sum(1), torch.float64)


def test_a_million_points():
    net, x = randomized(mlp(nn.Tanh, (2, 3, 1))), uniform(1000)
    assert close(ntk.trace(net, x.repeat(1000, 1), burgers), 1000 * reference.trace(net, x, burgers), torch.float64)


def test_columns_that_travel_with_the_points(verb):
    @ntk.residual("t", "x")
    def flux(u, at):
        return at.nx * u.d(x=1) + at.nt * u.d(t=1)

    net, x = TANH.net(), TANH.points()
    angle = 7 * uniform(len(x), 1).flatten()
    direction = ntk.Points(x, nx=angle.sin(), nt=angle.cos())
    tilted = ntk.residual("t", "x")(lambda u, c, s: s * u.d(x=1) + c * u.d(t=1)).bind(c=angle.cos(), s=angle.sin())
    assert close(verb(net, direction, flux), verb(net, x, tilted), torch.float64)
    J = reference.jacobian(net, direction, flux)
    assert close(ntk.gram(net, direction, flux), J @ J.T, torch.float64)


# ------------------------------------------------------------------------------------------ every instruction-set level

ACTIVATIONS = ["tanh", "sin", "erf", "sigmoid", "gelu", "gelu_tanh", "silu", "softplus", "softplus_beta_threshold"]
LEVEL_CASES = [f"{name}-wave" for name in [*ACTIVATIONS, "odd_widths", "wide", "wider"]]
LEVEL_CASES += ["tanh-two_components", "tanh-products", "classifier-value", "three_inputs-wave"]
LEVEL_CASES += ["three_inputs-gradient", "one_input-slope_and_curvature", "sigmoid-value"]
LEVEL_CASES += ["softplus-variable_coefficient", "tanh-u_t", "one_input-u_xx"]

SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
import torch
import ntkfast as ntk
from cases import CASES
from test_numerics import LEVEL_CASES, kernels
print(ntk._C.isa())
torch.save({c.name: kernels(c) for c in CASES if c.name in LEVEL_CASES}, sys.argv[2])
"""


def kernels(case: Case) -> dict[torch.dtype, list[torch.Tensor]]:
    found = {}
    for dtype in (torch.float64, torch.float32):
        net, x = case.net(dtype), case.points(dtype)
        f = ntk.factors(net, x, case.residual)
        grams = [ntk.gram(net, x, case.residual, method=method) for method in ("structured", "explicit")]
        v = {name: torch.ones_like(p) for name, p in net.named_parameters()}
        vjp = torch.cat([part.flatten() for part in f.vjp(torch.ones_like(f.rows)).values()])
        of_loss = ntk.loss_gradient(net, {"": (x, case.residual)}, traces=True)
        gradient = torch.cat([part.flatten() for part in of_loss.gradient.values()])
        traces = [ntk.trace(net, x, case.residual), of_loss.traces[""]]
        found[dtype] = [*traces, ntk.diag(net, x, case.residual), *grams, vjp, f.jvp(v), of_loss.rows, gradient]
    return {dtype: [result.detach() for result in results] for dtype, results in found.items()}


@pytest.mark.parametrize("level", ["base", "avx2", "avx512", "amx"])
def test_every_instruction_set_level_equals_the_reference(level: str, tmp_path: Path):
    file = tmp_path / "kernels.pt"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(Path(__file__).parent), str(file)],
        cwd=tmp_path,  # the installed package, whatever lies in the folder of the tests
        env={**os.environ, "NTKFAST_ISA": level},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    if done.stdout.split()[-1] != level:
        pytest.skip(f"this processor or build has no level {level}")
    saved = torch.load(file)
    assert len(saved) == len(LEVEL_CASES)
    for case in (case for case in CASES if case.name in LEVEL_CASES):
        for dtype, results in saved[case.name].items():
            J = expected_jacobian(case, dtype)
            K = J @ J.T
            rows = reference.rows(double(case.net(dtype)), case.points(dtype).double(), case.residual)
            rows = rows.detach().flatten()
            gradient = 2 / len(rows) * rows @ J
            expected = [K.trace(), K.trace(), K.diagonal(), K, K, J.sum(0), J.sum(1), rows, gradient]
            for actual, exact in zip(results, expected, strict=True):
                assert close(actual, exact, dtype)


def test_malformed_operator_calls_are_refused():
    ops, e = torch.ops.ntkfast, torch.empty(0)
    weights, constants = [torch.zeros(2, 2), e, torch.zeros(1, 2), e], [1.0, 1.0, 1.0, 1.0, 1.0, 20.0] * 2
    points = (weights, [0, 0], constants, [torch.zeros(7, 2)], [torch.zeros(1, 0, 2)], [torch.zeros(1, 0, 0)])
    with pytest.raises(RuntimeError, match="expected all groups to take part"):
        ops.diag(*points, [7, 0, 0, 1, 0, 0, 0], [torch.ones(1, 7, 1)], 0, torch.empty(2, 0, dtype=torch.float64))
    with pytest.raises(RuntimeError, match=r"expected at least one feature on either side, got a weight \(0, 0\)"):
        ops.vjp([torch.zeros(0, 0), e], [0], constants[:6], [3, 0, 0, 1, 1, 0, 0], e, e, torch.zeros(3), [e, e])
    wide, out = [torch.zeros(1, 2**18), e], torch.empty(1, 0, dtype=torch.float64)
    with pytest.raises(RuntimeError, match=r"expected stacks of fewer than 2\^63 elements, got \S+ rows of 262146"):
        ops.factor_diag(wide, [0], constants[:6], [2**32 - 1, 4095, 4095, 0, 1], e, e, out)


def test_derivatives_of_gelu_in_its_tanh_form_keep_their_digits_in_the_tails():
    """1 − tanh² would have lost half of them."""
    net = nn.Sequential(nn.GELU(approximate="tanh"), nn.Linear(1, 1))
    curvature = ntk.residual("x")(lambda u: u.d(x=2))
    with torch.no_grad():
        net[1].weight.fill_(1.0)
    x = torch.linspace(-4, 4, 401)[:, None]
    found, exact = curvature(net, x).detach(), curvature(net.double(), x.double()).detach()
    assert ((found - exact).abs() <= 2e-5 * exact.abs() + 1e-7).all()
