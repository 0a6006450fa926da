"""The captured step: graphs change no number of a run, and whatever cannot be captured is said and runs eagerly."""

from __future__ import annotations

import copy
import gc
import warnings
import weakref

import pytest
import torch
from tape_graph import TapeGraph
from trained_problems import PROBLEM, PROBLEMS, D

import ntkfast as ntk
from ntkfast import tape
from ntkfast.training import capture, exponential_decay, trainer
from ntkfast.training.iteration import Kind

FIT = {"record_every": 5, "error_every": 10, "progress": False}


def network(dtype: torch.dtype = torch.float64) -> ntk.MLP:
    torch.manual_seed(0)
    return ntk.MLP([2, 8, 8, 1], standardize=PROBLEM.domain, dtype=dtype)


def capturable(net: torch.nn.Module) -> torch.optim.Adam:
    """Adam as it is made for a CUDA device; the CPU's takes the same."""
    return torch.optim.Adam(net.parameters(), lr=torch.tensor(1e-2), fused=True, capturable=True)


def trainer_of(net: torch.nn.Module, problem: ntk.Problem = PROBLEM, **options) -> ntk.Trainer:
    defaults = {"weights": ntk.NTKWeights(every=4), "optimizer": capturable(net)}
    defaults["batch"] = 12 if problem is PROBLEM else None
    return ntk.Trainer(problem, net, scheduler=exponential_decay, **{**defaults, **options})


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> type[TapeGraph]:
    """Let trainers on the CPU capture, as far as optimizer and problem allow it."""
    monkeypatch.setattr(trainer, "CudaGraph", TapeGraph)
    monkeypatch.setattr(
        trainer, "capture_refusal", lambda i, problem: capture.host_state(i.optimizer) or capture.host_draws(problem)
    )
    monkeypatch.setattr(TapeGraph, "captured", 0)
    monkeypatch.setattr(TapeGraph, "replayed", 0)
    return TapeGraph


def records(history: ntk.training.History) -> dict:
    return {k: {f: v for f, v in r.items() if f != "seconds"} for k, r in history.records.items()}


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
@pytest.mark.parametrize("fresh", [None, 9], ids=["own", "fresh"])
def test_a_captured_run_is_the_eager_run_bit_for_bit(graphs, problem: ntk.Problem, fresh: int | None) -> None:
    eager, captured = network(), network()
    group = list(trainer_of(network(), problem).loss_weights)[0]
    weights = lambda: ntk.NTKWeights(every=4, points=fresh and {group: fresh})  # noqa: E731
    first = trainer_of(eager, problem, weights=weights())
    second = trainer_of(captured, problem, weights=weights())
    histories = first.fit(61, capture=False, **FIT), second.fit(61, capture=True, **FIT)
    assert graphs.captured == 3, "plain steps, recorded ones, and those that renew the weights"
    assert graphs.replayed > 40
    assert records(histories[0]) == records(histories[1])
    assert all(torch.equal(p, q) for p, q in zip(eager.parameters(), captured.parameters(), strict=True))
    for name in ("lam", "traces"):
        ours, theirs = getattr(first.weights, name), getattr(second.weights, name)
        assert {k: v.item() for k, v in ours.items()} == {k: v.item() for k, v in theirs.items()}


def test_loss_weights_learning_rate_and_points_keep_changing_under_capture(graphs) -> None:
    seen: list[tuple[float, float, float]] = []

    def look(trainer: ntk.Trainer) -> None:
        if graphs.replayed:
            rate = trainer.optimizer.param_groups[0]["lr"]
            seen.append((trainer.loss_weights["u"], float(rate), trainer.history.loss["r"][-1]))

    weights = ntk.NTKWeights(every=1)
    trainer_of(network(), weights=weights).fit(30, record_every=1, error_every=1000, progress=False, callbacks=[look])
    assert graphs.captured == 1 and len(seen) > 20
    for series in zip(*seen, strict=True):
        assert len(set(series)) == len(seen)


def test_a_run_goes_on_after_a_checkpoint(graphs, tmp_path) -> None:
    whole, part = network(), network()
    history = trainer_of(whole).fit(40, **FIT)
    trainer_of(part).fit(23, out=tmp_path, **FIT)
    net = network()
    second = ntk.Trainer.resume(tmp_path / "checkpoint.pt", PROBLEM, net, capturable(net), exponential_decay)
    second.fit(17, **FIT)
    assert all(torch.equal(p, q) for p, q in zip(whole.parameters(), net.parameters(), strict=True))
    assert records(second.history)[35] == records(history)[35]


