"""The reference itself: against nested autograd written by hand, closed forms, and the infinite-width limit."""

import math
from types import SimpleNamespace

import pytest
import torch
from cases import one_thread
from torch import nn
from torch.func import functional_call, grad, hessian, vmap

from ntkfast import reference

# The reference knows a residual by its attributes alone, so these tests use nothing else of the package.


@pytest.fixture(autouse=True, scope="module")
def on_one_thread():
    with one_thread():
        yield


def residual(*coordinates, outputs=None, **coefficients):
    return lambda fn: SimpleNamespace(fn=fn, coordinates=coordinates, outputs=outputs, coefficients=coefficients)


@residual("t", "x")
def wave(u):
    return u.d(t=2) - 4.0 * u.d(x=2)


@residual("t", "x", nu=0.3)
def burgers(u, at, nu):
    return u.d(t=1) + u * u.d(x=1) - nu * u.d(x=2) - torch.sin(at.x) * torch.exp(u)


def net_and_points(n=6, outputs=1):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 7), nn.Tanh(), nn.Linear(7, 5), nn.Tanh(), nn.Linear(5, outputs)).double()
    return net, torch.rand(n, 2, dtype=torch.float64)


def derivative(y, x, column):
    return torch.autograd.grad(y.sum(), x, create_graph=True)[0][:, column]


def by_hand(net, points, name):
    """The rows and the Jacobian by nested reverse mode, one backward per row."""
    x = points.clone().requires_grad_()
    u = net(x)[:, 0]
    u_t, u_x = derivative(u, x, 0), derivative(u, x, 1)
    u_tt, u_xx = derivative(u_t, x, 0), derivative(u_x, x, 1)
    rows = {"wave": u_tt - 4 * u_xx, "burgers": u_t + u * u_x - 0.3 * u_xx - torch.sin(x[:, 1]) * u.exp()}[name]
    parameters = list(net.parameters())
    jacobian = []
    for row in rows:
        gradients = torch.autograd.grad(row, parameters, retain_graph=True, allow_unused=True)
        parts = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, gradients, strict=True)]
        jacobian.append(torch.cat([g.flatten() for g in parts]))
    return rows.detach(), torch.stack(jacobian)


def same(actual, expected, tolerance=1e-12):
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance * float(expected.abs().max()))


@pytest.mark.parametrize("name, residual", [("wave", wave), ("burgers", burgers)])
def test_rows_and_jacobian_equal_nested_autograd(name, residual):
    net, x = net_and_points()
    rows, jacobian = by_hand(net, x, name)
    same(reference.rows(net, x, residual).detach(), rows)
    same(reference.jacobian(net, x, residual), jacobian)


def test_kernels_are_what_the_jacobian_says():
    net, x = net_and_points()
    y = torch.rand(4, 2, dtype=torch.float64)
    Jx, Jy = by_hand(net, x, "burgers")[1], by_hand(net, y, "wave")[1]
    same(reference.gram(net, x, burgers, y, wave), Jx @ Jy.T)
    same(reference.gram(net, x, burgers), Jx @ Jx.T)
    same(reference.diag(net, x, burgers), Jx.square().sum(1))
    same(reference.trace(net, x, burgers), Jx.square().sum())
    joint = reference.gram(net, {"a": (x, burgers), "b": (y, wave)})
    same(joint, torch.cat([Jx, Jy]) @ torch.cat([Jx, Jy]).T)


def test_rows_are_differentiable_in_the_parameters():
    net, x = net_and_points()
    gradients = torch.autograd.grad(reference.rows(net, x, wave).sum(), list(net.parameters())[:-1])
    same(torch.cat([g.flatten() for g in gradients]), reference.jacobian(net, x, wave).sum(0)[:-1])


def test_a_linear_network_has_the_kernel_in_closed_form():
    # u = w·x + b: ∂u/∂(w, b) = (x, 1), so K = x·x' + 1; u_t = w_t does not see the point: K = 1 everywhere.
    net, x = nn.Linear(2, 1).double(), torch.rand(5, 2, dtype=torch.float64)
    same(reference.gram(net, x), x @ x.T + 1)
    u_t = residual("t", "x")(lambda u: u.d(t=1))
    same(reference.gram(net, x, u_t), torch.ones(5, 5, dtype=torch.float64))
    assert float(reference.trace(net, x, wave)) == 0.0


def test_several_outputs_of_a_linear_network_do_not_interact():
    net, x = nn.Linear(2, 3).double(), torch.rand(4, 2, dtype=torch.float64)
    same(reference.gram(net, x), torch.kron(x @ x.T + 1, torch.eye(3, dtype=torch.float64)))
    same(reference.gram(net, x, sum_components=True), 3 * (x @ x.T + 1))
    one = SimpleNamespace(fn=None, index=1)
    same(reference.gram(net, x, one), x @ x.T + 1)


