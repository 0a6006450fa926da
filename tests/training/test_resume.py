"""Resuming: a refusal changes nothing, counters come back, and a run finds its folder again."""

import copy

import pytest
import torch
from torch.optim.lr_scheduler import ChainedScheduler, LambdaLR, SequentialLR, StepLR

import ntkfast as ntk
from ntkfast.training import History
from ntkfast.training.resuming import PARTS

PROBLEM = ntk.problems.Wave1D()
D = PROBLEM.domain
RENAMED = ntk.Problem(D, {**PROBLEM.conditions, "left": ntk.Condition(D.at(x=0), n=100, group="v")})
MORE = ntk.Problem(D, {**PROBLEM.conditions, "left": ntk.Condition(D.at(x=0), n=101, group="u")})
FIT = {"record_every": 5, "progress": False}


def network() -> ntk.MLP:
    torch.manual_seed(0)
    return ntk.MLP([2, 8, 8, 1], standardize=D)


def trainer_of(net: torch.nn.Module, **options) -> ntk.Trainer:
    return ntk.Trainer(PROBLEM, net, **{"weights": ntk.NTKWeights(every=4), "batch": 12, **options})


def rate(net: torch.nn.Module) -> torch.optim.Adam:
    """An optimizer whose learning rate is a tensor, which schedulers write into in place."""
    return torch.optim.Adam(net.parameters(), lr=torch.tensor(1e-3), capturable=False, foreach=False)