def test_parameters_that_are_replaced_during_the_run_are_trained(graphs) -> None:
    """A callback that moves parameters elsewhere: the graphs, which know the old place, are thrown away."""

    def move(trainer: ntk.Trainer) -> None:
        if trainer.iteration == 20:
            for p in trainer.net.parameters():
                p.data = p.data.clone()

    nets = network(), network()
    trainer_of(nets[0]).fit(40, capture=False, **FIT)
    trainer_of(nets[1]).fit(40, callbacks=[move], **FIT)
    assert graphs.captured > 3
    assert all(torch.equal(p, q) for p, q in zip(nets[0].parameters(), nets[1].parameters(), strict=True))


def at_iteration_20(change) -> list:
    return [lambda trainer: change(trainer) if trainer.iteration == 20 else None]


def decays(trainer: ntk.Trainer) -> None:
    trainer.optimizer.param_groups[0]["weight_decay"] = 0.1


def starts_anew(trainer: ntk.Trainer) -> None:
    trainer.optimizer.state.clear()


def standardizes(trainer: ntk.Trainer) -> None:
    trainer.net.standardize.std = 2 * trainer.net.standardize.std


def normalizes(trainer: ntk.Trainer) -> None:
    trainer.weights.normalize = "sum"


@pytest.mark.parametrize("change", [decays, starts_anew, standardizes, normalizes])
def test_what_a_callback_changes_on_the_host_counts_under_capture(graphs, change) -> None:
    nets = network(), network()
    for net, capture_wanted in zip(nets, (False, True), strict=True):
        trainer_of(net).fit(40, capture=capture_wanted, callbacks=at_iteration_20(change), **FIT)
    assert graphs.replayed > 10
    assert all(torch.equal(p, q) for p, q in zip(nets[0].parameters(), nets[1].parameters(), strict=True))


def test_another_optimizer_counts_and_one_with_its_state_on_the_host_ends_the_capture(graphs) -> None:
    def swaps(trainer: ntk.Trainer) -> None:
        trainer.scheduler = None
        trainer.optimizer = torch.optim.SGD(trainer.net.parameters(), 1e-3)

    nets = network(), network()
    trainer_of(nets[0]).fit(40, capture=False, callbacks=at_iteration_20(swaps), **FIT)
    made = trainer_of(nets[1])
    with pytest.warns(RuntimeWarning, match="SGD has no form that can be captured"):
        made.fit(40, callbacks=at_iteration_20(swaps), **FIT)
    assert graphs.replayed > 0
    assert all(torch.equal(p, q) for p, q in zip(nets[0].parameters(), nets[1].parameters(), strict=True))


def test_momentum_that_a_schedule_cycles_is_never_frozen(graphs) -> None:
    def cycle(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=100)

    nets = network(), network()
    made = [ntk.Trainer(PROBLEM, net, optimizer=capturable(net), scheduler=cycle, batch=12) for net in nets]
    made[0].fit(40, capture=False, **FIT)
    with pytest.warns(RuntimeWarning, match="something that a graph would freeze changes from iteration to iteration"):
        made[1].fit(40, **FIT)
    assert all(torch.equal(p, q) for p, q in zip(nets[0].parameters(), nets[1].parameters(), strict=True))


def test_an_iteration_that_cannot_be_captured_runs_eagerly_and_says_why(graphs) -> None:
    looks = ntk.Problem(D, {"r": ntk.Condition(D, target=lambda at: at.t * float(at.t.sum()), n=9)})
    nets = network(), network()
    first, second = trainer_of(nets[0], looks), trainer_of(nets[1], looks)
    first.fit(30, capture=False, **FIT)
    with pytest.warns(RuntimeWarning, match="eagerly and not as a CUDA graph: torch could not capture"):
        second.fit(30, **FIT)
    assert second.eager_because.startswith("torch could not capture an iteration: operation not permitted")
    assert all(torch.equal(p, q) for p, q in zip(nets[0].parameters(), nets[1].parameters(), strict=True))
    with pytest.raises(ValueError, match="expected iterations that a CUDA graph can hold"):
        trainer_of(network(), looks).fit(30, capture=True, **FIT)


