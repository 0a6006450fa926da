"""Networks whose float32 products run on matrix tiles, where there are any: every verb against the reference."""

import pytest
import torch
from cases import WIDE, Case, close, double, expected_jacobian, two_components, u_t, wave
from torch import nn

import ntkfast as ntk
from ntkfast import reference


def flat(parts: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([part.flatten() for part in parts.values()])


@pytest.mark.parametrize("residual", [wave, two_components, u_t, ntk.value], ids=lambda residual: residual.name)
def test_every_verb_equals_the_reference(residual, dtype: torch.dtype):
    case = Case("", WIDE.make, residual, n=131)
    net, x = case.net(dtype), case.points(dtype)
    J = expected_jacobian(case, dtype)
    K, v = J @ J.T, torch.linspace(-1, 1, len(J), dtype=dtype)
    tangent = {name: torch.linspace(-1, 1, p.numel(), dtype=dtype).view_as(p) for name, p in net.named_parameters()}
    assert close(ntk.trace(net, x, residual), K.trace(), dtype)
    assert close(ntk.diag(net, x, residual), K.diagonal(), dtype)
    for method in ("structured", "explicit"):
        assert close(ntk.gram(net, x, residual, method=method), K, dtype)
    f = ntk.factors(net, x, residual)
    assert close(f.gram(), K, dtype)
    assert close(flat(f.vjp(v)), v.double() @ J, dtype)
    assert close(f.jvp(tangent), J @ flat(tangent).double(), dtype)


@pytest.mark.parametrize("residual", [wave, two_components, u_t, ntk.value], ids=lambda residual: residual.name)
@pytest.mark.parametrize("n", [83, 131, 340])
def test_gradients_of_losses_equal_the_reference(residual, n: int, dtype: torch.dtype):
    case = Case("", WIDE.make, residual, n=n)
    net, x = case.net(dtype), case.points(dtype)
    J = expected_jacobian(case, dtype)
    rows = reference.rows(double(net), x.double(), residual).detach().flatten()
    found = ntk.loss_gradient(net, {"": (x, residual)}, traces=True)
    assert close(found.rows, rows, dtype)
    assert close(found.traces[""], J.square().sum(), dtype)
    assert close(flat(found.gradient), 2 / len(rows) * rows @ J, dtype)


def test_a_layer_too_deep_for_sums_of_32_bits(dtype: torch.dtype):
    net = nn.Sequential(nn.Linear(24_000, 2), nn.Tanh(), nn.Linear(2, 1)).to(dtype)
    x = torch.full((20, 24_000), 0.5, dtype=dtype)
    K = ntk.gram(net, x, ntk.value, method="structured")
    assert close(K, reference.gram(double(net), x.double(), ntk.value), dtype)


@pytest.mark.parametrize("wrt", ["0.*", "*.weight", "*.bias", "2.*"])
@pytest.mark.parametrize("method", ["structured", "explicit"])
def test_a_kernel_that_overflows_is_infinite(method: str, wrt: str):
    net = nn.Sequential(nn.Linear(2, 256), nn.Tanh(), nn.Linear(256, 1))
    large = ntk.residual("t", "x")(lambda u: 1e25 * u.value)
    x = torch.rand(3, 2, generator=torch.Generator().manual_seed(0))
    assert ntk.gram(net, x, large, method=method, wrt=wrt).diagonal().isposinf().all()


@pytest.mark.parametrize("wrt", ["0.weight", "0.bias"])
@pytest.mark.parametrize("method", ["structured", "explicit"])
def test_what_has_no_part_in_a_kernel_may_be_infinite_times_zero(method: str, wrt: str):
    """Cotangents that overflow, of a layer of which only the weight or the bias is asked for."""
    net = nn.Sequential(nn.Linear(2, 256), nn.Tanh(), nn.Linear(256, 1))
    nn.init.constant_(net[2].weight, 1e30)
    large = ntk.residual("t", "x")(lambda u: 1e30 * u.value)
    x = torch.rand(3, 2, generator=torch.Generator().manual_seed(0))
    assert ntk.gram(net, x, large, method=method, wrt=wrt).isposinf().all()


@pytest.mark.parametrize("point", [0, 40, 82])
def test_rows_that_are_not_finite_stay_alone(point: int, dtype: torch.dtype):
    """A net that overflows at one point: everything about the other points is as without it."""
    net, x = WIDE.net(dtype), WIDE.points(dtype)
    net = nn.Sequential(*net[:-1], nn.Linear(130, 1, dtype=dtype))
    K, diag = ntk.gram(net, x, wave), ntk.diag(net, x, wave)
    far = torch.finfo(dtype).max ** 0.5 * 1e3
    worse = ntk.Points(x, weight=torch.ones(len(x), dtype=dtype).index_fill(0, torch.tensor([point]), far))
    weighted = ntk.residual("t", "x")(lambda u, at: at.weight * (u.d(t=2) - 4.0 * u.d(x=2)))
    others = torch.arange(len(x)) != point
    L, diagonal = ntk.gram(net, worse, weighted), ntk.diag(net, worse, weighted)
    assert not L[point, point].isfinite()
    assert not diagonal[point].isfinite()
    assert torch.equal(L[others][:, others], K[others][:, others])
    assert torch.equal(diagonal[others], diag[others])


@pytest.mark.parametrize("spread", [0.0, 0.7, 1.5])
def test_a_gram_of_weights_far_apart_in_size_is_as_accurate_as_its_entries_allow(spread: float):
    """The contraction alone, float32, against that of the same factors in float64."""
    torch.manual_seed(0)
    net = WIDE.net(torch.float32)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(torch.exp(spread * torch.randn_like(parameter)))
    f = ntk.factors(net, WIDE.points(torch.float32), wave)
    expected = torch.zeros(f.shape[0], f.shape[0], dtype=torch.float64)
    for block in f.blocks.values():
        A, D = block.A.double(), block.D.double()
        pairs = torch.einsum("cim,ejm->ceij", D, D) * torch.einsum("cim,ejm->ceij", A, A)
        expected += pairs.sum((0, 1)) + D[0] @ D[0].T
    size = expected.diagonal().sqrt()
    assert ((f.gram() - expected).abs() / (size[:, None] * size)).max() <= 40 * torch.finfo(torch.float32).eps
