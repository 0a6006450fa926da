"""Recordings: channels, rows and seeds against an evaluation by nested autograd, and what is refused."""

from types import SimpleNamespace

import pytest
import torch

import ntkfast as ntk
from ntkfast.recording import record
from ntkfast.residual import Residual, value

COORDINATES = ("t", "x", "y")


class Net(torch.nn.Module):
    """A tanh network with a linear last layer, float64, and its output channels by nested autograd."""

    def __init__(self, outputs=1):
        super().__init__()
        torch.manual_seed(1)
        sizes = [3, 6, 5, outputs]
        layers = []
        for a, b in zip(sizes[:-1], sizes[1:], strict=True):
            layers += [torch.nn.Linear(a, b, dtype=torch.float64), torch.nn.Tanh()]
        self.layers = torch.nn.Sequential(*layers[:-1])

    def forward(self, x):
        return self.layers(x)

    def channels(self, spec, points):
        """(C, n, o): value, ∂u/∂v_k, and Σᵢ βᵢ ∂ᵢu + Σ_k ω_k ∂²u/∂x_k²."""
        x = points.detach().requires_grad_()
        outputs = []
        for u in self(x).unbind(1):
            first = grad(u, x)
            second = [grad(first[:, k], x)[:, k] for k in spec.directions]
            channels = [u]
            for c in range(len(spec.directions) + spec.collapsed):
                channels.append((first * spec.beta[:, c]).sum(1))
                m = c - len(spec.directions)
                if m >= 0:
                    channels[-1] = channels[-1] + sum(spec.omega[:, m, k] * s for k, s in enumerate(second))
            outputs.append(torch.stack(channels))
        return torch.stack(outputs, 2)


def grad(u, x):
    if not u.requires_grad:
        return torch.zeros_like(x)
    return torch.autograd.grad(u.sum(), x, create_graph=True)[0]


class Eager(torch.Tensor):
    """The jet of the definition: a tensor whose derivatives are taken at once, one after the other."""

    @staticmethod
    def of(net, points):
        x = points.detach().requires_grad_()
        u = net(x)[:, 0].as_subclass(Eager)
        u.x = x
        return u

    @property
    def value(self):
        return self

    def d(self, **orders):
        u = self.as_subclass(torch.Tensor)
        for name, order in orders.items():
            for _ in range(order):
                u = grad(u, self.x)[:, COORDINATES.index(name)]
        return u

    def laplacian(self, *names):
        return sum(self.d(**{name: 2}) for name in names)


def torch_function_of_jets(u):
    return torch.sin(u) * (u.d(t=1) - 0.5 * u.d(x=2)) + torch.exp(u.d(x=1))


