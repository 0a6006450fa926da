"""One iteration: its gradient is that of the weighted loss with sources and targets, its traces those of the rows."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import Tensor

import ntkfast as ntk
from ntkfast.training.iteration import Iteration, Kind
from ntkfast.training.step import StepRows

D = ntk.Box(t=(0, 1), x=(0, 1))
PROBLEM = ntk.Problem(
    D,
    {
        "sourced": ntk.Condition(D, lambda u, at: u.d(t=1) - 3 * at.t * u + at.x**2, lambda at: at.t * at.x, n=9),
        "start": ntk.Condition(D.at(t=0), lambda u: {"u": u, "ut": u.d(t=1)}, {"u": 0.5}, n=5),
        "cubic": ntk.Condition(D, lambda u, at: u.d(x=2) + u**3 - at.x, 2.0, n=4, group="u"),
    },
)
LINEAR = ntk.Problem(D, {name: PROBLEM.conditions[name] for name in ("sourced", "start")})
SIZES = {"sourced": 9, "start": 5, "cubic": 4}
TRACES, RENEWS = Kind(traces=True), Kind(traces=True, renews=True)


def iteration_of(
    problem: ntk.Problem, weights: ntk.NTKWeights | None = None, lam: list[float] | None = None
) -> Iteration:
    torch.manual_seed(0)
    net = ntk.MLP([2, 7, 6, 1], dtype=torch.float64)
    generator = torch.Generator().manual_seed(5)
    layout = StepRows(problem, {name: SIZES[name] for name in problem.conditions}, net, generator)
    start = torch.tensor(lam or [1.0] * len(layout.groups), dtype=torch.float64)
    return Iteration(net, layout, weights, start, torch.optim.SGD(net.parameters(), 0.1), generator)


def expected(iteration: Iteration, batch, lam: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Losses, the flat gradient and the traces by group, from the definitions."""
    layout, net = iteration.layout, iteration.net
    losses, traces, start = torch.zeros(len(layout.groups)).double(), torch.zeros(len(layout.groups)).double(), 0
    gradient = torch.zeros(sum(p.numel() for p in net.parameters())).double()
    for name, (points, residual) in batch.groups.items():
        rows = ntk.reference.rows(net, points, residual).detach().reshape(len(points), -1)
        jacobian = ntk.reference.jacobian(net, points, residual).reshape(*rows.shape, -1)
        rows = rows - batch.targets[start : start + rows.numel()].view_as(rows)
        start += rows.numel()
        for j, group in enumerate(layout.component_groups[name]):
            k = layout.groups.index(group)
            losses[k] += rows[:, j].square().mean()
            traces[k] += jacobian[:, j].square().sum()
            gradient += 2 * lam[k] / len(rows) * rows[:, j] @ jacobian[:, j]
    return losses, gradient, traces


@pytest.mark.parametrize("problem", [LINEAR, PROBLEM], ids=["linear", "nonlinear"])
def test_a_batch_is_left_as_it_was_drawn(problem: ntk.Problem) -> None:
    iteration = iteration_of(problem)
    batch = iteration.draw()
    targets = batch.targets.clone()
    first = iteration.gradient(batch, Kind()).losses
    assert torch.equal(batch.targets, targets)
    assert torch.equal(iteration.gradient(batch, Kind()).losses, first)


@pytest.mark.parametrize("problem", [LINEAR, PROBLEM], ids=["linear", "nonlinear"])
def test_losses_gradient_and_traces_are_those_of_the_definitions(problem: ntk.Problem) -> None:
    iteration = iteration_of(problem, lam=[3.0, 0.5, 2.0])
    batch = iteration.draw()
    assert batch.targets is not None
    losses, gradient, traces = expected(iteration, batch, iteration.lam)
    found = iteration.gradient(batch, TRACES)
    actual = torch.cat([p.grad.flatten() for p in iteration.net.parameters()])
    assert (actual - gradient).norm() <= 1e-10 * gradient.norm()
    assert torch.allclose(found.losses, losses, rtol=1e-10, atol=0)
    assert torch.allclose(found.traces, traces, rtol=1e-10, atol=0)
    rows = torch.tensor([iteration.layout.rows[group] for group in iteration.layout.groups])
    assert torch.allclose(found.means, traces / rows, rtol=1e-10, atol=0)
    assert iteration.gradient(batch, Kind()).traces is None


def test_a_look_finds_the_same_and_touches_no_gradient() -> None:
    iteration = iteration_of(PROBLEM)
    batch = iteration.draw()
    seen = iteration.look(batch)
    assert all(p.grad is None for p in iteration.net.parameters())
    found = iteration.gradient(batch, TRACES)
    for name in ("losses", "traces", "means"):
        assert torch.equal(getattr(seen, name), getattr(found, name))


@pytest.mark.parametrize("normalize", ["mean", "sum"])
def test_new_weights_are_ratios_of_traces_or_of_their_means(normalize: str) -> None:
    iteration = iteration_of(LINEAR, ntk.NTKWeights(normalize=normalize))
    found = iteration.gradient(iteration.draw(), RENEWS)
    iteration.renew(found)
    used = found.means if normalize == "mean" else found.traces
    assert torch.allclose(iteration.lam, used.sum() / used, rtol=1e-12, atol=0)
    assert torch.allclose(iteration._pull, iteration.layout.pull(iteration.lam), rtol=1e-12, atol=0)