@pytest.mark.parametrize(
    ("optimizer", "where", "reason"),
    [
        (lambda p: torch.optim.SGD(p, 1e-3), D, "SGD has no form that can be captured"),
        (lambda p: torch.optim.Adam(p), D, "Adam keeps its step count on the host: make it with capturable=True"),
        (lambda p: torch.optim.Adam(p, capturable=True, fused=True), D, "Adam keeps its learning rate on the host"),
        (None, lambda n, g: torch.rand(n, 2, generator=g), "condition 'r' draws its points by a function"),
    ],
    ids=["form", "steps", "rate", "points"],
)
def test_what_lives_on_the_host_is_not_captured(graphs, optimizer, where, reason: str) -> None:
    net = network(torch.float32)
    chosen = capturable(net) if optimizer is None else optimizer(net.parameters())
    made = trainer_of(net, ntk.Problem(D, {"r": ntk.Condition(where, n=9)}), optimizer=chosen)
    assert made.eager_because.startswith(reason)
    made.fit(12, **FIT)
    assert graphs.captured == 0
    with pytest.raises(ValueError, match=f"a CUDA graph can hold, got some it cannot: {reason}"):
        made.fit(1, capture=True, **FIT)


def test_without_a_gpu_nothing_is_captured_and_nothing_is_warned_of(recwarn) -> None:
    made = trainer_of(network())
    made.fit(5, **FIT)
    assert made.eager_because == "the network is on cpu" and not recwarn.list
    made.fit(1, capture=False, **FIT)
    assert made.eager_because == "capture=False"


def test_a_wait_for_the_device_is_found_before_the_capture(graphs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The watch of the second iteration refuses, and the iteration is done again with the same points."""
    nets = network(), network()
    trainer_of(nets[0]).fit(30, capture=False, **FIT)
    made = trainer_of(nets[1])
    draw, under_watch = made._step.draw, []

    def waits() -> object:
        batch = draw()
        if made._captured._eager[Kind()] == 2 and not under_watch:
            under_watch.append(True)
            raise RuntimeError("called a synchronizing CUDA operation")
        return batch

    monkeypatch.setattr(made._step, "draw", waits)
    with pytest.warns(RuntimeWarning, match="an iteration waits for the device: raise RuntimeError"):
        made.fit(30, **FIT)
    assert graphs.captured == 0
    assert all(torch.equal(p, q) for p, q in zip(nets[0].parameters(), nets[1].parameters(), strict=True))


def test_a_copy_of_the_network_is_none_of_the_graphs_business(graphs) -> None:
    net = network()
    made = trainer_of(net)
    made.fit(30, **FIT)
    kept = copy.deepcopy(net)
    made.fit(10, **FIT)
    assert not all(torch.equal(p, q) for p, q in zip(net.parameters(), kept.parameters(), strict=True))


def test_coefficients_that_vary_inside_of_a_nonlinear_residual_are_captured(graphs, monkeypatch) -> None:
    """Whether they are those of the first run nobody asks the device; the CPU would be asked."""

    def rows(u, at):
        return u.d(t=1) - (1 + at.x**2) * u.d(x=2) + at.t * u.d(x=1) + u**3

    problem = ntk.Problem(D, {"r": ntk.Condition(D, rows, n=9)})
    nets = network(), network()
    trainer_of(nets[0], problem).fit(30, capture=False, **FIT)
    monkeypatch.setattr(tape, "_may_look", lambda *_: False)
    made = trainer_of(nets[1], problem)
    made.fit(30, capture=True, **FIT)
    assert made.eager_because is None and graphs.replayed > 10
    assert all(torch.equal(p, q) for p, q in zip(nets[0].parameters(), nets[1].parameters(), strict=True))


def test_a_trainer_that_is_dropped_frees_its_graphs_at_once(graphs) -> None:
    """Python's collector would free them at any time, also while another graph is captured, which breaks that."""
    made = trainer_of(network())
    made.fit(30, **FIT)
    found = [weakref.ref(graph) for graph, *_ in made._captured._graphs.values()]
    enabled = gc.isenabled()
    gc.disable()
    try:
        del made
        assert found and not any(ref() for ref in found)
    finally:
        if enabled:
            gc.enable()


def test_a_learning_rate_on_another_device_is_not_captured() -> None:
    optimizer = capturable(network())
    optimizer.param_groups[0]["lr"] = torch.empty((), device="meta")  # a fused Adam on a GPU takes one on the host
    assert str(capture.host_state(optimizer)).startswith("Adam keeps its lr on meta: make it on the device")
    optimizer = capturable(network())
    optimizer.param_groups[0]["betas"] = (0.9, torch.empty((), device="meta"))
    assert str(capture.host_state(optimizer)).startswith("Adam keeps its betas on meta")


def test_the_watch_sets_the_mode_of_torch_and_puts_it_back(monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[object] = [0]

    def set_mode(mode: object) -> None:
        warnings.warn("a prototype feature", UserWarning, stacklevel=1)
        modes.append(mode)

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: modes[0])
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", set_mode)
    with pytest.raises(ZeroDivisionError), capture.no_waits():
        raise ZeroDivisionError
    assert modes == [0, "error", 0]
