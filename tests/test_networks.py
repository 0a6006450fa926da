"""MLP is the plain torch network it says it is; standardisation is visible; every wrong option is named."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from ntkfast.networks import ACTIVATIONS, MLP, Erf, ScaledLinear, Sin, Standardize


def test_mlp_computes_what_the_same_sequential_computes():
    net = MLP([2, 7, 5, 3], dtype=torch.float64)
    twin = nn.Sequential(nn.Linear(2, 7), nn.Tanh(), nn.Linear(7, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    twin.load_state_dict(net.state_dict())
    x = torch.randn(11, 2, dtype=torch.float64)
    assert torch.equal(net(x), twin(x))


def test_standardize_maps_inputs_takes_no_number_and_is_in_the_repr():
    mean, std = (0.5, -1.0), (0.25, 2.0)
    net = MLP([2, 4, 1], standardize=(mean, std), dtype=torch.float64)
    plain = MLP([2, 4, 1], dtype=torch.float64)
    plain.load_state_dict({k: v for k, v in net.state_dict().items() if not k.startswith("standardize")})
    x = torch.randn(6, 2, dtype=torch.float64)
    assert torch.equal(net(x), plain((x - torch.tensor(mean).double()) / torch.tensor(std).double()))
    assert [name for name, _ in net.named_parameters()] == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert "mean=(0.5, -1), std=(0.25, 2)" in repr(net)
    assert {"standardize.mean", "standardize.std"} <= set(net.state_dict())


def test_a_network_without_numbers_prints_itself():
    with torch.device("meta"):
        net = MLP([2, 4, 1], standardize=((0.5, 0.5), (1.0, 1.0)))
    assert "Standardize(features=2)" in repr(net)


@pytest.mark.parametrize("as_methods", [False, True])
def test_a_box_is_anything_with_mean_and_std(as_methods):
    mean, std = torch.tensor([0.5, 1.5]), [math.sqrt(1 / 12), 0.2]
    box = SimpleNamespace(mean=(lambda: mean) if as_methods else mean, std=(lambda: std) if as_methods else std)
    layer = MLP([2, 3, 1], standardize=box).standardize
    assert torch.equal(layer.mean, mean)
    assert torch.allclose(layer.std, torch.tensor(std))


def test_the_caller_keeps_its_tensors():
    mean = torch.zeros(2)
    layer = Standardize(mean, torch.ones(2))
    layer.mean.add_(1.0)
    assert torch.equal(mean, torch.zeros(2))


def test_forward_works_under_torch_func():
    net = MLP([2, 6, 1], standardize=((0.5, 0.5), (0.3, 0.3)), activation="sin")
    theta, x = dict(net.named_parameters()), torch.rand(4, 2)
    rows = vmap(grad(lambda p, q: functional_call(net, p, (q,)).sum()), (None, 0))(theta, x)
    assert rows["0.weight"].shape == (4, 6, 2)


@pytest.mark.parametrize(("init", "bound"), [("glorot_normal", None), ("glorot_uniform", math.sqrt(6 / 700))])
def test_glorot_has_its_variance_and_zero_biases(init, bound):
    torch.manual_seed(0)
    layer = getattr(MLP([300, 400, 1], init=init), "0")
    assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / 700), rel=0.02)
    assert bound is None or layer.weight.abs().max().item() <= bound
    assert not layer.bias.any()


def test_normal_has_variance_one_over_inputs_and_unit_biases():
    torch.manual_seed(0)
    layer = getattr(MLP([400, 3000, 1], init="normal"), "0")
    assert layer.weight.std().item() == pytest.approx(1 / 20, rel=0.02)
    assert layer.bias.std().item() == pytest.approx(1.0, rel=0.05)


def test_glorot_normal_is_the_default_and_default_is_that_of_torch():
    torch.manual_seed(0)
    a = MLP([2, 9, 1]).state_dict()
    torch.manual_seed(0)
    b = MLP([2, 9, 1], init="glorot_normal").state_dict()
    assert all(torch.equal(a[k], b[k]) for k in a)
    torch.manual_seed(0)
    first = getattr(MLP([2, 9, 1], init="default"), "0")
    torch.manual_seed(0)
    assert torch.equal(first.weight, nn.Linear(2, 9).weight)


def test_ntk_parameterization_scales_at_the_forward():
    torch.manual_seed(0)
    net = MLP([3, 2000, 1], "relu", parameterization="ntk", w_std=1.5, b_std=0.1, dtype=torch.float64)
    layer = getattr(net, "0")
    assert isinstance(layer, ScaledLinear)
    assert layer.weight.std().item() == pytest.approx(1.0, rel=0.05)
    x = torch.randn(5, 3, dtype=torch.float64)
    assert torch.allclose(layer(x), x @ layer.weight.T * 1.5 / math.sqrt(3) + 0.1 * layer.bias)
    assert "weight_scale" in repr(net)


def test_ntk_parameterization_without_bias_has_none():
    assert [n for n, _ in MLP([2, 3, 1], parameterization="ntk", b_std=0.0).named_parameters()] == [
        "0.weight",
        "2.weight",
    ]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_has_a_module(name):
    assert MLP([2, 3, 1], activation=name)(torch.rand(4, 2)).shape == (4, 1)


def test_an_activation_may_be_a_function_that_makes_a_module():
    assert getattr(MLP([2, 3, 1], activation=lambda: nn.Softplus(beta=2.0)), "1").beta == 2.0
    assert isinstance(getattr(MLP([2, 3, 1], activation=nn.SiLU), "1"), nn.SiLU)


def test_sin_and_erf_are_those_of_torch():
    z = torch.linspace(-3, 3, 7)
    assert torch.equal(Sin()(z), torch.sin(z))
    assert torch.equal(Erf()(z), torch.erf(z))


WRONG = [
    ({"sizes": [2]}, "at least two positive whole numbers, inputs first, got [2]"),
    ({"sizes": [2, 0, 1]}, "at least two positive whole numbers, inputs first, got [2, 0, 1]"),
    ({"sizes": [2, 3.0, 1]}, "got [2, 3.0, 1]"),
    ({"activation": "tanhh"}, "activation as one of identity, relu, tanh"),
    ({"activation": nn.Tanh()}, "or a function making a module, got Tanh()"),
    ({"init": "xavier"}, "init as one of glorot_normal, glorot_uniform, default, normal, got 'xavier'"),
    ({"dtype": torch.float16}, "dtype torch.float32 or torch.float64, got torch.float16"),
    ({"parameterization": "mup"}, "parameterization 'standard' or 'ntk', got 'mup'"),
    ({"parameterization": "ntk", "init": "default"}, "expected init None or 'normal', got 'default'"),
    ({"parameterization": "ntk", "w_std": -1.0}, "finite w_std and b_std ≥ 0, got -1.0 and None"),
    ({"w_std": 1.0}, "expected w_std and b_std with parameterization='ntk' alone"),
    ({"standardize": torch.rand(9, 2)}, "standardize as None, a Box or a pair (mean, std), got Tensor"),
    ({"standardize": (0.5, 0.5, 0.5)}, "standardize as a pair (mean, std), got 3 entries"),
    ({"standardize": 3.0}, "standardize as None, a Box or a pair (mean, std), got float"),
    ({"standardize": ((0.5,), (0.5, 0.5))}, "a mean of 2 numbers, one per input column, got (0.5,)"),
    ({"standardize": ((0.5, 0.5), (0.5, 0.5, 1.0))}, "a std of 2 numbers"),
    ({"standardize": ((0.5, 0.5), (0.5, 0.0))}, "a positive std for each column, got (0.5, 0.0)"),
    ({"standardize": ((0.5, math.nan), (0.5, 1.0))}, "a finite mean"),
]


@pytest.mark.parametrize(("options", "sentence"), WRONG, ids=[str(i) for i in range(len(WRONG))])
def test_a_wrong_option_is_named(options, sentence):
    with pytest.raises(ValueError) as error:
        MLP(**{"sizes": [2, 3, 1], **options})
    assert sentence in str(error.value)


def test_standardize_wants_one_number_per_column():
    with pytest.raises(ValueError, match=r"mean of shape \(d,\)"):
        Standardize(torch.zeros(2, 2), torch.ones(2))
    with pytest.raises(ValueError, match="of one length, got 2 and 3"):
        Standardize(torch.zeros(2), torch.ones(3))


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ((2, 3, 1), TypeError, r"sizes as a list such as \[2, 50, 1\], got 2"),
        (([2, 3, 1], torch.tanh), TypeError, "a name such as 'tanh' or a function without arguments, got tanh"),
        (([2, 3, 1], lambda: torch.tanh), TypeError, "makes a module, got <lambda>, which gives builtin"),
        (([2, 3, 1], "tanh", None, None, None, "abacus"), ValueError, "a device such as 'cpu' or 'cuda', got 'abacus'"),
    ],
)
def test_arguments_in_the_wrong_place_are_named(arguments, error, sentence):
    with pytest.raises(error, match=sentence):
        MLP(*arguments)


def test_a_device_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="a device of this machine, got 'cuda', but torch finds no GPU"):
        MLP([2, 3, 1], device="cuda")
