"""The paper's network on the wave equation: exact traces, and the weights that they give at initialisation."""

import statistics

import pytest
import torch
from cases import TOLERANCE, double, u_t, wave

import ntkfast as ntk
from ntkfast import reference

WIDTHS = [2, 500, 500, 500, 1]


def paper_network(seed: int, dtype: torch.dtype) -> torch.nn.Module:
    torch.manual_seed(seed)
    domain = ntk.Box(t=(0, 1), x=(0, 1))
    return ntk.MLP(WIDTHS, activation="tanh", init="glorot_normal", standardize=domain, dtype=dtype)


def paper_groups(third: int, seed: int, dtype: torch.dtype) -> dict:
    """Equal groups: u on the initial line and both boundaries in thirds, u_t on the initial line, r inside."""
    generator = torch.Generator().manual_seed(seed)

    def draw(n: int, **fixed: float) -> torch.Tensor:
        points = torch.rand(n, 2, dtype=torch.float64, generator=generator)
        for name, at in fixed.items():
            points[:, "tx".index(name)] = at
        return points.to(dtype)

    u = torch.cat([draw(third, t=0.0), draw(third, x=0.0), draw(third, x=1.0)])
    return {"u": (u, ntk.value), "ut": (draw(3 * third, t=0.0), u_t), "r": (draw(3 * third), wave)}


def test_the_network_has_the_size_of_the_paper():
    net = paper_network(0, torch.float32)
    assert sum(p.numel() for p in net.parameters()) == 503_001


def test_traces_equal_the_reference_in_float64(dtype: torch.dtype):
    net, groups = paper_network(0, dtype), paper_groups(10, 0, dtype)
    traces = ntk.trace(net, groups)
    for name, (points, residual) in groups.items():
        expected = reference.trace(double(net), points.double(), residual)
        assert abs(traces[name].double() - expected) <= TOLERANCE[dtype] * expected


def test_the_gram_equals_the_reference():
    net, groups = paper_network(0, torch.float64), paper_groups(2, 0, torch.float64)
    expected = reference.gram(net, groups)
    for method in ("structured", "explicit"):
        K = ntk.gram(net, groups, method=method)
        assert torch.linalg.matrix_norm(K - expected) <= 1e-10 * torch.linalg.matrix_norm(expected)


def test_the_last_layer_is_in_every_trace():
    net, groups = paper_network(0, torch.float64), paper_groups(10, 0, torch.float64)
    last = list(dict(net.named_parameters()))[-2]
    with_it, alone = ntk.trace(net, groups), ntk.trace(net, groups, wrt=last)
    net.get_parameter(last).requires_grad_(False)
    without = ntk.trace(net, groups)
    for name in ("ut", "r"):
        assert float(alone[name]) > 0
        torch.testing.assert_close(with_it[name], without[name] + alone[name], rtol=1e-12, atol=0)


def initial_weights(seed: int) -> dict[str, float]:
    net, groups = paper_network(seed, torch.float32), paper_groups(100, seed, torch.float32)
    weights = ntk.NTKWeights(every=100)(net, groups)
    return {name: float(weight) for name, weight in weights.items()}


def test_weights_at_initialisation_are_those_of_the_paper():
    draws = [initial_weights(seed) for seed in range(20)]
    for weights in draws:
        assert sum(1 / weight for weight in weights.values()) == pytest.approx(1.0, abs=1e-5)
    median = {name: statistics.median(weights[name] for weights in draws) for name in draws[0]}
    assert median["u"] > median["ut"] > median["r"]
    assert 5.5 <= median["u"] <= 7.5
    assert 2.3 <= median["ut"] <= 3.3
    assert 1.8 <= median["r"] <= 2.6
