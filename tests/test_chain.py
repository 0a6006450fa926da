"""A chain computes exactly what the network computes, or the network is refused with the layer's name."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from ntkfast.chain import Chain, chain_of, check_order
from ntkfast.networks import ACTIVATIONS, MLP, Erf, Sin, Standardize

FUNCTIONS = {
    "identity": lambda z, layer: z,
    "relu": lambda z, layer: torch.relu(z),
    "tanh": lambda z, layer: torch.tanh(z),
    "sigmoid": lambda z, layer: torch.sigmoid(z),
    "sin": lambda z, layer: torch.sin(z),
    "erf": lambda z, layer: torch.erf(z),
    "softplus": lambda z, layer: nn.functional.softplus(z, layer.beta, layer.threshold),
    "silu": lambda z, layer: nn.functional.silu(z),
    "gelu": lambda z, layer: nn.functional.gelu(z),
    "gelu_tanh": lambda z, layer: nn.functional.gelu(z, approximate="tanh"),
}
NAMES = {number: name for name, number in ACTIVATIONS.items()}


def run(chain: Chain, x: torch.Tensor) -> torch.Tensor:
    """What the native core does with a chain, in plain torch."""
    a = x if chain.shift is None else (x - chain.shift) / chain.scale
    for layer in chain.layers:
        z = a @ (layer.weight_scale * layer.weight).T
        if layer.bias is not None:
            z = z + layer.bias_scale * layer.bias
        a = FUNCTIONS[NAMES[layer.activation]](z, layer)
    return a


def mlp(**options):
    return MLP([2, 6, 5, 1], dtype=torch.float64, **options)


NATIVE = {
    "mlp": mlp(),
    "standardized": mlp(standardize=((0.5, 0.1), (0.3, 2.0))),
    "ntk": mlp(parameterization="ntk", w_std=1.5, b_std=0.1),
    "one linear": nn.Linear(2, 3).double(),
    "no bias": nn.Sequential(nn.Linear(2, 4, bias=False), nn.Tanh(), nn.Linear(4, 1, bias=False)).double(),
    "nested": nn.Sequential(
        nn.Sequential(nn.Linear(2, 4), Sin()), nn.Sequential(nn.Sequential(nn.Linear(4, 1)))
    ).double(),
    "mlp in a sequential": nn.Sequential(Standardize((0.0, 1.0), (1.0, 2.0), dtype=torch.float64), mlp(), Erf()),
    "leading activation": nn.Sequential(nn.Tanh(), nn.Linear(2, 1)).double(),
    "two activations": nn.Sequential(nn.Linear(2, 4), nn.Tanh(), Sin(), nn.GELU(), nn.Linear(4, 1)).double(),
    "last activation": nn.Sequential(nn.Linear(2, 4), nn.SiLU(), nn.Linear(4, 2), nn.Sigmoid()).double(),
    "two linears": nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 1)).double(),
    "softplus with options": nn.Sequential(
        nn.Linear(2, 4), nn.Softplus(beta=3.0, threshold=1.0), nn.Linear(4, 1)
    ).double(),
    "gelu tanh": nn.Sequential(nn.Linear(2, 4), nn.GELU(approximate="tanh"), nn.Linear(4, 1)).double(),
    "identity and dropout": nn.Sequential(
        nn.Identity(), nn.Linear(2, 4), nn.Dropout(0.0), nn.ReLU(), nn.Dropout(0.5), nn.Linear(4, 1)
    )
    .double()
    .eval(),
    **{name: mlp(activation=name) for name in ACTIVATIONS},
}


@pytest.mark.parametrize("name", NATIVE)
def test_a_chain_computes_what_the_network_computes(name):
    net = NATIVE[name]
    x = 2 * torch.randn(9, 2, dtype=torch.float64)
    assert torch.allclose(run(chain_of(net), x), net(x), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("name", NATIVE)
def test_a_chain_has_the_parameters_of_the_network_in_their_order(name):
    net = NATIVE[name]
    found = chain_of(net).parameters()
    assert list(found) == [name for name, _ in net.named_parameters()]
    assert all(found[name] is p for name, p in net.named_parameters())


def test_layer_names_are_module_names():
    chain = chain_of(NATIVE["nested"])
    assert [(layer.name, layer.weight_name) for layer in chain.layers] == [
        ("0.0", "0.0.weight"),
        ("1.0.0", "1.0.0.weight"),
    ]
    assert [layer.name for layer in chain_of(mlp(standardize=((0, 0), (1, 1)))).layers] == ["0", "2", "4"]
    assert chain_of(nn.Linear(2, 1)).layers[0].weight_name == "weight"


def test_an_inserted_identity_has_no_names():
    chain = chain_of(NATIVE["two activations"])
    assert chain.widths == (2, 4, 4, 4, 1)
    assert [layer.weight_name for layer in chain.layers] == ["0.weight", None, None, "4.weight"]
    assert torch.equal(chain.layers[1].weight, torch.eye(4, dtype=torch.float64))


def test_sizes_type_and_device():
    chain = chain_of(NATIVE["softplus with options"])
    assert (chain.in_features, chain.out_features, chain.dtype, chain.device.type) == (2, 1, torch.float64, "cpu")
    assert (chain.layers[0].beta, chain.layers[0].threshold) == (3.0, 1.0)


def test_a_copy_and_a_subclass_without_a_forward_of_its_own_are_native():
    class Small(MLP):
        def __init__(self):
            super().__init__([2, 3, 1])

    assert chain_of(copy.deepcopy(Small())).widths == (2, 3, 1)
    assert chain_of(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1)).requires_grad_(False)).widths == (2, 3, 1)


# ---- refusals


def sequential(*between, tail=1):
    return nn.Sequential(nn.Linear(2, 4), *between, nn.Linear(4, tail))


def hooked(register):
    net = sequential(nn.Tanh())
    getattr(net[1], register)(lambda *args: None)
    return net


def tied(make, last=4):
    net = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, last))
    net[2].weight = make(net[0].weight)
    return net


def patched():
    net = sequential(nn.Tanh())
    net[1].forward = torch.sin
    return net


def with_layer(change):
    net = sequential(nn.Tanh())
    change(net[2])
    return net


def set_bias(layer):
    layer.bias = nn.Parameter(torch.zeros(3))


def flat_weight():
    net = sequential(nn.Tanh())
    net[0].weight = nn.Parameter(torch.ones(4))
    return net


def with_weight(layer, weight):
    layer.weight = weight
    return layer


def free(layer):
    layer.weight.untyped_storage().resize_(0)


class OwnForward(nn.Sequential):
    def forward(self, x):
        return 2 * super().forward(x)


class OwnCall(nn.Sequential):
    def __call__(self, x):
        return 2 * super().__call__(x)


class OwnIteration(nn.Sequential):
    def __iter__(self):
        return reversed(list(super().__iter__()))


class OwnMLP(MLP):
    def forward(self, x):
        return super().forward(x) + x.sum(1, keepdim=True)


class OwnParameter(nn.Sequential):
    def __init__(self, *layers):
        super().__init__(*layers)
        self.kappa = nn.Parameter(torch.ones(()))


class Custom(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(2, 1)

    def forward(self, x):
        return self.lin(x)


class MyLinear(nn.Linear):
    pass


class OwnContainer(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def forward(self, x):
        return self.layer(x)


TANH = nn.Tanh()
LINEAR = nn.Linear(4, 4)
REFUSED = {
    "custom module": (Custom(), "the network (Custom)", "Custom"),
    "own container": (OwnContainer(), "the network (OwnContainer)", "nn.Sequential or ntk.MLP as the container"),
    "compiled": (
        torch.compile(MLP([2, 3, 1]), backend="eager"),
        "the network (OptimizedModule)",
        "that was given to torch.compile",
    ),
    "unknown layer": (sequential(nn.BatchNorm1d(4)), "layer '1' (BatchNorm1d)", "nn.Linear, nn.Tanh"),
    "unknown nested layer": (sequential(nn.Sequential(nn.LayerNorm(4))), "layer '1.0' (LayerNorm)", "LayerNorm"),
    "subclass of linear": (sequential(MyLinear(4, 4)), "layer '1' (MyLinear)", "a subclass of nn.Linear"),
    "subclass of tanh": (sequential(type("T", (nn.Tanh,), {})()), "layer '1' (T)", "got T"),
    "own forward": (OwnForward(nn.Linear(2, 1)), "the network (OwnForward)", "the forward of nn.Sequential or ntk.MLP"),
    "own forward of an MLP": (OwnMLP([2, 3, 1]), "the network (OwnMLP)", "the class OwnMLP with its own"),
    "own iteration": (OwnIteration(nn.Linear(2, 1)), "the network (OwnIteration)", "with its own"),
    "own call": (OwnCall(nn.Linear(2, 1)), "the network (OwnCall)", "a __call__ of its own"),
    "own parameter": (OwnParameter(nn.Linear(2, 1)), "the network (OwnParameter)", "its own kappa"),
    "forward on the instance": (patched(), "layer '1' (Tanh)", "a forward set on the module itself"),
    "forward hook": (hooked("register_forward_hook"), "layer '1' (Tanh)", "1 in forward_hooks"),
    "forward pre-hook": (hooked("register_forward_pre_hook"), "layer '1' (Tanh)", "1 in forward_pre_hooks"),
    "backward hook": (hooked("register_full_backward_hook"), "layer '1' (Tanh)", "1 in backward_hooks"),
    "backward pre-hook": (hooked("register_full_backward_pre_hook"), "layer '1' (Tanh)", "1 in backward_pre_hooks"),
    "weight_norm": (with_layer(parametrizations.weight_norm), "layer '2'", "a parametrised module"),
    "spectral_norm": (with_layer(parametrizations.spectral_norm), "layer '2'", "a parametrised module"),
    "pruned": (with_layer(lambda layer: prune.identity(layer, "weight")), "layer '2' (Linear)", "no hooks"),
    "same linear twice": (nn.Sequential(LINEAR, nn.Tanh(), LINEAR), "layer '2' (Linear)", "one that occurs twice"),
    "same tanh twice": (sequential(TANH, nn.Linear(4, 4), TANH), "layer '3' (Tanh)", "one that occurs twice"),
    "tied": (tied(lambda w: w), "layer '2' (Linear)", "memory shared with layer '0'"),
    "tied by transposition": (tied(lambda w: nn.Parameter(w.data.T)), "(Linear)", "memory shared with layer"),
    "tied by a slice": (
        tied(lambda w: nn.Parameter(w.data[1:]), 3),
        "layer '2' (Linear)",
        "memory shared with layer '0'",
    ),
    "active dropout": (sequential(nn.Dropout(0.1)), "layer '1' (Dropout)", "got p=0.1 in training mode"),
    "other dropout": (sequential(nn.Dropout1d(0.0)), "layer '1' (Dropout1d)", "got Dropout1d"),
    "late standardisation": (
        sequential(Standardize((0,) * 4, (1,) * 4)),
        "layer '1' (Standardize)",
        "first layer only",
    ),
    "complex": (nn.Sequential(nn.Linear(2, 1, dtype=torch.complex64)), "layer '0' (Linear)", "got torch.complex64"),
    "half": (sequential(nn.Tanh()).half(), "layer '0' (Linear)", "torch.float32 or torch.float64, got torch.float16"),
    "bfloat16": (sequential(nn.Tanh()).bfloat16(), "layer '0' (Linear)", "got torch.bfloat16"),
    "mixed types": (with_layer(nn.Module.double), "layer '2' (Linear)", "torch.float32 on cpu, as the first layer"),
    "meta": (sequential(nn.Tanh()).to("meta"), "layer '0' (Linear)", "a meta tensor"),
    "half on meta": (with_layer(lambda layer: layer.to("meta")), "layer '2' (Linear)", "a meta tensor"),
    "freed": (with_layer(free), "layer '2' (Linear)", "weight with memory, got one whose storage was freed"),
    "sizes": (nn.Sequential(nn.Linear(2, 4), nn.Linear(3, 1)), "layer '1' (Linear)", "4 input features, as the layer"),
    "bias": (with_layer(set_bias), "layer '2' (Linear)", "(1, 4) and (3,)"),
    "a weight of one dimension": (flat_weight(), "layer '0' (Linear)", "got (4,) and (4,)"),
    "tied where sizes do not fit": (
        nn.Sequential(LINEAR, nn.Tanh(), with_weight(nn.Linear(3, 4), LINEAR.weight)),
        "layer '2' (Linear)",
        "memory shared with layer '0'",
    ),
    "a third parameter": (
        with_layer(lambda layer: layer.register_parameter("extra", nn.Parameter(torch.ones(1)))),
        "layer '2' (Linear)",
        "got weight, bias, extra",
    ),
    "no linear": (nn.Sequential(nn.Tanh()), "the network (Sequential)", "at least one nn.Linear, got none"),
    "empty": (nn.Sequential(), "the network (Sequential)", "at least one nn.Linear, got none"),
    "standardize of another type": (
        nn.Sequential(Standardize((0, 0), (1, 1), dtype=torch.float64), nn.Linear(2, 1)),
        "layer '0' (Standardize)",
        "mean in torch.float32 on cpu, as the parameters, got torch.float64 on cpu",
    ),
    "standardize of another size": (
        nn.Sequential(Standardize((0,) * 3, (1,) * 3), nn.Linear(2, 1)),
        "(Standardize)",
        "a mean of 2 numbers",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_native_is_refused_by_name(name):
    net, where, sentence = REFUSED[name]
    with pytest.raises(ValueError) as error:
        chain_of(net)
    assert where in str(error.value)
    assert sentence in str(error.value)
    assert "expected" in str(error.value) and "got" in str(error.value)


def test_old_weight_norm_is_refused():
    net = sequential(nn.Tanh())
    with pytest.warns(FutureWarning):
        nn.utils.weight_norm(net[2])
    with pytest.raises(ValueError, match=r"layer '2' \(Linear\) is not native: expected no hooks"):
        chain_of(net)


def test_global_hooks_are_refused():
    handle = nn.modules.module.register_module_forward_hook(lambda *args: None)
    try:
        with pytest.raises(ValueError, match="no global module hooks"):
            chain_of(sequential())
    finally:
        handle.remove()
    assert chain_of(sequential()).widths == (2, 4, 1)


def test_something_that_is_no_network_is_a_type_error():
    with pytest.raises(TypeError, match=r"expected a network \(torch.nn.Module\), got function"):
        chain_of(lambda x: x)


def test_changes_count_from_the_next_call_on():
    net = sequential(nn.Tanh())
    chain_of(net)
    handle = net[1].register_forward_hook(lambda *args: None)
    with pytest.raises(ValueError, match="no hooks"):
        chain_of(net)
    handle.remove()
    net[0].weight.requires_grad_(False)
    assert [p.requires_grad for p in chain_of(net).parameters().values()] == [False, True, True, True]
    net[1] = Sin()
    assert chain_of(net).layers[0].activation == ACTIVATIONS["sin"]


def test_relu_has_no_second_derivative():
    chain = chain_of(sequential(nn.ReLU()))
    check_order(chain, 1)
    with pytest.raises(ValueError, match=r"\(order 2\), got ReLU after layer '0', which has no second derivative"):
        check_order(chain, 2)
    check_order(chain_of(sequential(nn.Tanh())), 2)


def test_parameters_keep_the_order_that_the_network_gives_them():
    net = sequential(nn.Tanh())
    prune.remove(prune.identity(net[0], "weight"), "weight")  # registers the weight anew, behind the bias
    assert list(chain_of(net).parameters()) == [name for name, _ in net.named_parameters()]
    assert list(chain_of(net).parameters())[0].endswith("bias")


def test_parts_of_one_tensor_that_overlap_are_tied():
    shared = torch.randn(20, 10, dtype=torch.float64)
    net = nn.Sequential(nn.Linear(5, 10), nn.Tanh(), nn.Linear(10, 5)).double()
    net[0].weight, net[2].weight = nn.Parameter(shared[:10, :5]), nn.Parameter(shared[7:12])
    with pytest.raises(ValueError, match="no tied weights"):
        chain_of(net)
    net[2].weight = nn.Parameter(shared[10:15])
    chain_of(net)


@pytest.mark.parametrize("first", [0, 3, 5, 6])
def test_blocks_of_columns_of_one_matrix_are_tied_where_they_meet(first):
    shared = torch.randn(10, 16, dtype=torch.float64)
    net = nn.Sequential(nn.Linear(5, 10), nn.Tanh(), nn.Linear(10, 10)).double()
    net[0].weight, net[2].weight = nn.Parameter(shared[:, :5]), nn.Parameter(shared[:, first : first + 10])
    if first >= 5:
        chain_of(net)
    else:
        with pytest.raises(ValueError, match="no tied weights"):
            chain_of(net)


def test_a_layer_may_be_cut_from_one_matrix():
    affine = torch.randn(10, 6, dtype=torch.float64)
    net = nn.Sequential(nn.Linear(5, 10)).double()
    net[0].weight, net[0].bias = nn.Parameter(affine[:, :5]), nn.Parameter(affine[:, 5])
    chain_of(net)
    net[0].bias = nn.Parameter(affine[:, 4])
    with pytest.raises(ValueError, match="no tied weights"):
        chain_of(net)


def test_an_expanded_weight_in_two_layers_is_tied():
    weight = nn.Parameter(torch.zeros(1, 8, dtype=torch.float64).expand(8, 8))
    net = nn.Sequential(nn.Linear(8, 8, bias=False), nn.Tanh(), nn.Linear(8, 8, bias=False)).double()
    net[0].weight = net[2].weight = weight
    with pytest.raises(ValueError, match="no tied weights"):
        chain_of(net)