# function, C, linear, channels per component
FUNCTIONS = {
    "value": (lambda u: u, 1, True, [1]),
    "velocity": (lambda u: u.d(t=1), 2, True, [2]),
    "transport": (lambda u: u.d(t=1) + 2 * u.d(x=1) - 3 * u, 2, True, [2]),
    "wave": (lambda u: u.d(t=2) - 4.0 * u.d(x=2), 4, True, [4]),
    "scaled wave": (lambda u: 0.1 * (u.d(t=2) - 4.0 * u.d(x=2)), 4, True, [4]),
    "heat": (lambda u: u.d(t=1) - 0.3 * u.d(x=2), 3, True, [3]),
    "advection-diffusion": (lambda u: u.d(t=1) + 0.7 * u.d(x=1) - 0.3 * u.d(x=2) + u, 3, True, [3]),
    "Laplacian": (lambda u: u.laplacian("t", "x", "y"), 5, True, [5]),
    "Burgers": (lambda u: u.d(t=1) + u * u.d(x=1) - 0.01 * u.d(x=2), 3, False, [3]),
    "inviscid": (lambda u: u.d(t=1) + u * u.d(x=1), 3, False, [3]),
    "conservative": (lambda u: u.d(t=1) + u * u.d(x=1) + u.d(x=1), 3, False, [3]),
    "eikonal": (lambda u: u.d(x=1) ** 2 + u.d(y=1) ** 2 - 1, 3, False, [3]),
    "gradient times sum": (lambda u: u.d(x=1) * u.d(t=1) + u.d(x=1) + u.d(t=1), 3, False, [3]),
    "Klein-Gordon": (lambda u: u.d(t=2) - u.d(x=2) + u**3, 4, False, [4]),
    "sine-Gordon": (lambda u: u.d(t=2) - u.d(x=2) + torch.sin(u), 4, False, [4]),
    "reciprocal": (lambda u: 1 / (u + 3) - u.d(t=1) / u.value.exp(), 2, False, [2]),
    "nested": (torch_function_of_jets, 3, False, [3]),
    "squared operator": (lambda u: (u.d(t=1) - u.d(x=2)) ** 2 + (u.d(t=1) - u.d(x=2)), 3, False, [3]),
    "materialised sum with source": (lambda u, at: (u - at.x) ** 2, 1, False, [1]),
    "source of a value": (lambda u, at: (u.d(t=1) + u**2) * u.d(x=1), 3, False, [3]),
    "forced heat": (lambda u, at: u.d(t=1) - 0.3 * u.d(x=2) - torch.sin(at.x), 3, True, [3]),
    "variable diffusion": (lambda u, at: u.d(t=1) - at.x * u.d(x=2) + at.t * u.d(x=1), 3, True, [3]),
    "variable transport": (lambda u, at: u.d(t=1) + at.x * u.d(x=1), 2, True, [2]),
    "variable lone derivative": (lambda u, at: at.x * u.d(x=2) / (1 + at.t), 3, True, [3]),
    "variable potential": (lambda u, at: torch.exp(at.x) * u + u.d(y=2), 3, True, [3]),
    "variable and non-linear": (lambda u, at: u * u.d(x=1) + at.x * u.d(x=2) + at.y * u.d(t=1), 3, False, [3]),
    "piecewise": (lambda u, at: torch.where(at.x > 0.5, at.x, 0.0) * u.d(x=2) + u, 3, True, [3]),
    "piecewise operator": (lambda u, at: torch.where(at.x > 0.5, u.d(t=1), u.d(x=2)), 4, False, [4]),
    "clipped": (lambda u, at: torch.where(u > 0, u, 0.1 * u) + u.d(x=1) * (u > 0.1), 2, False, [2]),
    "frozen factor": (lambda u: u.detach() * u.d(x=1), 2, False, [2]),
    "no derivative": (lambda u, at: torch.sin(at.x), 1, True, [1]),
    "nothing": (lambda u: 0 * u, 1, True, [1]),
    "vanishing term": (lambda u: u.d(t=1) - 0.0 * u.d(x=2), 2, True, [2]),
    "cancelled term": (lambda u: u.d(t=1) + u.d(x=2) - u.d(x=2), 2, True, [2]),
    "start": (lambda u, at: {"u": u - at.x**2, "ut": u.d(t=1)}, 2, True, [1, 2]),
    "same operator twice": (lambda u: {"r": u.d(t=2) - u.d(x=2), "q": 3 * u.d(x=2) - 3 * u.d(t=2)}, 4, True, [4, 4]),
    "slope and operator": (lambda u: {"ux": u.d(x=1), "r": u.d(t=1) - u.d(x=2), "u": u}, 3, True, [2, 3, 1]),
    "parts and sum": (lambda u: {"a": u.d(t=1), "b": u.d(x=1), "c": u.d(t=1) - u.d(x=1)}, 3, True, [2, 2, 3]),
    "two operators": (lambda u: {"a": u.laplacian("x", "y"), "b": u.d(t=1) - u.d(x=2)}, 5, True, [4, 3]),
    "linear beside non-linear": (lambda u: {"a": u * u.d(y=1), "b": u.d(t=1), "c": u**2}, 3, False, [2, 2, 1]),
    "shared factor": (
        lambda u, at: {"a": at.x * (u.d(t=2) - u.d(x=2)), "b": u * (u.d(t=2) - u.d(x=2))},
        5,
        False,
        [4, 4],
    ),
}


def residual_of(name):
    return Residual(FUNCTIONS[name][0], COORDINATES)


def points_of(n, dtype=torch.float64):
    return torch.rand(n, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(n)).to(dtype)


