"""What a trainer is made of stays, or is replaced so that a resumed run is still the run."""

import pytest
import torch
from torch.optim.lr_scheduler import StepLR

import ntkfast as ntk
from ntkfast.training import exponential_decay

PROBLEM = ntk.problems.Wave1D()


def network() -> ntk.MLP:
    torch.manual_seed(0)
    return ntk.MLP([2, 8, 8, 1], standardize=PROBLEM.domain)


def sgd(net: torch.nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD(net.parameters(), 1e-4, momentum=0.9)


def halving(optimizer: torch.optim.Optimizer) -> StepLR:
    return StepLR(optimizer, step_size=2, gamma=0.5)


@pytest.mark.parametrize("name", ["problem", "net", "weights", "seed", "loss_weights"])
def test_what_a_trainer_was_made_of_cannot_be_replaced(name: str) -> None:
    trainer = ntk.Trainer(PROBLEM, network(), ntk.NTKWeights(), batch=12)
    before = getattr(trainer, name)
    with pytest.raises(AttributeError):
        setattr(trainer, name, before)
    assert trainer.problem is PROBLEM and trainer.seed == 0


def test_an_optimizer_is_not_replaced_beneath_its_scheduler() -> None:
    trainer = ntk.Trainer(PROBLEM, network(), batch=12)
    before = trainer.optimizer
    with pytest.raises(ValueError, match="no scheduler of the old optimizer .* got LambdaLR: assign trainer.scheduler"):
        trainer.optimizer = sgd(trainer.net)
    assert trainer.optimizer is before
    with pytest.raises(ValueError, match="got one of another optimizer"):
        trainer.scheduler = exponential_decay(sgd(trainer.net))
    with pytest.raises(TypeError, match="expected scheduler as a torch scheduler or a function, got float"):
        trainer.scheduler = 0.9
    assert trainer.scheduler.optimizer is before


@pytest.mark.parametrize("optimizer", [None, sgd], ids=["the default one", "another one"])
@pytest.mark.parametrize("scheduler", [None, halving], ids=["none", "another one"])
def test_a_run_with_a_replaced_optimizer_or_scheduler_is_resumed_bit_for_bit(tmp_path, optimizer, scheduler) -> None:
    nets = network(), network()
    trainer = ntk.Trainer(PROBLEM, nets[0], batch=12)
    trainer.fit(3, progress=False)
    trainer.scheduler = None
    if optimizer is not None:
        trainer.optimizer = optimizer(nets[0])
    trainer.scheduler = scheduler
    trainer.fit(3, out=tmp_path, progress=False)
    with pytest.raises(ValueError, match="expected an optimizer of the kind that the run was given, got None"):
        ntk.Trainer.resume(tmp_path / "checkpoint.pt", PROBLEM, nets[1])
    made = (optimizer or ntk.training.adam)(nets[1])
    resumed = ntk.Trainer.resume(tmp_path / "checkpoint.pt", PROBLEM, nets[1], made, scheduler)
    for each in (trainer, resumed):
        each.fit(5, progress=False)
    assert all(torch.equal(p, q) for p, q in zip(nets[0].parameters(), nets[1].parameters(), strict=True))
    rates = [each.optimizer.param_groups[0]["lr"] for each in (trainer, resumed)]
    assert rates[0] == rates[1]