def test_a_trace_on_fresh_points_is_divided_by_their_number() -> None:
    """A kernel of u alone at t = 0: its mean trace hardly depends on how many points it is taken on."""
    own, fresh = (iteration_of(LINEAR, ntk.NTKWeights(points=p)) for p in (None, {"u": 500}))
    assert own.layout.groups == fresh.layout.groups
    k = own.layout.groups.index("u")
    few, many = (i.gradient(i.draw(), RENEWS) for i in (own, fresh))
    assert float(many.traces[k] / few.traces[k]) == pytest.approx(100, rel=0.2)
    assert float(many.means[k] / few.means[k]) == pytest.approx(1, rel=0.2)


def sgd_trainer(net: torch.nn.Module) -> ntk.Trainer:
    return ntk.Trainer(LINEAR, net, optimizer=torch.optim.SGD(net.parameters(), 1e-2, momentum=0.9))


def small_net() -> ntk.MLP:
    torch.manual_seed(0)
    return ntk.MLP([2, 7, 6, 1], dtype=torch.float64)


def test_a_parameter_that_is_frozen_between_iterations_stays_and_is_trained_again_when_it_is_free() -> None:
    net = small_net()
    first = next(net.parameters()).requires_grad_(False)
    trainer = sgd_trainer(net)
    for free in (False, True, False, True):
        first.requires_grad_(free)
        before = first.detach().clone()
        trainer.fit(3, progress=False)
        assert torch.equal(before, first.detach()) != free
        assert (first.grad is None) != free


def test_a_checkpoint_knows_what_is_trained_now(tmp_path) -> None:
    net = small_net()
    trainer = sgd_trainer(net)
    trainer.fit(3, progress=False)
    next(net.parameters()).requires_grad_(False)
    trainer.save(tmp_path / "checkpoint.pt")
    again = small_net()
    next(again.parameters()).requires_grad_(False)
    optimizer = torch.optim.SGD(again.parameters(), 1e-2, momentum=0.9)
    resumed = ntk.Trainer.resume(tmp_path / "checkpoint.pt", LINEAR, again, optimizer)
    for each in (trainer, resumed):
        each.fit(3, progress=False)
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), again.parameters(), strict=True))


def test_parameters_that_lie_transposed_are_trained_the_same() -> None:
    """Fused Adam pairs parameter and gradient element by element as they lie in memory."""
    plain = small_net()
    turned = copy.deepcopy(plain)
    for p in turned.parameters():
        p.data = p.data.mT.contiguous().mT if p.ndim == 2 else p.data
    for net in (plain, turned):
        ntk.Trainer(LINEAR, net).fit(5, progress=False)
    for p, q in zip(plain.parameters(), turned.parameters(), strict=True):
        assert torch.allclose(p, q, rtol=1e-12, atol=0)
        assert q.grad is not None and q.grad.stride() == q.stride()


def test_an_optimizer_that_is_assigned_is_the_one_that_steps() -> None:
    net = small_net()
    trainer = sgd_trainer(net)
    trainer.fit(2, progress=False)
    trainer.optimizer = torch.optim.SGD(net.parameters(), lr=0.0)
    before = [p.detach().clone() for p in net.parameters()]
    trainer.fit(2, progress=False)
    assert all(torch.equal(p, q) for p, q in zip(before, net.parameters(), strict=True))
    with pytest.raises(ValueError, match="expected an optimizer of this network's parameters"):
        trainer.optimizer = torch.optim.SGD(small_net().parameters(), lr=0.0)


def test_a_warning_of_the_users_is_shown_once_and_not_in_every_iteration() -> None:
    def target(at) -> Tensor:
        warnings.warn("from a target", UserWarning, stacklevel=1)
        return at.t

    problem = ntk.Problem(D, {"r": ntk.Condition(D, target=target, n=4)})
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("default")
        ntk.Trainer(problem, small_net()).fit(20, progress=False)
    assert len([w for w in shown if "from a target" in str(w.message)]) <= 2


def test_a_parameter_that_was_frozen_with_a_gradient_stays_where_it_is():
    iteration = iteration_of(LINEAR)
    weight = iteration.parameters["0.weight"].requires_grad_(False)
    weight.grad, before = torch.ones_like(weight), weight.clone()
    iteration.run(TRACES)
    assert torch.equal(weight, before)


def test_a_parameter_that_was_replaced_is_refused():
    iteration = iteration_of(LINEAR)
    layer = iteration.net.get_submodule("0")
    layer.weight = torch.nn.Parameter(layer.weight.detach().clone())
    with pytest.raises(ValueError, match=r"got another '0.weight': write into parameters in place"):
        iteration.run(TRACES)


def test_weights_that_are_not_finite_stop_a_run_before_anything_moves():
    tiny = ntk.Condition(D, lambda u: 1e-156 * u, n=5)
    problem = ntk.Problem(D, {"s": tiny, "r": ntk.Condition(D, lambda u: u.d(t=1), n=5)})
    net = ntk.MLP([2, 4, 1], dtype=torch.float64)
    before = copy.deepcopy(net.state_dict())
    trainer = ntk.Trainer(problem, net, ntk.NTKWeights(every=1))
    with pytest.raises(FloatingPointError, match="iteration 0: the weight of group 's'"):
        trainer.fit(3, progress=False)
    assert trainer.iteration == 0 and all(torch.equal(before[name], p) for name, p in net.state_dict().items())


class Warns(torch.optim.SGD):
    """Warns at its first step, as a capturable one does on a GPU that captures nothing."""

    def step(self, closure=None):
        if not hasattr(self, "warned"):
            self.warned = True
            warnings.warn("This instance was constructed with capturable=True", UserWarning, stacklevel=1)
        return super().step(closure)


def test_every_optimizer_warns_of_eager_steps_in_vain() -> None:
    iteration = iteration_of(LINEAR)
    for _ in range(2):
        iteration.optimizer = Warns(iteration.net.parameters(), 0.1)
        for _ in range(2):
            iteration.run(Kind())
