"""Another default device than the network's: what a call makes for itself lies where the network is."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import ntkfast as ntk

PROBLEM = ntk.problems.Wave1D()
D = PROBLEM.domain
torch.manual_seed(0)
NET = ntk.MLP([2, 8, 8, 1], standardize=D, dtype=torch.float64)
START = copy.deepcopy(NET)
X, MANY = torch.rand(12, 2, dtype=torch.float64), torch.rand(600, 2, dtype=torch.float64)
with torch.no_grad():
    for p in START.parameters():
        p.add_(0.1)


@ntk.residual("t", "x")
def wave(u):
    return u.d(t=2) - 4.0 * u.d(x=2)


@ntk.residual("t", "x")
def mixed(u, at, kappa):
    return {"a": u * u.d(x=1) - kappa * at.t, "b": torch.sin(u) - torch.exp(at.x)}


mixed = mixed.bind(kappa=0.3)
GROUPS = {"u": (X, ntk.value), "r": (X, mixed)}
FACES = D.at(t=0) | D.at(x=0)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


CALLS: dict[str, Callable[[], object]] = {
    "trace": lambda: ntk.trace(NET, X, mixed),
    "trace in pieces": lambda: ntk.trace(NET, MANY, wave, memory="1MB"),
    "diag": lambda: ntk.diag(NET, X, mixed),
    "gram": lambda: ntk.gram(NET, X, mixed),
    "gram of groups": lambda: ntk.gram(NET, GROUPS),
    "gram in pieces": lambda: ntk.gram(NET, MANY, wave, memory="2MB"),
    "gram in float32": lambda: ntk.gram(NET, X, wave, dtype=torch.float32),
    "spectrum": lambda: ntk.spectrum(NET, X, wave),
    "jacobian": lambda: ntk.factors(NET, X, mixed).jacobian(),
    "vjp": lambda: ntk.factors(NET, X, wave).vjp(X[:, 0])["0.weight"],
    "loss_gradient": lambda: ntk.loss_gradient(NET, GROUPS, {"u": 1.0, "r": 2.0}).gradient["0.weight"],
    "operator": lambda: ntk.NTKOperator(NET, X, wave) @ X,
    "eigsh": lambda: ntk.NTKOperator(NET, MANY, wave).eigsh(3)[0],
    "to_scipy": lambda: torch.from_numpy(ntk.NTKOperator(NET, X, wave).to_scipy() @ X[:, 0].numpy()),
    "plan": lambda: str(ntk.plan(NET, mixed, n=30)),
    "check": lambda: ntk.check(NET, X, mixed).passed,
    "kernel_drift": lambda: ntk.kernel_drift(NET, START, X, wave),
    "parameter_drift": lambda: ntk.parameter_drift(NET, START),
    "reference": lambda: ntk.reference.gram(NET, X, mixed),
    "weights": lambda: ntk.NTKWeights()(NET, GROUPS)["u"],
    "weights of numbers": lambda: ntk.NTKWeights().update({"u": 1.0, "r": 2.0}, rows=3)["u"],
    "mean and std": lambda: torch.stack([D.mean, D.std]),
    "sample of a box": lambda: ntk.Box(t=(0, 1), x=(1, 3)).sample(5, generator()),
    "sample of a union": lambda: (D.at(t=0) | D.at(x=0)).sample(5, generator()),
    "grid": lambda: D.grid(3),
    "error": lambda: PROBLEM.error(NET),
}


@pytest.mark.parametrize("name", CALLS)
def test_calls_take_no_part_in_the_default_device(name: str) -> None:
    with torch.device("meta"):
        found = CALLS[name]()
    expected = CALLS[name]()
    if isinstance(expected, Tensor):
        assert isinstance(found, Tensor) and found.device.type == "cpu" and torch.equal(found, expected)
    else:
        assert found == expected


def trained(folder) -> tuple[Tensor, dict[str, list[float]]]:
    """Construct, fit with all that is recorded, save, resume and fit."""
    conditions = {
        **ntk.problems.Wave1D().conditions,
        "faces": ntk.Condition(D.at(x=0) | D.at(x=1), n=8),
        "fixed": ntk.Condition(X, target=X[:, 0], n=7),
    }
    problem = ntk.Problem(D, conditions, exact=PROBLEM.exact)
    weights = ntk.NTKWeights(every=2, points={"ut": 9})
    trainer = ntk.Trainer(problem, copy.deepcopy(NET), weights, batch={"start": 5, "r": 9})
    trainer.fit(5, out=folder, record_every=2, error_every=2, spectra=[0, 3], progress=False)
    net = copy.deepcopy(NET)
    history = ntk.Trainer.resume(folder / "checkpoint.pt", problem, net).fit(3, out=folder, progress=False)
    ntk.Trainer(problem, copy.deepcopy(NET), dict.fromkeys(history.loss, 2.0)).fit(1, progress=False)
    return torch.cat([p.detach().flatten() for p in net.parameters()]), {k: s.values for k, s in history.loss.items()}


def test_a_network_is_trained_where_it_is(tmp_path) -> None:
    with torch.device("meta"):
        found = trained(tmp_path / "meta")
    expected = trained(tmp_path / "cpu")
    assert torch.equal(found[0], expected[0]) and found[1] == expected[1]


def test_a_network_is_made_on_the_default_device_as_a_whole() -> None:
    with torch.device("meta"):
        net = ntk.MLP([2, 4, 1], standardize=D)
        beside = ntk.MLP([2, 4, 1], standardize=((0.5, 0.5), X.std(0)), device="cpu")
    assert {t.device.type for t in net.state_dict().values()} == {"meta"}
    assert {t.device.type for t in beside.state_dict().values()} == {"cpu"}
