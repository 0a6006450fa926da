"""NTK loss weights in a training loop of your own: no trainer, any torch optimizer, a plain backward().

    python examples/own_loop.py

The problem: u_xx = f on [0, 1] with u(0) = u(1) = 0 and f such that u = sin 4πx. Without weights the boundary is
ignored, since u_xx is so much larger than u.
"""

from __future__ import annotations

import math

import torch

import ntkfast as ntk

EDGES = torch.tensor([[0.0], [1.0]])


@ntk.residual("x")
def poisson(u, at):
    """Return the rows of u_xx - f."""
    return u.d(x=2) + (4 * math.pi) ** 2 * torch.sin(4 * math.pi * at.x)


def train(weighted: bool, iterations: int = 1500) -> float:
    """Train a small network and return its relative L2 error."""
    torch.manual_seed(0)
    net = ntk.MLP([1, 64, 64, 1], standardize=ntk.Box(x=(0, 1)))
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
    weights = ntk.NTKWeights(every=50)
    for _ in range(iterations):
        f = ntk.factors(net, {"u": (EDGES, ntk.value), "r": (torch.rand(64, 1), poisson)})  # one sweep
        lam = weights(f) if weighted else {"u": 1.0, "r": 1.0}  # from that sweep: nearly free
        loss = sum(lam[group] * f[group].rows.square().mean() for group in f.names)
        optimizer.zero_grad()
        loss.backward()  # the Jacobian's transpose times the rows, from the same sweep
        optimizer.step()
    x = torch.linspace(0, 1, 500)[:, None]
    exact = torch.sin(4 * math.pi * x)
    return ((net(x) - exact).norm() / exact.norm()).item()


if __name__ == "__main__":
    for weighted in (True, False):
        print(f"{'NTK weights' if weighted else 'no weights':12} relative L2 error {train(weighted):.2e}")
