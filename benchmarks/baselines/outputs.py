"""Kernels of all outputs of a relu classifier, K or its sum over outputs: by ``torch.func``, and in plain operations.

``torch.func``: the Jacobian of all outputs, then its products, parameter by parameter. In plain operations the
structured formula without fusion: with inputs A (n, n_in) and cotangents D (n, o, n_out) of a layer

    K[(i, a), (j, b)] += (⟨A_i, A_j⟩ + 1) ⟨D_ia, D_jb⟩,      Σ_a K[(i, a), (j, a)] += (⟨A_i, A_j⟩ + 1) ⟨D_i, D_j⟩.
"""

from __future__ import annotations

import torch
from setting import linears
from torch import Tensor, nn
from torch.func import jacrev, vmap


def by_jacobian(net: nn.Sequential, x: Tensor, summed: bool) -> Tensor:
    """K (n·o, n·o), or summed (n, n), from the whole Jacobian."""
    parameters = tuple(p.detach() for p in net.parameters())

    def outputs(parameters: tuple[Tensor, ...], x: Tensor) -> Tensor:
        for i in range(0, len(parameters) - 2, 2):
            x = torch.relu(parameters[i] @ x + parameters[i + 1])
        return parameters[-2] @ x + parameters[-1]

    jacobians = vmap(jacrev(outputs), (None, 0))(parameters, x)
    rows = [j.flatten(1) if summed else j.flatten(0, 1).flatten(1) for j in jacobians]
    return torch.stack([J @ J.T for J in rows]).sum(0)


def unfused(net: nn.Sequential, x: Tensor, summed: bool) -> Tensor:
    """The same from factors, layer by layer from the last one."""
    layers = linears(net)
    with torch.no_grad():
        inputs = [x]
        for layer in layers[:-1]:
            inputs.append(torch.relu(layer(inputs[-1])))
        n, o = len(x), layers[-1].out_features
        D = torch.eye(o, dtype=x.dtype).expand(n, o, o)
        K = x.new_zeros((n, n) if summed else (n, o, n, o))
        for layer, A in zip(reversed(layers), reversed(inputs), strict=True):
            products = A @ A.T + 1
            if summed:
                rows = D.reshape(n, -1)
                K.addcmul_(products, rows @ rows.T)
            else:
                rows = D.reshape(n * o, -1)
                K.addcmul_(products[:, None, :, None], (rows @ rows.T).view(n, o, n, o))
            D = (D @ layer.weight) * (A > 0)[:, None]
        return K if summed else K.view(n * o, n * o)