def test_a_linear_operator_acts_on_the_kernel_twice():
    # K_Lu(x, x') = L_x L_x' K_u(x, x') for L = ∂tt − 4 ∂xx.
    net, x = net_and_points(4)
    parameters = dict(net.named_parameters())

    def u(p, z):
        return functional_call(net, p, (z.unsqueeze(0),))[0, 0]

    def kernel(a, b):
        left, right = grad(u)(parameters, a), grad(u)(parameters, b)
        return sum((left[name] * right[name]).sum() for name in parameters)

    def apply_operator(f, z):
        H = hessian(f)(z)
        return H[0, 0] - 4 * H[1, 1]

    def entry(a, b):
        return apply_operator(lambda z: apply_operator(lambda w: kernel(z, w), b), a)

    expected = vmap(lambda a: vmap(lambda b: entry(a, b))(x))(x)
    same(reference.gram(net, x, wave), expected.detach(), 1e-10)


def test_operations_on_jets_are_operations_on_their_values():
    net, x = net_and_points()
    u = reference.Jet(lambda z: net(z)[:, 0], x, ("t", "x"))
    v = u.value.detach()
    for actual, expected in [
        (2 - u, 2 - v),
        (u - 2, v - 2),
        (2 / u, 2 / v),
        (u / 2, v / 2),
        (-u * u + u, -v * v + v),
        (u**2, v**2),
        (2.0**u, 2.0**v),
        (torch.tanh(u), v.tanh()),
        (v * u, v * v),
        (u.exp(), v.exp()),
        (u.laplacian(), u.d(t=2) + u.d(x=2)),
        (abs(u), v.abs()),
        (u.laplacian("x"), u.d(x=1).d(x=1).value),
        (u.d(t=1, x=1).value, u.d(x=1).d(t=1).value),
        (u.at(x=1.0).value, net(torch.stack([x[:, 0], torch.ones(6)], 1).double())[:, 0]),
    ]:
        same(actual.detach(), (expected.value if isinstance(expected, reference.Jet) else expected).detach())


def test_an_unknown_coordinate_is_named():
    net, x = net_and_points()
    with pytest.raises(ValueError, match=r"\('t', 'x'\), got 'z'"):
        reference.rows(net, x, residual("t", "x")(lambda u: u.d(z=1).value))


def test_named_outputs_of_a_network():
    net, x = net_and_points(outputs=3)
    flow = residual("t", "x", outputs=("u", "v", "p"))(lambda u, p: {"a": u.d(t=1) * p, "b": p - u})
    out = net(x).detach()
    rows = reference.rows(net, x, flow).detach().view(6, 2)
    same(rows[:, 1], out[:, 2] - out[:, 0])
    assert reference.jacobian(net, x, flow).shape == (12, sum(p.numel() for p in net.parameters()))


