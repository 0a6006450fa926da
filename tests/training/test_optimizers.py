"""The default optimizer and its learning-rate schedules."""

import pytest
import torch
from torch import nn

from ntkfast.training import adam, exponential_decay


def rates(steps: int, **options) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = exponential_decay(optimizer, **options)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_the_continuous_decay_is_a_power_of_every_iteration():
    assert rates(5, rate=0.9, every=1000) == pytest.approx([2 * 0.9 ** (k / 1000) for k in range(5)], rel=1e-15)


def test_the_stepped_decay_is_constant_between_multiples():
    assert rates(5, rate=0.5, every=2, stepped=True) == [2, 2, 1, 1, 0.5]


def test_adam_leaves_out_frozen_parameters():
    net = nn.Linear(2, 1)
    net.bias.requires_grad_(False)
    assert adam(net, 0.5).param_groups[0]["params"] == [net.weight]


@pytest.mark.parametrize(("options", "sentence"), [({"rate": 0.0}, "rate in"), ({"every": 0}, "every >= 1, got 0")])
def test_schedules_that_make_no_sense_are_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        rates(1, **options)


def test_a_network_without_parameters_is_refused():
    with pytest.raises(ValueError, match="require grad, got none"):
        adam(nn.Tanh())
