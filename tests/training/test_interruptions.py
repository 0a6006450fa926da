"""An error or Ctrl-C in the middle of a run: what moved is counted, the rest can be done again, files are closed."""

import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR

import ntkfast as ntk
from ntkfast.training import History

pytestmark = pytest.mark.usefixtures("ctrl_c")
D = ntk.Box(t=(0, 1), x=(0, 1))
FIT = {"record_every": 2, "error_every": 2, "progress": False}


class Once:
    """Does nothing but raise at one of its calls, or press Ctrl-C then, if it is armed."""

    def __init__(self) -> None:
        self.calls_left = -1
        self.presses = 0

    def arm(self, calls: int, presses: int = 0) -> None:
        self.calls_left, self.presses = calls, presses

    def __call__(self, *_: object) -> None:
        self.calls_left -= 1
        if self.calls_left == 0:
            for _ in range(self.presses):
                signal.raise_signal(signal.SIGINT)
            if not self.presses:
                raise ConnectionError("once")


class Parts:
    """A run whose every piece of the user's code can raise; its learning rate decays by a factor an iteration."""

    def __init__(self, decay: float = 0.9) -> None:
        self.decay = decay
        names = ("points", "target", "exact", "optimizer", "moved", "scheduler", "callback", "record")
        self.once = {name: Once() for name in names}
        torch.manual_seed(0)
        self.net = ntk.MLP([2, 7, 6, 1], dtype=torch.float64)

        def points(n: int, generator: torch.Generator) -> torch.Tensor:
            drawn = torch.rand(n, 2, generator=generator)
            self.once["points"]()
            return drawn

        def target(at) -> torch.Tensor:
            self.once["target"]()
            return at.t

        def exact(at) -> torch.Tensor:
            self.once["exact"]()
            return at.t * at.x

        self.problem = ntk.Problem(
            D,
            {
                "a": ntk.Condition(points, lambda u: u.d(t=1), target, n=5),
                "b": ntk.Condition(D, lambda u: {"b": u}, n=4),
            },
            exact=exact,
        )

    def optimizer(self) -> torch.optim.Optimizer:
        optimizer = torch.optim.SGD(self.net.parameters(), 1e-2, momentum=0.9)
        optimizer.register_step_pre_hook(lambda *_: self.once["optimizer"]())
        optimizer.register_step_post_hook(lambda *_: self.once["moved"]())
        return optimizer

    def scheduler(self, optimizer: torch.optim.Optimizer) -> LambdaLR:
        def factor(k: int) -> float:
            self.once["scheduler"]()
            return self.decay**k

        return LambdaLR(optimizer, factor)

    def trainer(self) -> ntk.Trainer:
        weights = ntk.NTKWeights(every=3, points={"b": 3})
        trainer = ntk.Trainer(self.problem, self.net, weights, self.optimizer(), self.scheduler, seed=2)
        add = trainer.history.add

        def record(*arguments, **fields) -> None:
            self.once["record"]()
            add(*arguments, **fields)

        trainer.history.add = record
        return trainer

    def resumed(self, path: Path) -> ntk.Trainer:
        return ntk.Trainer.resume(path, self.problem, self.net, self.optimizer(), self.scheduler)

    def flat(self) -> torch.Tensor:
        return torch.cat([p.detach().flatten() for p in self.net.parameters()])


@pytest.mark.parametrize("calls", [1, 3, 4])
@pytest.mark.parametrize("part", ["points", "target", "exact", "optimizer", "scheduler", "callback", "record"])
def test_a_run_goes_on_after_an_error_and_resumes_as_if_there_had_been_none(tmp_path, part: str, calls: int) -> None:
    decay = 1.0 if part == "scheduler" else 0.9  # the step of a scheduler that raises is lost
    whole, broken, resumed = Parts(decay), Parts(decay), Parts(decay)
    whole.trainer().fit(14, **FIT)
    trainer = broken.trainer()
    trainer.fit(2, **FIT)
    broken.once[part].arm(calls)
    with pytest.raises(ConnectionError):
        trainer.fit(12, callbacks=[broken.once["callback"]], **FIT)
    assert trainer.weights.calls == trainer.iteration
    trainer.save(tmp_path / "checkpoint.pt")
    again = resumed.resumed(tmp_path / "checkpoint.pt")
    for each in (trainer, again):
        each.fit(14 - each.iteration, **FIT)
    assert torch.equal(broken.flat(), whole.flat())
    assert torch.equal(resumed.flat(), whole.flat())