def eager_rows(net, residual, points):
    arguments = {"u": Eager.of(net, points)}
    if residual.takes_at:
        arguments["at"] = SimpleNamespace(t=points[:, 0], x=points[:, 1], y=points[:, 2])
    result = residual.fn(**arguments, **{k: v for k, v in residual.coefficients.items()})
    parts = result.values() if isinstance(result, dict) else [result]
    return torch.stack([part.as_subclass(torch.Tensor) for part in parts], 1)


def theta_gradient(net, scalar):
    if not scalar.requires_grad:
        return torch.zeros(sum(p.numel() for p in net.parameters()), dtype=torch.float64)
    grads = torch.autograd.grad(scalar, list(net.parameters()), retain_graph=True, allow_unused=True)
    return torch.cat(
        [
            torch.zeros_like(p).flatten() if g is None else g.flatten()
            for p, g in zip(net.parameters(), grads, strict=True)
        ]
    )


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_chooses_as_few_channels_as_promised(name):
    _, channels, linear, per_component = FUNCTIONS[name]
    recording = record(residual_of(name), points_of(7), 1)
    assert recording.spec.n_channels == channels
    assert recording.linear == linear
    assert [len(recording.spec.channels(j)) for j in range(recording.n_components)] == per_component


@pytest.mark.parametrize("name", FUNCTIONS)
def test_spec_is_closed_and_consistent(name):
    spec = record(residual_of(name), points_of(7), 1).spec
    F, M = len(spec.directions), spec.collapsed
    assert spec.beta.shape in ((1, F + M, 3), (7, F + M, 3)) and spec.omega.shape in ((1, M, F), (7, M, F))
    assert torch.equal(spec.beta[0, :F], torch.eye(3, dtype=torch.float64)[list(spec.directions)])
    for directions, collapsed in spec.components:
        for m in collapsed:
            assert set(spec.omega[:, m].abs().sum(0).nonzero().flatten().tolist()) <= set(directions)


@pytest.mark.parametrize("n", [0, 1, 7])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_rows_and_seeds_equal_nested_autograd(name, n):
    net, residual, points = Net(), residual_of(name), points_of(n)
    recording = record(residual, points, 1)
    out = net.channels(recording.spec, points)
    expected = eager_rows(net, residual, points)
    assert expected.shape == (n, recording.n_components)
    close(recording.rows(out), expected)
    close(recording.rows(out.detach()), expected.detach())
    weights = torch.rand(n, recording.n_components, dtype=torch.float64)
    seeds = recording.seeds(out)
    pulled = sum(
        (seed * weights[:, j, None] * out[list(recording.spec.channels(j))]).sum() for j, seed in enumerate(seeds)
    )
    assert not any(seed.requires_grad for seed in seeds)
    close(theta_gradient(net, pulled), theta_gradient(net, (weights * expected).sum()))
    close(theta_gradient(net, (weights * recording.rows(out)).sum()), theta_gradient(net, (weights * expected).sum()))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_seeds_are_the_derivatives_of_rows(name):
    recording = record(residual_of(name), points_of(7), 1)
    out = torch.rand(recording.spec.n_channels, 7, 1, dtype=torch.float64, requires_grad=True)
    rows = recording.rows(out)
    for j, seed in enumerate(recording.seeds(out)):
        assert seed.shape == (len(recording.spec.channels(j)), 7, 1)
        full = torch.zeros_like(out)
        full[list(recording.spec.channels(j))] = seed
        if rows.requires_grad:
            (expected,) = torch.autograd.grad(rows[:, j].sum(), out, retain_graph=True)
        else:
            expected = torch.zeros_like(out)
        close(full, expected)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_float32_stays_float32_and_agrees(name):
    residual = residual_of(name)
    double, single = (record(residual, points_of(7).to(dtype), 1) for dtype in (torch.float64, torch.float32))
    out = torch.rand(double.spec.n_channels, 7, 1, dtype=torch.float64)
    rows, seeds = single.evaluate(out.float())
    assert {t.dtype for t in (rows, *seeds, single.spec.beta, single.spec.omega)} == {torch.float32}
    torch.testing.assert_close(rows.double(), double.rows(out), rtol=1e-5, atol=1e-5)
    for a, b in zip(seeds, double.seeds(out), strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if FUNCTIONS[name][2]])
