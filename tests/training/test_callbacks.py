"""Callbacks: checkpoints in time, and a bar that counts."""

from types import SimpleNamespace

from ntkfast.training import Checkpoints, History, Progress
from ntkfast.training.callbacks import shows_progress


def test_checkpoints_are_saved_when_it_is_time(tmp_path):
    saved = []
    trainer = SimpleNamespace(save=saved.append)
    every, never = Checkpoints(tmp_path / "a.pt", seconds=0), Checkpoints(tmp_path / "b.pt", seconds=1e6)
    for _ in range(3):
        every(trainer)
        never(trainer)
    assert saved == [tmp_path / "a.pt"] * 3


def test_the_bar_counts_iterations_and_shows_the_newest_losses(capsys):
    history = History()
    bar = Progress(2)
    for k in range(2):
        history.add(k, loss={"r": 0.125})
        bar(SimpleNamespace(history=history))
    bar.close()
    shown = capsys.readouterr().err
    assert "2/2" in shown and "r=1.2e-01" in shown


def test_a_bar_is_shown_as_asked_and_by_itself_only_on_a_terminal(monkeypatch):
    assert shows_progress(True) and not shows_progress(False)
    for terminal in (True, False):
        monkeypatch.setattr("sys.stderr.isatty", lambda terminal=terminal: terminal, raising=False)
        assert shows_progress(None) is terminal
