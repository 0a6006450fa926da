"""Numbers beyond the range of float32: what has no part in a kernel, being frozen, may be infinite without a trace."""

import pytest
import torch
from cases import double, mlp, randomized, uniform
from torch import nn

import ntkfast as ntk
from ntkfast import reference


@pytest.mark.parametrize("activation", [nn.ReLU, ntk.Erf, nn.GELU, nn.Softplus])
def test_infinite_products_stay_where_they_are(activation):
    """Inner products of inputs may overflow where only biases are asked for; far out σ is flat, not NaN."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 8), activation(), nn.Linear(8, 1))
    x = torch.rand(5, 2) * 1e25
    exact = reference.trace(net, x, wrt="*.bias")
    assert exact.isfinite()
    for found in (ntk.trace(net, x, wrt="*.bias"), ntk.gram(net, x, wrt="*.bias", method="structured").trace()):
        assert torch.isclose(found, exact, rtol=1e-5)


@pytest.mark.parametrize(("wrt", "scale"), [("*.bias", 1e25), ("*.weight", 1e-25)])
def test_infinite_norms_of_gradients_stay_where_they_are(wrt: str, scale: float):
    """Squares of inputs may overflow where only biases are asked for, of cotangents where only weights are."""
    net, x = randomized(nn.Sequential(nn.Linear(1, 8), nn.Linear(8, 1))).float(), uniform(5, 1).float() * scale
    slope = ntk.residual("x")(lambda u: u + min(scale, 1.0) * u.d(x=1))
    with torch.no_grad():
        net[0].bias.zero_()
        net[1].weight.div_(min(scale, 1.0))
    exact = reference.trace(double(net), x.double(), slope, wrt=wrt)
    assert 0.1 < exact < 1e3
    for trace in (ntk.trace(net, x, slope, wrt=wrt), ntk.factors(net, x, slope, wrt=wrt).trace()):
        assert torch.isclose(trace.double(), exact, rtol=1e-5)


@ntk.residual("t", "x")
def steep(u):
    return 1e25 * u.d(x=2)


def test_infinite_products_of_cotangents_stay_where_they_are():
    """They may overflow in layers that are frozen, and in channels that have no part in a bias."""
    net, x = randomized(mlp(nn.Tanh)).float(), uniform(5).float()
    exact = reference.gram(net, x, steep, wrt="5.bias")
    assert exact.count_nonzero() == 0
    assert torch.equal(ntk.trace(net, x, steep, wrt="5.bias"), exact.trace())
    for method in ("structured", "explicit"):
        assert torch.equal(ntk.gram(net, x, steep, wrt="5.bias", method=method), exact)
    with torch.no_grad():
        net[3].weight.mul_(1e-25)
        net[5].weight.mul_(1e25)
    for parameter in list(net.parameters())[2:]:
        parameter.requires_grad_(False)
    exact = reference.trace(net, x)
    assert exact.isfinite()
    found = ntk.loss_gradient(net, {"": (x, ntk.value)}, traces=True)
    for trace in (ntk.trace(net, x), ntk.factors(net, x).trace(), found.traces[""]):
        assert torch.isclose(trace, exact, rtol=1e-5)
