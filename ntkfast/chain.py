"""From a module to the chain of Linear layers and activations that the native core runs, or a sentence why not.

Acceptance is strict: a network is native only if the chain says exactly what its ``forward`` computes. Nothing is
cached, so a hook, a frozen parameter or a replaced layer counts from the next call on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor, nn
from torch.nn.modules import module as _torch_module

from .kept import Kept
from .networks import ACTIVATIONS, MLP, Erf, ScaledLinear, Sin, Standardize

_CODES: dict[type[nn.Module], int] = {
    nn.ReLU: ACTIVATIONS["relu"],
    nn.Tanh: ACTIVATIONS["tanh"],
    nn.Sigmoid: ACTIVATIONS["sigmoid"],
    Sin: ACTIVATIONS["sin"],
    Erf: ACTIVATIONS["erf"],
    nn.Softplus: ACTIVATIONS["softplus"],
    nn.SiLU: ACTIVATIONS["silu"],
    nn.GELU: ACTIVATIONS["gelu"],
}
_CONTAINERS = "nn.Sequential or ntk.MLP as the container of the layers"
_KNOWN = "nn.Linear, nn.Tanh, nn.Sigmoid, nn.Softplus, nn.SiLU, nn.GELU, nn.ReLU, nn.Identity, ntk.Sin or ntk.Erf"
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_hooks_of = itemgetter(*_HOOKS)
_Span = tuple[int, int, str, nn.Module, Tensor]  # the addresses that a parameter lies between, and whose it is
_GLOBAL_HOOKS = tuple(getattr(_torch_module, f"_global{name}", {}) for name in _HOOKS)


class Layer(NamedTuple):
    """One Linear and the activation after it: σ(weight_scale · W a + bias_scale · b)."""

    name: str  # module name, "2"; "" for an inserted identity
    weight: Tensor  # (n_out, n_in), the parameter itself, or an identity matrix
    bias: Tensor | None  # (n_out,)
    weight_name: str | None  # "2.weight"; None for an inserted identity
    bias_name: str | None
    weight_scale: float = 1.0  # NTK parameterisation
    bias_scale: float = 1.0
    activation: int = 0  # a number of ACTIVATIONS
    beta: float = 1.0  # softplus
    threshold: float = 20.0
    bias_first: bool = False  # in named_parameters()


@dataclass(frozen=True, slots=True)
class Chain:
    """A native network: x ↦ (x − shift)/scale, then the layers in order."""

    layers: tuple[Layer, ...]
    shift: Tensor | None = None  # (d,)
    scale: Tensor | None = None  # (d,)

    @property
    def in_features(self) -> int:
        """The number of input columns, d."""
        return self.layers[0].weight.shape[1]

    @property
    def out_features(self) -> int:
        """The number of outputs, o."""
        return self.layers[-1].weight.shape[0]

    @property
    def widths(self) -> tuple[int, ...]:
        """The sizes (d, w₁, …, o)."""
        return (self.in_features, *(layer.weight.shape[0] for layer in self.layers))

    @property
    def dtype(self) -> torch.dtype:
        """The one floating type of all parameters."""
        return self.layers[0].weight.dtype

    @property
    def device(self) -> torch.device:
        """The one device of all parameters."""
        return self.layers[0].weight.device

    def parameters(self, selected: Sequence[tuple[bool, bool]] | None = None) -> dict[str, Tensor]:
        """Return all parameters by name, frozen ones too, or those selected, in the order of ``named_parameters()``.

        Args:
            selected: layer by layer, whether the weight and the bias are asked for.
        """
        found: dict[Any, Any] = {}
        chosen = [(True, True)] * len(self.layers) if selected is None else selected
        for layer, (weight, bias) in zip(self.layers, chosen, strict=True):
            bias = bias and layer.bias is not None
            if bias and layer.bias_first:
                found[layer.bias_name] = layer.bias
            if weight and layer.weight_name is not None:
                found[layer.weight_name] = layer.weight
            if bias and not layer.bias_first:
                found[layer.bias_name] = layer.bias
        return found

    def in_order(
        self, given: Mapping[str, Tensor], selected: Sequence[tuple[bool, bool]], missing: Tensor
    ) -> list[Tensor]:
        """Return the tensors of a dict by parameter name as native operators take them: W_0, b_0, W_1 and so on.

        Args:
            given: a tensor by name.
            selected: layer by layer, whether the weight and the bias are asked for.
            missing: what stands for one that is not, or that has no name in the dict.
        """
        found = []
        for layer, chosen in zip(self.layers, selected, strict=True):
            for name, wanted in zip((layer.weight_name, layer.bias_name), chosen, strict=True):
                found.append(given.get(name, missing) if wanted and name is not None else missing)
        return found


def chain_of(net: nn.Module) -> Chain:
    """Return the chain of a network, or say which layer the native core cannot handle.

    Args:
        net: an ``ntk.MLP``, an ``nn.Sequential`` (nested ones too) or an ``nn.Linear``, with float32 or float64
            parameters on one device.

    Returns:
        The chain; its tensors are the network's own.

    Raises:
        TypeError: ``net`` is no module.
        ValueError: a layer (named) that is not native: another type or forward, hooks, parametrisations, a module or
            weight that occurs twice, active dropout, mixed or unsupported types and devices, sizes that do not fit.

    Cost: a few microseconds per layer.

    Example:
        >>> from torch import nn
        >>> from ntkfast.chain import chain_of
        >>> chain_of(nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 1))).widths
        (2, 5, 1)
    """
    if not isinstance(net, nn.Module):
        raise TypeError(f"expected a network (torch.nn.Module), got {type(net).__name__}")
    for hooks in _GLOBAL_HOOKS:
        if hooks:
            raise ValueError(
                "expected no global module hooks (torch.nn.modules.module.register_module_…_hook), got some"
            )
    standardize: tuple[str, Standardize] | None = None
    linears: list[tuple[str, nn.Module | None]] = []  # None: an inserted identity
    activations: list[nn.Module | None] = []  # the activation after each
    for name, module in _leaves(net, "", set()):
        kind = type(module)
        if kind is nn.Linear or kind is ScaledLinear:
            linears.append((name, module))
            activations.append(None)
        elif kind in _CODES:
            if not linears or activations[-1] is not None:
                linears.append((name, None))
                activations.append(None)
            activations[-1] = module
        elif kind is Standardize:
            if linears or standardize is not None:
                _refuse(name, module, "Standardize as the first layer only", "it after other layers")
            standardize = (name, module)
        elif kind is nn.Dropout or kind is nn.AlphaDropout:
            if module.training and module.p > 0:
                _refuse(name, module, "dropout that is off (p=0 or net.eval())", f"p={module.p} in training mode")
        elif kind is not nn.Identity:
            own_container = bool(module._modules) and not isinstance(module, nn.Linear)
            _refuse(name, module, _CONTAINERS if own_container else _KNOWN, _what(module))
    return _assemble(net, linears, activations, standardize)


def check_order(chain: Chain, order: int) -> None:
    """Refuse a residual whose derivatives the activations do not have.

    Args:
        chain: the network.
        order: the highest derivative that the residual takes of it (``JetSpec.order``).

    Raises:
        ValueError: ReLU, for second derivatives.
    """
    for layer in chain.layers if order >= 2 else ():
        if layer.activation == ACTIVATIONS["relu"]:
            where = f" after layer {layer.name!r}" if layer.name else ""
            raise ValueError(
                f"expected activations that have the derivatives of the residual (order {order}), got ReLU{where}, "
                "which has no second derivative"
            )


def _leaves(module: nn.Module, name: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """Yield the modules that compute, in order, after the checks that concern every module."""
    if id(module) in seen:
        _refuse(name, module, "every module to occur once (make a fresh one for each place)", "one that occurs twice")
    seen.add(id(module))
    state = module.__dict__
    if any(_hooks_of(state)):
        found = next(hooks for hooks in _HOOKS if state[hooks])
        _refuse(name, module, "no hooks", f"{len(state[found])} in {found[1:]}")
    if "_orig_mod" in module._modules:
        _refuse(name, module, "the network that was given to torch.compile", "the compiled one")
    if "forward" in state:
        _refuse(name, module, "the forward of its class", "a forward set on the module itself")
    kind = type(module)
    if kind.__call__ is not nn.Module.__call__:
        _refuse(name, module, "the call of nn.Module", "a class with a __call__ of its own")
    if isinstance(module, nn.Sequential) or isinstance(module, MLP):
        _check_container(name, module)
        for key, child in module._modules.items():
            if child is None:
                _refuse(f"{name}.{key}" if name else key, child, _KNOWN, "None")
            yield from _leaves(child, f"{name}.{key}" if name else key, seen)
    else:
        yield name, module


def _check_container(name: str, module: nn.Module) -> None:
    kind: Any = type(module)
    if kind is nn.Sequential or kind is MLP:
        own_forward = False
    elif isinstance(module, MLP):
        own_forward = kind.forward is not MLP.forward
    else:
        own_forward = kind.forward is not nn.Sequential.forward or kind.__iter__ is not nn.Sequential.__iter__
    if own_forward:
        _refuse(name, module, "the forward of nn.Sequential or ntk.MLP", f"the class {kind.__name__} with its own")
    if module._parameters:
        _refuse(name, module, "parameters in its layers only", f"its own {', '.join(module._parameters)}")


def _assemble(
    net: nn.Module,
    linears: list[tuple[str, nn.Module | None]],
    activations: list[nn.Module | None],
    standardize: tuple[str, Standardize] | None,
) -> Chain:
    first = next(((name, module) for name, module in linears if module is not None), None)
    if first is None:
        _refuse("", net, "at least one nn.Linear", "none")
    like = first[1]._parameters.get("weight")
    if like is None:
        _refuse(*first, "the parameter weight", ", ".join(first[1]._parameters) or "none")
    _refuse_parameter(*first, "weight", like, like)
    spans: list[_Span] = []
    given = [
        None if module is None else _layer(name, module, _numbers(activation), like, spans)
        for (name, module), activation in zip(linears, activations, strict=True)
    ]
    _check_tied(spans)
    layers: list[Layer] = []
    width: int = like.shape[1]
    for (name, module), layer, activation in zip(linears, given, activations, strict=True):
        if layer is None:
            layer = Layer("", _eye(width, like), None, None, None, 1.0, 1.0, *_numbers(activation))
        n_out, n_in = layer.weight.shape
        if n_in != width:
            _refuse(name, module, f"{width} input features, as the layer before gives", f"{n_in}")
        width = n_out
        layers.append(layer)
    if standardize is None:
        return Chain(tuple(layers))
    _check_standardize(*standardize, like)
    return Chain(tuple(layers), standardize[1].mean, standardize[1].std)


def _numbers(activation: Any) -> tuple[int, float, float]:
    """Code, β and threshold."""
    kind = type(activation)
    if kind is nn.Softplus:
        return _CODES[kind], float(activation.beta), float(activation.threshold)
    if kind is nn.GELU and activation.approximate == "tanh":
        return ACTIVATIONS["gelu_tanh"], 1.0, 20.0
    return (0 if activation is None else _CODES[kind]), 1.0, 20.0


def _layer(
    name: str,
    module: Any,
    numbers: tuple[int, float, float],
    like: Tensor,
    spans: list[_Span],
) -> Layer:
    """One linear layer after the checks of its parameters; `spans` gathers the memory that they occupy."""
    parameters = module._parameters
    weight, bias = parameters.get("weight"), parameters.get("bias")
    if len(parameters) != 2 or weight is None or "bias" not in parameters:
        _refuse(name, module, "the parameters weight and bias (or bias=False)", ", ".join(parameters) or "none")
    _check_parameter(name, module, "weight", weight, like, spans)
    shape = weight.shape
    fits = len(shape) == 2 and weight.nbytes > 0
    if bias is not None:
        _check_parameter(name, module, "bias", bias, like, spans)
        fits = fits and bias.shape == shape[:1]
    if not fits:
        sizes = f"{tuple(shape)} and {None if bias is None else tuple(bias.shape)}"
        _refuse(name, module, "weight (n_out, n_in) and bias (n_out,) with at least one feature each", sizes)
    scales = (module.weight_scale, module.bias_scale) if type(module) is ScaledLinear else (1.0, 1.0)
    prefix = f"{name}." if name else ""
    names = prefix + "weight", None if bias is None else prefix + "bias"
    return Layer(name, weight, bias, *names, *scales, *numbers, next(iter(parameters)) == "bias")


_eyes: Kept[Tensor] = Kept(16)


def _eye(width: int, like: Tensor) -> Tensor:
    key = width, like.dtype, like.device
    return _eyes.get(key, like.device, lambda: torch.eye(width, dtype=like.dtype, device=like.device))


def _check_parameter(name: str, module: nn.Module, key: str, p: Tensor, like: Tensor, spans: list[_Span]) -> None:
    kind = type(p)
    plain = (kind is nn.Parameter or kind is Tensor) and p.layout is torch.strided
    if not plain or p.dtype is not like.dtype or p.device != like.device:
        _refuse_parameter(name, module, key, p, like)
    start, size = p.data_ptr(), p.nbytes
    if start == 0 and size:
        _refuse(name, module, f"{key} with memory", "one whose storage was freed")
    if size and not p.is_contiguous():
        size = (1 + sum((n - 1) * step for n, step in zip(p.shape, p.stride(), strict=True))) * p.element_size()
    spans.append((start, start + size, name, module, p))


def _refuse_parameter(name: str, module: nn.Module, key: str, p: Tensor, like: Tensor) -> None:
    if type(p) is not nn.Parameter and type(p) is not Tensor:
        _refuse(name, module, f"{key} as a plain torch tensor", f"a {type(p).__name__}")
    if p.dtype is not torch.float32 and p.dtype is not torch.float64:
        _refuse(name, module, f"{key} in torch.float32 or torch.float64", f"{p.dtype}")
    if p.device.type == "meta":
        _refuse(name, module, f"{key} with data on the CPU or a GPU", "a meta tensor")
    if p.layout is not torch.strided:
        _refuse(name, module, f"a dense {key}", f"layout {p.layout}")
    if p.dtype is not like.dtype or p.device != like.device:
        wanted = f"{key} in {like.dtype} on {like.device}, as the first layer"
        _refuse(name, module, wanted, f"{p.dtype} on {p.device}")


def _check_tied(spans: list[_Span]) -> None:
    # Memory intervals find ties of every kind: the same parameter, a transpose, a slice.
    spans.sort(key=itemgetter(0))
    end = 0
    for i, (start, stop, name, module, p) in enumerate(spans):
        for _, other_stop, owner, _, q in spans[:i] if start < end else ():
            if start < other_stop and not _columns_apart(q, p):
                _refuse(name, module, "parameters of its own (no tied weights)", f"memory shared with layer {owner!r}")
        end = max(end, stop)


def _columns_apart(p: Tensor, q: Tensor) -> bool:
    """Whether p and q, which begins later, are blocks or columns of one matrix that have no column in common."""
    row, width = _block(p)
    other_row, other_width = _block(q)
    if row != other_row or row == 0:
        return False
    first = (q.data_ptr() - p.data_ptr()) // p.element_size() % row
    return width <= first and first + other_width <= row


def _block(p: Tensor) -> tuple[int, int]:
    """From one row to the next, and the width of a block of columns; (0, 0) for what is none."""
    if p.ndim == 1:
        return p.stride(0), 1
    return (p.stride(0), p.shape[1]) if p.stride(1) == 1 else (0, 0)


def _check_standardize(name: str, module: Standardize, weight: Tensor) -> None:
    for key, buffer in (("mean", module.mean), ("std", module.std)):
        if buffer.dtype is not weight.dtype or buffer.device != weight.device:
            wanted = f"{key} in {weight.dtype} on {weight.device}, as the parameters"
            _refuse(name, module, wanted, f"{buffer.dtype} on {buffer.device}")
        if buffer.shape != weight.shape[1:]:
            _refuse(
                name, module, f"a {key} of {weight.shape[1]} numbers, as the first layer takes", f"{buffer.numel()}"
            )


def _what(module: nn.Module) -> str:
    if nn.utils.parametrize.is_parametrized(module):
        return "a parametrised module (weight_norm and its like)"
    if isinstance(module, nn.Linear):
        return f"{type(module).__name__}, a subclass of nn.Linear"
    return type(module).__name__


def _refuse(name: str, module: nn.Module | None, expected: str, got: str) -> NoReturn:
    kind = type(module).__name__
    where = f"layer {name!r} ({kind})" if name else f"the network ({kind})"
    raise ValueError(f"{where} is not native: expected {expected}, got {got}")
