"""Networks that the native core understands: MLP, visible standardisation, activations torch has no module for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# The numbers are those of csrc/core/activation.h.
ACTIVATIONS: dict[str, int] = {
    "identity": 0,
    "relu": 1,
    "tanh": 2,
    "sigmoid": 3,
    "sin": 4,
    "erf": 5,
    "softplus": 6,
    "silu": 7,
    "gelu": 8,
    "gelu_tanh": 9,
}
INITS = ("glorot_normal", "glorot_uniform", "default", "normal")


class Sin(nn.Module):
    """The activation sin z, element by element.

    Example:
        >>> import torch
        >>> import ntkfast as ntk
        >>> ntk.Sin()(torch.zeros(2))
        tensor([0., 0.])
    """

    def forward(self, z: Tensor) -> Tensor:
        """Return sin z, of the shape of ``z``."""
        return torch.sin(z)


class Erf(nn.Module):
    """The activation erf z = 2/√π ∫₀ᶻ exp(−t²) dt, element by element.

    Example:
        >>> import torch
        >>> import ntkfast as ntk
        >>> ntk.Erf()(torch.zeros(2))
        tensor([0., 0.])
    """

    def forward(self, z: Tensor) -> Tensor:
        """Return erf z, of the shape of ``z``."""
        return torch.erf(z)


class Standardize(nn.Module):
    """The first layer of a network that standardises its inputs: x ↦ (x − mean)/std, column by column.

    Both are buffers: they move with the network, are saved with it, and are no parameters. Derivatives of the network
    stay derivatives with respect to the raw x.

    Args:
        mean: d numbers or a tensor (d,), in the units of the inputs.
        std: d positive numbers or a tensor (d,), in the units of the inputs.
        dtype: floating type of the buffers; torch's default type if None.
        device: where the buffers live.

    Raises:
        ValueError: shapes differ or are not (d,), a number is not finite, or an entry of ``std`` is not positive.

    Example:
        >>> import torch
        >>> import ntkfast as ntk
        >>> ntk.Standardize((0.5, 0.5), (0.25, 0.5))(torch.tensor([[1.0, 1.0]]))
        tensor([[2., 1.]])
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        mean: Tensor | Sequence[float],
        std: Tensor | Sequence[float],
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        dtype = torch.get_default_dtype() if dtype is None else dtype
        device = torch.get_default_device() if device is None else device  # where torch's own layers go
        for name, given in (("mean", mean), ("std", std)):
            values = torch.as_tensor(given, dtype=torch.float64, device="cpu").detach()
            if values.ndim != 1 or values.numel() == 0:
                raise ValueError(
                    f"Standardize: expected {name} of shape (d,), one number per input column, got {given!r}"
                )
            if not bool(torch.isfinite(values).all()):
                raise ValueError(f"Standardize: expected a finite {name}, got {given!r}")
            values = values.to(dtype)
            if name == "std" and not bool((values > 0).all()):
                raise ValueError(f"Standardize: expected a positive std for each column, got {std!r}")
            self.register_buffer(name, values.to(device=device, copy=True))
        if self.mean.shape != self.std.shape:
            raise ValueError(
                f"Standardize: expected mean and std of one length, got {self.mean.numel()} and {self.std.numel()}"
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return (x − mean)/std for ``x`` of shape (…, d)."""
        return (x - self.mean) / self.std

    def extra_repr(self) -> str:
        """Return the numbers: they decide the NTK at initialisation, so a printed network shows them."""
        if self.mean.is_meta:
            return f"features={self.mean.numel()}"
        mean, std = (", ".join(f"{v:.6g}" for v in buffer.tolist()) for buffer in (self.mean, self.std))
        return f"mean=({mean}), std=({std})"


class ScaledLinear(nn.Module):
    """A linear layer in the NTK parameterisation: y = (w_std/√n_in) x Wᵀ + b_std b, with W and b drawn from N(0, 1).

    Args:
        in_features: n_in.
        out_features: n_out.
        w_std: standard deviation of √n_in times an effective weight.
        b_std: standard deviation of an effective bias; 0 leaves the bias out.
        dtype: floating type of the parameters; torch's default type if None.
        device: where the parameters live.

    Reference:
        Jacot, Gabriel, Hongler: Neural tangent kernel (NeurIPS 2018), section 2.

    Example:
        >>> from ntkfast.networks import ScaledLinear
        >>> layer = ScaledLinear(4, 3, w_std=2.0, b_std=0.1)
        >>> layer.weight_scale, layer.bias_scale
        (1.0, 0.1)
    """

    bias: nn.Parameter | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        w_std: float = 1.0,
        b_std: float = 1.0,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.weight_scale, self.bias_scale = w_std / math.sqrt(in_features), float(b_std)
        self.weight = nn.Parameter(torch.randn(out_features, in_features, dtype=dtype, device=device))
        bias = nn.Parameter(torch.randn(out_features, dtype=dtype, device=device)) if b_std != 0 else None
        self.register_parameter("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output (…, n_out) for ``x`` of shape (…, n_in)."""
        bias = None if self.bias is None else self.bias_scale * self.bias
        return F.linear(x, self.weight_scale * self.weight, bias)

    def extra_repr(self) -> str:
        """Return sizes and scales."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"weight_scale={self.weight_scale:.6g}, bias_scale={self.bias_scale:.6g}"
        )


_MODULES: dict[str, Callable[[], nn.Module]] = {
    "identity": nn.Identity,
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "sin": Sin,
    "erf": Erf,
    "softplus": nn.Softplus,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "gelu_tanh": lambda: nn.GELU(approximate="tanh"),
}


class MLP(nn.Module):
    """A multilayer perceptron, Linear and activation in turn, ending in a Linear.

    Its layers are named like those of an ``nn.Sequential`` ("0" the first Linear, "1" the activation after it, "2" …);
    the standardisation is named "standardize" and takes no number. Nothing standardises behind the user's back: the
    loss weights at initialisation depend on it, and ``print(net)`` shows it.

    Args:
        sizes: widths (d, w₁, …, o), at least two.
        activation: a name of ``ntkfast.networks.ACTIVATIONS``, or a function without arguments that makes a module.
        init: "glorot_normal" (None means this), "glorot_uniform": zero biases; "normal": W ~ N(0, 1/n_in), b ~ N(0, 1);
            "default": torch's own. The "ntk" parameterisation draws W and b from N(0, 1): None or "normal".
        standardize: None; a pair (mean, std) of d numbers each; or a Box, that is any object with ``mean`` and ``std``
            (d numbers each, or methods that return them): those of uniform samples, (a + b)/2 and (b − a)/√12.
        dtype: torch.float32 or torch.float64; torch's default type if None.
        device: where the parameters live.
        parameterization: "standard", or "ntk": y = (w_std/√n_in) W x + b_std b.
        w_std: for "ntk" only, 1 if None.
        b_std: for "ntk" only, 1 if None.

    Raises:
        ValueError: a size, name or option that is not one of the above, or a device that this machine does not have.
        TypeError: sizes that are no list, or an activation that makes no module.

    Example:
        >>> import torch
        >>> import ntkfast as ntk
        >>> net = ntk.MLP([2, 50, 1], standardize=((0.5, 0.5), (0.25, 0.25)))
        >>> [name for name, _ in net.named_parameters()]
        ['0.weight', '0.bias', '2.weight', '2.bias']
        >>> net(torch.zeros(7, 2)).shape
        torch.Size([7, 1])
    """

    def __init__(
        self,
        sizes: Sequence[int],
        activation: str | Callable[[], nn.Module] = "tanh",
        init: str | None = None,
        standardize: Any = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        *,
        parameterization: str = "standard",
        w_std: float | None = None,
        b_std: float | None = None,
    ) -> None:
        super().__init__()
        sizes = _checked_sizes(sizes)
        _check_device(device)
        make_activation = _activation(activation)
        init = _checked_init(init, parameterization, w_std, b_std)
        if dtype not in (None, torch.float32, torch.float64):
            raise ValueError(f"MLP: expected dtype torch.float32 or torch.float64, got {dtype}")
        self.init, self.parameterization = init, parameterization
        if standardize is not None:
            mean, std = _mean_std(standardize, sizes[0])
            self.add_module("standardize", Standardize(mean, std, dtype=dtype, device=device))
        for i, (n_in, n_out) in enumerate(zip(sizes[:-1], sizes[1:], strict=True)):
            if i > 0:
                self.add_module(str(2 * i - 1), _made(make_activation))
            if parameterization == "ntk":
                std_w, std_b = (1.0 if s is None else s for s in (w_std, b_std))
                layer: nn.Module = ScaledLinear(n_in, n_out, std_w, std_b, dtype=dtype, device=device)
            else:
                layer = _linear(n_in, n_out, init, dtype, device)
            self.add_module(str(2 * i), layer)

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs (…, o) at raw inputs ``x`` of shape (…, d)."""
        for module in self._modules.values():
            assert module is not None
            x = module(x)
        return x

    def extra_repr(self) -> str:
        """Return how the parameters were drawn."""
        return f"init={self.init!r}, parameterization={self.parameterization!r}"


def _linear(n_in: int, n_out: int, init: str, dtype: torch.dtype | None, device: Any) -> nn.Linear:
    layer = nn.Linear(n_in, n_out, dtype=dtype, device=device)
    if init == "default":
        return layer
    with torch.no_grad():
        if init == "normal":
            layer.weight.normal_(0.0, 1.0 / math.sqrt(n_in))
            layer.bias.normal_()
            return layer
        (nn.init.xavier_normal_ if init == "glorot_normal" else nn.init.xavier_uniform_)(layer.weight)
        layer.bias.zero_()
    return layer


def _checked_sizes(sizes: Sequence[int]) -> list[int]:
    if isinstance(sizes, str) or not isinstance(sizes, Iterable):
        raise TypeError(f"MLP: expected sizes as a list such as [2, 50, 1], got {sizes!r}")
    sizes = list(sizes)
    good = all(isinstance(s, int) and not isinstance(s, bool) and s >= 1 for s in sizes)
    if len(sizes) < 2 or not good:
        raise ValueError(f"MLP: expected sizes of at least two positive whole numbers, inputs first, got {sizes!r}")
    return sizes


def _activation(activation: str | Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    if callable(activation) and not isinstance(activation, nn.Module):
        return activation
    if isinstance(activation, str) and activation in _MODULES:
        return _MODULES[activation]
    raise ValueError(
        f"MLP: expected activation as one of {', '.join(_MODULES)} or a function making a module, got {activation!r}"
    )


def _made(make_activation: Callable[[], nn.Module]) -> nn.Module:
    name = getattr(make_activation, "__name__", repr(make_activation))
    try:
        module = make_activation()
    except TypeError as error:
        raise TypeError(
            f"MLP: expected activation as a name such as 'tanh' or a function without arguments, got {name}"
        ) from error
    if not isinstance(module, nn.Module):
        raise TypeError(
            f"MLP: expected an activation that makes a module, got {name}, which gives {type(module).__name__}"
        )
    return module


def _check_device(device: Any) -> None:
    try:
        kind = "cpu" if device is None else torch.device(device).type
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"MLP: expected a device such as 'cpu' or 'cuda', got {device!r}") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"MLP: expected a device of this machine, got {str(device)!r}, but torch finds no GPU")


