"""The default optimizer and its schedule: Adam with an exponentially decaying learning rate."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR


def adam(net: nn.Module, lr: float = 1e-3) -> torch.optim.Adam:
    """Make Adam over the parameters that require a gradient, in its fused form where torch has one.

    On a CUDA device its learning rate is a tensor there: change it in place.

    Args:
        net: the network.
        lr: learning rate.

    Raises:
        ValueError: if no parameter requires a gradient.

    Reference: Kingma, Ba, Adam: a method for stochastic optimization (2015).
    """
    parameters = [p for p in net.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError("adam: expected a network with parameters that require grad, got none")
    device = parameters[0].device
    if device.type == "cuda":  # step count and learning rate on the device, so that a CUDA graph can hold the step
        return torch.optim.Adam(parameters, lr=torch.tensor(lr, device=device), fused=True, capturable=True)
    return torch.optim.Adam(parameters, lr=lr, fused=device.type == "cpu")


def exponential_decay(
    optimizer: torch.optim.Optimizer, rate: float = 0.9, every: int = 1000, stepped: bool = False
) -> LambdaLR:
    """Decay the learning rate, lr · rate^(k/every), or with ⌊k/every⌋ if ``stepped``.

    Args:
        optimizer: its present learning rates are those of iteration 0.
        rate: factor per ``every`` iterations, in (0, 1].
        every: iterations.
        stepped: change the rate only at multiples of ``every``.

    Raises:
        ValueError: if ``rate`` or ``every`` is out of range.

    Example:
        >>> import torch
        >>> from ntkfast.training import exponential_decay
        >>> optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
        >>> schedule = exponential_decay(optimizer, rate=0.5, every=2)
        >>> for _ in range(2):
        ...     optimizer.step(); schedule.step()
        >>> schedule.get_last_lr()
        [0.5]
    """
    if not 0 < rate <= 1:
        raise ValueError(f"exponential_decay: expected a rate in (0, 1], got {rate}")
    if every < 1:
        raise ValueError(f"exponential_decay: expected every >= 1, got {every}")
    return LambdaLR(optimizer, lambda k: rate ** (k // every if stepped else k / every))
