"""The rivals that benchmarks compare with are right: each agrees with autograd, written out by hand, in float64."""

import importlib
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
LOSS_WEIGHTS = {"u": 3.0, "ut": 2.0, "r": 0.5}
GROUPS = {"u": 7, "ut": 5, "r": 9}

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*")  # raised inside torch.func


@pytest.fixture(autouse=True)
def _path(monkeypatch):
    """Benchmarks are scripts, not part of the package: their folder goes on the path for these tests alone."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield
    for name in [n for n in sys.modules if n.split(".")[0] in {"baselines", "setting"}]:
        del sys.modules[name]


def load(name):
    return importlib.import_module(name)


def small_network():
    return load("setting").network(6, dtype=torch.float64)


def make_points(n=9):
    return load("setting").points(n, torch.float64)


def jacobian_by_hand(net, points, kind):
    """Row by row and derivative by derivative: the definition."""
    rows = []
    for x in points:
        x = x.clone().requires_grad_()
        u = net(x)[0]
        if kind != "u":
            (du,) = torch.autograd.grad(u, x, create_graph=True)
            u = du[0]
        if kind == "r":
            (dt,) = torch.autograd.grad(du[0], x, create_graph=True)
            (dx,) = torch.autograd.grad(du[1], x, create_graph=True)
            u = dt[0] - 4.0 * dx[1]
        grads = torch.autograd.grad(u, list(net.parameters()), materialize_grads=True, allow_unused=True)
        rows.append(torch.cat([u.detach()[None], *[g.flatten() for g in grads]]))
    stacked = torch.stack(rows)
    return stacked[:, 0], stacked[:, 1:]


def close(a, b):
    return torch.linalg.vector_norm(a - b) <= 1e-10 * torch.linalg.vector_norm(b)


def unfused_of(net, groups, keep=True):
    module = load("baselines.unfused")
    specs = {"u": module.VALUE, "ut": module.VELOCITY, "r": module.WAVE}
    return module.Unfused(net, {g: (n, specs[g]) for g, n in groups.items()}, keep)


@pytest.mark.parametrize("mode", ["forward-over-reverse", "forward-over-forward"])
@pytest.mark.parametrize("kind", ["u", "ut", "r"])
def test_torch_func_agrees_with_autograd(mode, kind):
    module = load("baselines.torch_func")
    net, points = small_network(), make_points()
    residual = {"u": module.value, "ut": module.velocity, "r": module.wave}[kind]
    _, jacobian = jacobian_by_hand(net, points, kind)
    gram = jacobian @ jacobian.t()
    options = {"residual": residual, "mode": mode}
    assert close(module.gram(net, points, chunk=4, **options), gram)
    assert close(module.gram_einsum(net, points, **options), gram)
    assert close(module.diag(net, points, chunk=4, **options), gram.diagonal())
    assert close(module.trace(net, points, chunk=4, **options), gram.trace())


@pytest.mark.parametrize("shared", [False, True])
def test_one_backward_per_row_agrees_with_autograd(shared):
    module = load("baselines.per_row")
    net, points = small_network(), make_points()
    _, jacobian = jacobian_by_hand(net, points, "r")
    gram = jacobian @ jacobian.t()
    assert close(module.gram(net, points, shared), gram)
    assert close(module.trace(net, points, shared), gram.trace())


@pytest.mark.parametrize("kind", ["u", "ut", "r"])
def test_unfused_kernels_agree_with_autograd(kind):
    kernels = load("baselines.unfused_kernels")
    net, points = small_network(), make_points()
    rows, jacobian = jacobian_by_hand(net, points, kind)
    gram = jacobian @ jacobian.t()
    sweep = unfused_of(net, {kind: len(points)})
    assert close(sweep.sweep({kind: points}), rows)
    assert close(kernels.diag_of(sweep)[kind], gram.diagonal())
    assert close(kernels.diag(sweep, {kind: points})[kind], gram.diagonal())
    assert close(kernels.gram(sweep, {kind: points}), gram)
    assert close(kernels.gram_stacked(sweep, {kind: points}), gram)
    x = torch.linspace(-1.0, 2.0, len(points), dtype=torch.float64)
    assert close(torch.cat([g.flatten() for g in kernels.vjp(sweep, x)]), jacobian.t() @ x)
    v = [torch.linspace(-1.0, 1.0, p.numel(), dtype=torch.float64).view_as(p) for p in net.parameters()]
    assert close(kernels.jvp(sweep, v), jacobian @ torch.cat([p.flatten() for p in v]))


def test_unfused_trace_in_pieces_agrees_with_autograd():
    kernels = load("baselines.unfused_kernels")
    net, points = small_network(), make_points()
    _, jacobian = jacobian_by_hand(net, points, "r")
    for keep in (False, True):
        assert close(kernels.trace(unfused_of(net, {"r": 3}, keep), {"r": points}), jacobian.square().sum())
    with pytest.raises(ValueError, match="multiple of 4"):
        kernels.trace(unfused_of(net, {"r": 4}), {"r": points})


@pytest.mark.parametrize("way", ["separate", "packed", "forward-mode", "unfused"])
def test_every_training_step_agrees_with_autograd(way):
    net = small_network()
    points = {g: load("setting").points(n, torch.float64, seed=n) for g, n in GROUPS.items()}
    loss, gradient = torch.zeros((), dtype=torch.float64), 0.0
    for group, x in points.items():
        rows, jacobian = jacobian_by_hand(net, x, group)
        loss = loss + LOSS_WEIGHTS[group] * rows.square().mean()
        gradient = gradient + 2.0 * LOSS_WEIGHTS[group] / len(rows) * (jacobian.t() @ rows)
    if way == "unfused":
        got_loss, got = load("baselines.unfused_kernels").step(unfused_of(net, GROUPS), points, LOSS_WEIGHTS)
    else:
        got_loss, got = load("baselines.autograd_step").ALL[way](net, points, LOSS_WEIGHTS)
    assert close(got_loss, loss)
    assert close(torch.cat([g.flatten() for g in got]), gradient)


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("kind", ["VALUE", "VELOCITY", "WAVE"])
def test_unfused_pull_back_is_the_transpose_of_the_push(kind, in_place):
    module = load("baselines.unfused")
    spec = getattr(module, kind)
    z, g = torch.randn(2, spec.channels, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    h, (s1, t, u) = torch.empty_like(z), torch.empty_like(z[0])[None].repeat(3, 1, 1)
    q = torch.empty_like(s1) if spec.omega else None
    module.push(z, h, s1, q, spec.omega)
    leaf = z.clone().requires_grad_()
    s = torch.tanh(leaf[0])
    out = [s, *((1 - s**2) * c for c in leaf[1:])]
    if spec.omega:
        out[-1] = out[-1] - 2 * s * (1 - s**2) * sum(w * leaf[k] ** 2 for k, w in enumerate(spec.omega, start=1))
    assert close(h, torch.stack(out))
    (expected,) = torch.autograd.grad(torch.stack(out), leaf, g)
    target = g if in_place else torch.empty_like(g)
    module.pull(g, h, s1, q, spec.omega, t, u, out=target)
    assert close(target, expected)


@pytest.mark.parametrize("summed", [False, True])
def test_kernels_of_all_outputs(summed):
    torch.manual_seed(0)
    layers = [torch.nn.Linear(5, 7), torch.nn.ReLU(), torch.nn.Linear(7, 6), torch.nn.ReLU(), torch.nn.Linear(6, 3)]
    net, x = torch.nn.Sequential(*layers).double(), torch.randn(4, 5, dtype=torch.float64)
    rows = [
        torch.cat([g.flatten() for g in torch.autograd.grad(u, list(net.parameters()), retain_graph=True)])
        for u in net(x).flatten()
    ]
    K = torch.stack(rows) @ torch.stack(rows).T
    expected = K.view(4, 3, 4, 3).diagonal(dim1=1, dim2=3).sum(-1) if summed else K
    outputs = load("baselines.outputs")
    for kernel in (outputs.by_jacobian, outputs.unfused):
        assert close(kernel(net, x, summed), expected)