def _checked_init(init: str | None, parameterization: str, w_std: float | None, b_std: float | None) -> str:
    if parameterization == "ntk":
        if init not in (None, "normal"):
            raise ValueError(
                f"MLP: parameterization='ntk' draws from N(0, 1), expected init None or 'normal', got {init!r}"
            )
        if not all(s is None or (math.isfinite(s) and s >= 0) for s in (w_std, b_std)):
            raise ValueError(f"MLP: expected finite w_std and b_std ≥ 0, got {w_std!r} and {b_std!r}")
        return "normal"
    if parameterization != "standard":
        raise ValueError(f"MLP: expected parameterization 'standard' or 'ntk', got {parameterization!r}")
    if w_std is not None or b_std is not None:
        raise ValueError("MLP: expected w_std and b_std with parameterization='ntk' alone, got them with 'standard'")
    if init is not None and init not in INITS:
        raise ValueError(f"MLP: expected init as one of {', '.join(INITS)}, got {init!r}")
    return init or "glorot_normal"


def _mean_std(standardize: Any, d: int) -> tuple[Any, Any]:
    if isinstance(standardize, (tuple, list)):
        if len(standardize) != 2:
            raise ValueError(f"MLP: expected standardize as a pair (mean, std), got {len(standardize)} entries")
        mean, std = standardize
    elif not isinstance(standardize, Tensor) and hasattr(standardize, "mean") and hasattr(standardize, "std"):
        mean, std = (v() if callable(v) else v for v in (standardize.mean, standardize.std))
    else:
        raise ValueError(
            f"MLP: expected standardize as None, a Box or a pair (mean, std), got {type(standardize).__name__}"
        )
    for name, values in (("mean", mean), ("std", std)):
        if torch.as_tensor(values).numel() != d:
            raise ValueError(f"MLP: expected a {name} of {d} numbers, one per input column, got {values!r}")
    return mean, std