def sgd(net: torch.nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD(net.parameters(), 1e-3, momentum=0.9)


def grouped(net: torch.nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD([{"params": [p]} for p in net.parameters()], 1e-3, momentum=0.9)


def warm(optimizer: torch.optim.Optimizer) -> LambdaLR:
    return LambdaLR(optimizer, lambda k: 0.1 * (k + 1))


def steps(optimizer: torch.optim.Optimizer) -> StepLR:
    return StepLR(optimizer, 5)


def in_turn(optimizer: torch.optim.Optimizer) -> SequentialLR:
    return SequentialLR(optimizer, [warm(optimizer), warm(optimizer)], [3])


def in_three_turns(optimizer: torch.optim.Optimizer) -> SequentialLR:
    return SequentialLR(optimizer, [warm(optimizer), steps(optimizer), warm(optimizer)], [3, 6])


def chained(optimizer: torch.optim.Optimizer) -> ChainedScheduler:
    return ChainedScheduler([warm(optimizer), steps(optimizer)])


def snapshot(optimizer: torch.optim.Optimizer) -> dict:
    return copy.deepcopy({**optimizer.state_dict(), "own": sorted(vars(optimizer)), "step": optimizer.step.__func__})


@pytest.mark.parametrize("made", [rate, sgd], ids=["tensor", "number"])
@pytest.mark.parametrize(
    ("problem", "then", "now", "error"),
    [
        (RENAMED, warm, warm, "with the groups"),
        (MORE, warm, warm, r"with the points \{.*'left': 100, .*got \{.*'left': 101, "),
        (PROBLEM, None, warm, "expected a scheduler"),
        (PROBLEM, steps, warm, "expected a scheduler"),
        (PROBLEM, warm, lambda optimizer: 0.1 * len(warm(optimizer).base_lrs), "makes float"),
        (PROBLEM, in_three_turns, in_turn, "a SequentialLR of the parts that the run's had"),
        (PROBLEM, chained, lambda optimizer: ChainedScheduler([warm(optimizer)]), "a ChainedScheduler of the parts"),
    ],
    ids=["problem", "points", "one too many", "another", "none at all", "too few in turn", "too few in a chain"],
)
def test_a_refused_resume_leaves_network_optimizer_and_random_numbers(tmp_path, made, problem, then, now, error):
    first = network()
    trainer = trainer_of(first, optimizer=made(first), scheduler=then)
    trainer.fit(3, **FIT)
    trainer.save(tmp_path / "checkpoint.pt")
    net = network()
    before, optimizer = copy.deepcopy(net.state_dict()), made(net)
    as_it_was, random, learning_rate = snapshot(optimizer), torch.get_rng_state(), optimizer.param_groups[0]["lr"]
    with pytest.raises((ValueError, TypeError), match=error):
        ntk.Trainer.resume(tmp_path / "checkpoint.pt", problem, net, optimizer, now)
    assert all(torch.equal(before[name], p) for name, p in net.state_dict().items())
    assert snapshot(optimizer) == as_it_was and optimizer.param_groups[0]["lr"] is learning_rate
    assert torch.equal(torch.get_rng_state(), random)


def test_an_optimizer_with_other_groups_is_refused_and_stays(tmp_path) -> None:
    first, net = network(), network()
    trainer_of(first, optimizer=sgd(first), scheduler=warm).save(tmp_path / "checkpoint.pt")
    optimizer = grouped(net)
    as_it_was = snapshot(optimizer)
    with pytest.raises(ValueError, match="different number of parameter groups"):
        ntk.Trainer.resume(tmp_path / "checkpoint.pt", PROBLEM, net, optimizer, warm)
    assert snapshot(optimizer) == as_it_was


@pytest.mark.parametrize("part", PARTS)
def test_a_checkpoint_without_one_of_its_parts_is_refused(tmp_path, part: str) -> None:
    path = tmp_path / "checkpoint.pt"
    trainer_of(network()).save(path)
    state = torch.load(path, weights_only=True)
    assert {*PARTS, "format"} == set(state)
    del state[part]
    torch.save(state, path)
    with pytest.raises(ValueError, match=f"expected a whole checkpoint, got .* without {part}"):
        ntk.Trainer.resume(path, PROBLEM, network())


def test_a_checkpoint_that_does_not_tell_the_points_of_its_problem_is_resumed(tmp_path) -> None:
    path = tmp_path / "checkpoint.pt"
    trainer = trainer_of(network())
    trainer.fit(2, **FIT)
    trainer.save(path)
    state = torch.load(path, weights_only=True)
    del state["problem"]["points"]
    torch.save(state, path)
    assert ntk.Trainer.resume(path, MORE, network()).iteration == 2


def test_a_resume_that_is_not_refused_drives_the_optimizer_that_was_given(tmp_path) -> None:
    first, net = network(), network()
    trainer_of(first, optimizer=sgd(first), scheduler=warm).save(tmp_path / "checkpoint.pt")
    optimizer = sgd(net)
    trainer = ntk.Trainer.resume(tmp_path / "checkpoint.pt", PROBLEM, net, optimizer, warm)
    trainer.fit(2, **FIT)
    assert trainer.optimizer is optimizer and optimizer.param_groups[0]["lr"] == pytest.approx(3e-4)


def test_weights_count_the_iterations_of_a_trainer_and_of_the_resumed_one(tmp_path) -> None:
    weights = ntk.NTKWeights(every=4)
    trainer = trainer_of(network(), weights=weights)
    trainer.fit(7, **FIT)
    assert weights.calls == trainer.iteration == 7 and not weights.due
    trainer.save(tmp_path / "checkpoint.pt")
    resumed = ntk.Trainer.resume(tmp_path / "checkpoint.pt", PROBLEM, network())
    assert resumed.weights.calls == 7
    resumed.fit(1, **FIT)
    assert resumed.weights.calls == 8 and resumed.weights.due


def test_a_checkpoint_of_iteration_0_goes_on_in_the_folder_of_its_run(tmp_path) -> None:
    whole, again = network(), network()
    trainer = trainer_of(whole)
    trainer.save(tmp_path / "start.pt")
    trainer.fit(6, out=tmp_path / "run", **FIT)
    resumed = ntk.Trainer.resume(tmp_path / "start.pt", PROBLEM, again)
    resumed.fit(6, out=tmp_path / "run", **FIT)
    assert History.load(tmp_path / "run").records == resumed.history.records
    assert all(torch.equal(p, q) for p, q in zip(whole.parameters(), again.parameters(), strict=True))


def test_a_new_run_that_has_only_looked_does_not_overwrite_the_history_of_another(tmp_path) -> None:
    trainer_of(network()).fit(6, out=tmp_path, **FIT)
    new = trainer_of(network(), seed=1)
    new.fit(0, **FIT)
    with pytest.raises(ValueError, match="without the history of another run"):
        new.fit(6, out=tmp_path, **FIT)