@pytest.mark.parametrize("calls", [1, 3])
@pytest.mark.parametrize("part", ["points", "exact", "optimizer", "moved", "scheduler", "callback", "record"])
def test_a_run_that_ctrl_c_stops_leaves_a_checkpoint_and_resumes_bit_for_bit(tmp_path, part: str, calls: int) -> None:
    whole, broken, resumed = Parts(), Parts(), Parts()
    whole_run, trainer = whole.trainer(), broken.trainer()
    whole_run.fit(14, out=tmp_path / "whole", **FIT)
    broken.once[part].arm(calls, presses=1)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(14, out=tmp_path, callbacks=[broken.once["callback"]], **FIT)
    assert 0 < trainer.iteration < 14 and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    again = resumed.resumed(tmp_path / "checkpoint.pt")
    assert again.iteration == trainer.iteration
    again.fit(14 - again.iteration, out=tmp_path, **FIT)
    assert torch.equal(resumed.flat(), whole.flat())
    for records in (again.history.records, whole_run.history.records):
        for record in records.values():
            record.pop("seconds", None)
    assert again.history.records == whole_run.history.records


def test_ctrl_c_in_the_last_record_lets_the_run_end(tmp_path) -> None:
    parts = Parts()
    trainer = parts.trainer()
    parts.once["target"].arm(1, presses=1)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(0, out=tmp_path, **FIT)
    assert "loss" in Parts().resumed(tmp_path / "checkpoint.pt").history.records[0]


def test_a_second_ctrl_c_does_not_wait_and_leaves_the_checkpoint_that_is_there(tmp_path) -> None:
    parts = Parts()
    trainer = parts.trainer()
    trainer.fit(2, out=tmp_path, **FIT)
    parts.once["moved"].arm(1, presses=2)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(12, out=tmp_path, **FIT)
    assert Parts().resumed(tmp_path / "checkpoint.pt").iteration == 2
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_error_on_the_points_of_the_last_record_draws_none() -> None:
    whole, broken = Parts(), Parts()
    whole.trainer().fit(6, **FIT)
    trainer = broken.trainer()
    broken.once["target"].arm(1)
    with pytest.raises(ConnectionError):
        trainer.fit(0, **FIT)
    trainer.fit(6, **FIT)
    assert torch.equal(broken.flat(), whole.flat())


def test_weights_that_stop_a_run_are_not_taken_over() -> None:
    tiny = ntk.Condition(D, lambda u: 1e-156 * u, n=5)
    problem = ntk.Problem(D, {"s": tiny, "r": ntk.Condition(D, lambda u: u.d(t=1), n=5)})
    trainer = ntk.Trainer(problem, ntk.MLP([2, 4, 1], dtype=torch.float64), ntk.NTKWeights(every=1))
    with pytest.raises(FloatingPointError):
        trainer.fit(3, progress=False)
    assert trainer.loss_weights == {"s": 1.0, "r": 1.0} and trainer.weights.lam == {}


def stream_of(history: History, monkeypatch: pytest.MonkeyPatch) -> Callable[[], object]:
    """The file that a history streams to, also after it was closed."""
    files, stream = [], history.stream

    def watched(folder) -> None:
        stream(folder)
        files.append(history._stream)

    monkeypatch.setattr(history, "stream", watched)
    return lambda: files[-1]


def test_a_bar_that_cannot_be_shown_leaves_no_file_open(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Parts().trainer()
    opened = stream_of(trainer.history, monkeypatch)
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(ImportError):
        trainer.fit(2, out=tmp_path, progress=True)
    assert trainer.history._stream is None and opened().closed
    trainer.fit(2, out=tmp_path, **FIT)
    assert opened().closed and trainer.iteration == 2