def test_any_module_will_do():
    class Skip(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.norm, self.gain = nn.Linear(2, 2), nn.LayerNorm(2), nn.Parameter(torch.ones(1))

        def forward(self, x):
            return (self.gain * self.norm(torch.relu(self.linear(x))) + x).sum(1)

    net, x = Skip().double(), torch.rand(3, 2, dtype=torch.float64)
    rows = [torch.autograd.grad(row, list(net.parameters()), retain_graph=True) for row in net(x)]
    J = torch.stack([torch.cat([g.flatten() for g in row]) for row in rows])
    same(reference.jacobian(net, x), J)
    assert set(reference.trace(net, x, per_block=True)) == {"", "linear", "norm"}


def test_frozen_parameters_and_patterns_choose_columns():
    net, x = net_and_points()
    J = reference.jacobian(net, x, wave)
    columns = dict(zip(dict(net.named_parameters()), J.split([p.numel() for p in net.parameters()], 1), strict=True))
    same(reference.jacobian(net, x, wave, wrt="2.*"), torch.cat([columns["2.weight"], columns["2.bias"]], 1))
    chosen = [columns["0.weight"], columns["4.weight"], columns["4.bias"]]
    same(reference.trace(net, x, wave, wrt=["0.weight", "4.*"]), torch.cat(chosen, 1).square().sum())
    blocks = reference.gram(net, x, wave, per_block=True)
    assert list(blocks) == ["0", "2", "4"]
    same(sum(blocks.values()), J @ J.T)
    net[2].requires_grad_(False)
    same(reference.diag(net, x, wave), (blocks["0"] + blocks["4"]).diag())
    with pytest.raises(ValueError, match="2.weight"):
        reference.trace(net, x, wave, wrt="2.weight")
    with pytest.raises(ValueError, match="9.weight"):
        reference.jacobian(net, x, wave, wrt=["0.*", "9.weight"])
    with pytest.raises(ValueError, match="parameters that require grad, got none"):
        reference.diag(net.requires_grad_(False), x, wave)


def test_what_travels_with_the_points_is_read_point_by_point():
    net, x = net_and_points()
    kappa, nx = torch.rand(6, dtype=torch.float64), torch.rand(6, dtype=torch.float64)
    points = SimpleNamespace(xy=x, columns={"nx": nx})
    flux = residual("t", "x", kappa=kappa)(lambda u, at, kappa: kappa * u + at.nx * u.d(x=1))
    parts = [reference.jacobian(net, x), reference.jacobian(net, x, residual("t", "x")(lambda u: u.d(x=1)))]
    same(reference.jacobian(net, points, flux), kappa[:, None] * parts[0] + nx[:, None] * parts[1])
    same(reference.diag(net, points, flux), reference.gram(net, points, flux).diag())
    assert reference.rows(net, points, flux).shape == (6,)


def test_empty_sets_have_empty_kernels():
    net, x = net_and_points()
    assert reference.rows(net, x[:0], wave).shape == (0,)
    assert reference.gram(net, x[:0], wave, x).shape == (0, 6)
    assert float(reference.trace(net, x[:0], wave)) == 0.0


# ------------------------------------------------------------------------------------------------------- infinite width

POINTS = torch.tensor([[1.0, 0.0], [0.5, math.sqrt(0.75)], [0.3, -0.4]], dtype=torch.float64)
PAIRS = {"12": (0, 1), "13": (0, 2), "23": (1, 2), "11": (0, 0), "33": (2, 2)}
GOLDEN = {  # Θ, two hidden layers, NTK parameterisation, W_std 1.5, b_std 0.1
    "relu": {"11": 4.3419531250, "12": 1.9832701577, "13": 1.1611883948, "33": 1.1383398437},
    "erf": {"11": 4.1593571827, "12": 1.4792979104, "13": 1.5975589479, "33": 2.5885686890},
    "sin": {"11": 4.0753515577, "12": 1.2182621646, "13": 1.3585837039, "33": 2.2865877583},
    "tanh": {"11": 3.09091699, "12": 1.21604917, "13": 1.23550088, "33": 1.82447015},
}
GOLDEN_WAVE = {  # L_x L_x' Θ for L = ∂tt − 4 ∂xx
    "erf": {"12": -67.66956550, "13": -316.61133820, "23": -34.11188385},
    "sin": {"12": -255.05990202, "13": -71.34719853, "23": -81.21503551},
}


class Scaled(nn.Module):
    """y = 1.5/√n_in · W x + 0.1 b with W, b ~ N(0, 1)."""

    def __init__(self, n_in, n_out):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_out, n_in, dtype=torch.float64))
        self.bias = nn.Parameter(torch.randn(n_out, dtype=torch.float64))

    def forward(self, x):
        return 1.5 / self.weight.shape[1] ** 0.5 * x @ self.weight.T + 0.1 * self.bias


class Wide(nn.Module):
    def __init__(self, activation, width):
        super().__init__()
        self.sigma, self.layers = activation, nn.ModuleList([Scaled(2, width), Scaled(width, width), Scaled(width, 1)])

    def forward(self, x):
        return self.layers[2](self.sigma(self.layers[1](self.sigma(self.layers[0](x)))))


def assert_mean_is(draws, golden):
    """Within four standard errors, plus the O(1/width) difference of a finite network."""
    mean, error = draws.mean(0), draws.std(0) / len(draws) ** 0.5
    for pair, value in golden.items():
        i, j = PAIRS[pair]
        bound = 4 * error[i, j] + 0.01 * abs(value)
        assert abs(mean[i, j] - value) <= bound, f"pair {pair}: {mean[i, j]:.5g} for {value:.5g} ± {error[i, j]:.2g}"


@pytest.mark.parametrize("name", GOLDEN)
def test_wide_networks_average_to_the_infinite_width_kernel(name):
    torch.manual_seed(1)
    activation = {"relu": torch.relu, "erf": torch.erf, "sin": torch.sin, "tanh": torch.tanh}[name]
    draws = torch.stack([reference.gram(Wide(activation, 128), POINTS) for _ in range(400)])
    assert_mean_is(draws, GOLDEN[name])


@pytest.mark.parametrize("name", GOLDEN_WAVE)
def test_the_same_for_the_wave_operator(name):
    torch.manual_seed(2)
    activation = {"erf": torch.erf, "sin": torch.sin}[name]
    draws = torch.stack([reference.gram(Wide(activation, 96), POINTS, wave) for _ in range(200)])
    assert_mean_is(draws, GOLDEN_WAVE[name])


def test_comparisons_of_a_jet_are_those_of_its_value():
    u = reference.Jet(lambda x: x[:, 0], torch.tensor([[1.0, 0.0], [2.0, 0.0]]), ("t", "x"))
    for found, expected in ((u > 1, [0, 1]), (u >= 2, [0, 1]), (u < 2, [1, 0]), (u <= 1, [1, 0]), (u == 1, [1, 0])):
        assert found.tolist() == expected
    assert (u != 1).tolist() == [0, 1] and (+u).tolist() == [1, 2] and (u % 2).tolist() == [1, 0]