def test_linear_seeds_need_no_outputs(name):
    recording = record(residual_of(name), points_of(7), 1)
    out = torch.rand(recording.spec.n_channels, 7, 1, dtype=torch.float64)
    for a, b in zip(recording.seeds(), recording.seeds(out), strict=True):
        assert torch.equal(a, b)
    # The constants are (C_j, 1, o), expanded over the points.
    if not recording.residual.takes_at:
        assert all(seed.stride(1) == 0 for seed in recording.seeds())


def test_wave_is_one_collapsed_channel():
    spec = record(residual_of("wave"), points_of(3), 1).spec
    assert spec.directions == (0, 1) and spec.collapsed == 1 and spec.order == 2
    assert torch.equal(spec.omega, torch.tensor([[[1.0, -4.0]]], dtype=torch.float64))
    assert torch.equal(spec.beta[0, 2], torch.zeros(3, dtype=torch.float64))


def test_order_is_that_of_the_highest_derivative():
    for name, order in {"value": 0, "velocity": 1, "wave": 2, "eikonal": 1, "no derivative": 0}.items():
        assert record(residual_of(name), points_of(3), 1).spec.order == order


@pytest.mark.parametrize("outputs", [1, 3])
def test_value_is_all_outputs(outputs):
    net, points = Net(outputs), points_of(5)
    recording = record(value, points, outputs)
    out = net.channels(recording.spec, points)
    assert recording.spec.n_channels == 1 and recording.linear and recording.n_components == outputs
    assert recording.names == (("",) if outputs == 1 else ("0", "1", "2"))
    close(recording.rows(out), net(points))
    assert torch.equal(torch.cat(recording.seeds())[:, 0], torch.eye(outputs, dtype=torch.float64))
    assert recording.seeds()[0].shape == (1, 5, outputs)


def test_value_of_one_output():
    net, points = Net(3), points_of(5)
    recording = record(value[2], points, 3)
    close(recording.rows(net.channels(recording.spec, points)), net(points)[:, 2:])
    assert recording.names == ("",)
    assert torch.equal(recording.seeds()[0][0, 0], torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64))


def test_rows_are_a_copy():
    for residual in (value, residual_of("velocity")):
        recording = record(residual, points_of(4), 1)
        out = torch.ones(recording.spec.n_channels, 4, 1, dtype=torch.float64)
        rows = recording.rows(out)
        out.zero_()
        assert torch.equal(rows, torch.ones(4, 1, dtype=torch.float64))


def test_evaluation_follows_the_outputs():
    recording = record(residual_of("Burgers"), points_of(4), 1)
    out = torch.rand(3, 4, 1, dtype=torch.float64)
    before = recording.rows(out)
    assert torch.equal(recording.rows(out), before)
    out.mul_(2)
    assert not torch.equal(recording.rows(out), before)
    close(recording.rows(out), recording.rows(out.clone()))


def test_works_in_inference_mode():
    for name in ("heat", "Burgers", "variable and non-linear"):
        with torch.inference_mode():
            points = points_of(4) * 1.0
            recording = record(residual_of(name), points, 1)
            out = torch.rand(3, 4, 1, dtype=torch.float64)
            rows, seeds = recording.rows(out), recording.seeds(out)
        close(rows.clone(), recording.rows(out.clone()))
        assert seeds[0].shape == (3, 4, 1)


def test_works_without_grad_mode():
    with torch.no_grad():
        recording = record(residual_of("Burgers"), points_of(4), 1)
        seeds = recording.seeds(torch.ones(3, 4, 1, dtype=torch.float64))
    assert torch.equal(seeds[0], torch.ones(3, 4, 1, dtype=torch.float64))


@pytest.mark.parametrize("kappa", [0.3, 2, torch.tensor(0.3), torch.tensor(0.3, dtype=torch.float64)])
def test_bound_numbers_are_constants(kappa):
    heat = Residual(lambda u, kappa: u.d(t=1) - kappa * u.d(x=2), COORDINATES).bind(kappa=kappa)
    recording = record(heat, points_of(4), 1)
    assert recording.spec.omega.flatten().tolist() == [-float(kappa)]


