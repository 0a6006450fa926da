"""Patterns choose trainable parameters by name, layer by layer."""

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from ntkfast import reference
from ntkfast.chain import chain_of
from ntkfast.factors import factors
from ntkfast.selection import select


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1))


@pytest.mark.parametrize(
    ("wrt", "chosen"),
    [
        (None, ((True, True), (True, True))),
        ("*.weight", ((True, False), (True, False))),
        ("2.*", ((False, False), (True, True))),
        (["0.bias", "2.weight"], ((False, True), (True, False))),
        ("*", ((True, True), (True, True))),
    ],
)
def test_patterns_choose_by_name(wrt, chosen):
    assert select(chain_of(network()), wrt) == chosen


def test_frozen_parameters_are_left_out_whatever_the_pattern():
    net = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1, bias=False))
    net[0].requires_grad_(False)
    assert select(chain_of(net)) == select(chain_of(net), "*") == ((False, False), (True, False))
    with pytest.raises(ValueError, match=r"matches a trainable parameter \(2.weight\), got '0.\*'"):
        select(chain_of(net), "0.*")
    net.requires_grad_(False)
    assert select(chain_of(net)) == ((False, False), (False, False))
    with pytest.raises(ValueError, match=r"\(none\)"):
        select(chain_of(net), "*")


def test_an_inserted_identity_is_never_chosen():
    assert select(chain_of(nn.Sequential(nn.Tanh(), nn.Linear(2, 1)))) == ((False, False), (True, True))


@pytest.mark.parametrize("wrt", ["3.*", ["*", "kappa"], []])
def test_a_pattern_without_a_match_is_a_value_error(wrt):
    with pytest.raises(ValueError, match="wrt: expected a pattern that matches"):
        select(chain_of(network()), wrt)


@pytest.mark.parametrize("wrt", [[0], 0])
def test_a_pattern_that_is_no_string_is_a_type_error(wrt):
    with pytest.raises(TypeError, match="wrt: expected patterns on parameter names, .* got 0"):
        select(chain_of(network()), wrt)


def test_columns_of_the_jacobian_are_in_the_order_of_the_parameters():
    """Also where a bias was registered before its weight, as torch's pruning and parametrizations leave it."""
    net = network().double()
    for module in (net[0], net[2]):
        prune.remove(prune.identity(module, "weight"), "weight")
    assert [name for name, _ in net.named_parameters()] == ["0.bias", "0.weight", "2.bias", "2.weight"]
    x = torch.rand(5, 2, dtype=torch.float64)
    f = factors(net, x)
    assert torch.allclose(f.jacobian(), reference.jacobian(net, x), rtol=1e-12)
    assert (
        list(f.parameters()) == list(f.vjp(torch.ones_like(f.rows.detach()))) == [n for n, _ in net.named_parameters()]
    )
    net[2].bias.requires_grad_(False)
    assert torch.allclose(factors(net, x).jacobian(), reference.jacobian(net, x), rtol=1e-12)