def test_bound_tensors_follow_the_points():
    net, points, kappa = Net(), points_of(90), torch.rand(90, dtype=torch.float64)
    heat = Residual(lambda u, kappa: u.d(t=1) - kappa * u.d(x=2), COORDINATES).bind(kappa=kappa)
    recording = record(heat, points, 1)
    assert recording.spec.omega.shape == (90, 1, 1)
    close(recording.rows(net.channels(recording.spec, points)), eager_rows(net, heat, points))


def test_captured_numbers_may_change():
    state = SimpleNamespace(nu=0.5)
    residual = Residual(lambda u: u.d(t=1) - state.nu * u.d(x=2), COORDINATES)
    for nu in torch.linspace(0.1, 3.0, 40, dtype=torch.float64).tolist():
        state.nu = nu
        assert record(residual, points_of(3), 1).spec.omega.flatten().tolist() == [-nu]
    assert len(residual._layouts) <= 16


def test_further_columns_travel_with_the_points():
    residual = Residual(lambda u, at: at.nx * u.d(x=1) + at.ny * u.d(y=1), COORDINATES)
    columns = {"nx": torch.rand(90, dtype=torch.float64), "ny": torch.rand(90, dtype=torch.float64)}
    spec = record(residual, points_of(90), 1, columns).spec
    assert torch.equal(spec.beta[:, 0], torch.stack([torch.zeros(90), columns["nx"], columns["ny"]], 1))


def test_layouts_are_shared_between_calls():
    residual = residual_of("wave")
    first, second = (record(residual, points_of(n), 1) for n in (3, 8))
    assert first.spec is second.spec
    assert second.seeds()[0].shape == (4, 8, 1)


def test_points_are_left_alone():
    points = points_of(4).requires_grad_()
    residual = Residual(lambda u, at: u - at.x.mul_(2), COORDINATES)
    recording = record(residual, points, 1)
    assert not recording.rows(torch.ones(1, 4, 1, dtype=torch.float64)).requires_grad
    assert torch.equal(points, points_of(4))


def test_random_numbers_of_the_caller_are_left_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    record(residual_of("Burgers"), points_of(30), 1)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("residual", "points", "outputs", "error", "message"),
    [
        (residual_of("wave"), points_of(3), 2, ValueError, "a network with 1 output .* got 2 outputs"),
        (value[3], points_of(3), 3, ValueError, r"output below 3, got ntk\.value\[3\]"),
        (residual_of("wave"), points_of(3)[:, :2], 1, ValueError, "3 columns .* got 2"),
        (residual_of("wave"), points_of(3)[0], 1, ValueError, r"got shape \(3,\)"),
        (value, points_of(3).half(), 1, TypeError, "got torch.float16"),
        (value, None, 1, TypeError, "got NoneType"),
    ],
)
def test_refuses_points_and_outputs_with_a_sentence(residual, points, outputs, error, message):
    with pytest.raises(error, match=message):
        record(residual, points, outputs)


def test_rows_and_seeds_refuse_wrong_outputs():
    recording = record(residual_of("Burgers"), points_of(3), 1)
    with pytest.raises(ValueError, match=r"expected output channels of shape \(3, 3, 1\), got \(2, 3, 1\)"):
        recording.rows(torch.ones(2, 3, 1, dtype=torch.float64))
    with pytest.raises(ValueError, match="not linear, got None"):
        recording.seeds()


def test_a_part_is_the_same_residual_on_some_of_the_points():
    heat = ntk.residual("t", "x")(lambda u, at, kappa: u * u.d(t=1) - kappa * u.d(x=2) + at.nx)
    x, out = torch.rand(9, 2, dtype=torch.float64), torch.rand(4, 9, 1, dtype=torch.float64)
    columns = {"nx": torch.rand(9, dtype=torch.float64)}
    whole = record(heat.bind(kappa=torch.rand(9, dtype=torch.float64)), x, 1, columns)
    part = whole.part(3, 7)
    assert torch.equal(part.rows(out[:, 3:7]), whole.rows(out)[3:7])
    for a, b in zip(part.seeds(out[:, 3:7]), whole.seeds(out), strict=True):
        assert torch.equal(a, b[:, 3:7])
