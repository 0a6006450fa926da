"""The examples run as a user runs them, and leave what they promise."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ntkfast.training.iteration import Iteration

EXAMPLES = Path(__file__).parents[1] / "examples"
FIGURES = {
    "error.png",
    "losses.png",
    "slices.png",
    "solution-none.png",
    "solution-ntk.png",
    "spectra-none.png",
    "spectra-ntk.png",
    "weights.png",
}


def run(folder: Path, script: str, *arguments: str) -> subprocess.CompletedProcess:
    """Run an example as a user does, in a process of its own."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, EXAMPLES / script, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.fixture
def main(tmp_path, monkeypatch, capsys):
    """Run an example's main in this process, which has torch and matplotlib already; its output."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    def call(name: str, *arguments: str) -> str:
        spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look themselves up
        spec.loader.exec_module(module)
        module.main(list(arguments))
        return capsys.readouterr().out

    return call


def refusal(main, capsys, name: str, *arguments: str) -> str:
    """What an example says where it stops: the message that it exits with, or what its parser wrote."""
    with pytest.raises(SystemExit) as stopped:
        main(name, *arguments)
    written = capsys.readouterr().err
    assert stopped.value.code not in (0, None)
    return stopped.value.code if isinstance(stopped.value.code, str) else written.splitlines()[-1]


def test_wave_writes_figures_summary_and_histories_and_resumes(tmp_path, main, capsys):
    done = run(tmp_path, "wave.py", "--smoke", "--out", "out")
    assert done.returncode == 0, done.stderr
    table = done.stdout
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == FIGURES
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert set(summary["runs"]) == {"ntk", "none"} and "machine" in summary
    for rule, found in summary["runs"].items():
        assert found["iterations"] == 40 and found["l2"] > 0 and found["seconds"] > 0
        assert f"{found['l2']:.2e}" in table
        assert (tmp_path / "out" / f"{rule}-seed0" / "history.jsonl").exists()

    # What is finished is skipped; what is not, or what is asked to go further, goes on from its checkpoint.
    (tmp_path / "out" / "ntk-seed0" / "run.json").unlink()
    smoke = ("wave", "--smoke", "--out", "out")
    assert "no weights, seed" not in main(*smoke, "--resume")
    resumed = main(*smoke, "--resume", "--iterations", "50", "--weights", "ntk")
    assert "no weights, seed" not in resumed
    assert "left out, as made from other settings: none-seed0\n" in resumed
    again = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert set(again["runs"]) == {"ntk"} and again["runs"]["ntk"]["iterations"] == 50
    records = (tmp_path / "out" / "ntk-seed0" / "history.jsonl").read_text().splitlines()
    assert {json.loads(line)["iteration"] for line in records} >= {0, 40, 50}

    # Other settings are not those of the run, and without --resume the folder of a run is its own again.
    for arguments, sentence in (
        (("--width", "17"), "--resume: expected --width 16 as in out/ntk-seed0, got 17"),
        (("--iterations", "45"), "--resume: expected --iterations of at least 50 as in out/ntk-seed0, got 45"),
    ):
        assert refusal(main, capsys, *smoke, "--resume", *arguments) == sentence
    main(*smoke, "--weights", "ntk", "--iterations", "0")
    records = (tmp_path / "out" / "ntk-seed0" / "history.jsonl").read_text().splitlines()
    assert {json.loads(line)["iteration"] for line in records} == {0}


@pytest.mark.usefixtures("ctrl_c")
def test_wave_goes_on_after_ctrl_c_as_if_there_had_been_none(tmp_path, main, capsys, monkeypatch):
    smoke = ("wave", "--smoke", "--weights", "ntk")
    main(*smoke, "--out", "whole")
    update, calls = Iteration.update, iter(range(100))

    def stopped(self):
        update(self)
        if next(calls) == 24:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Iteration, "update", stopped)
    sentence = "interrupted: the same command with --resume goes on from the checkpoints in out"
    assert refusal(main, capsys, *smoke, "--out", "out") == sentence
    assert "resumed at iteration 25\n" in main(*smoke, "--out", "out", "--resume")
    whole, resumed = (
        json.loads((tmp_path / name / "summary.json").read_text())["runs"]["ntk"]["l2"] for name in ("whole", "out")
    )
    assert whole == resumed


def test_wave_says_where_it_has_no_checkpoint_to_resume_from_and_gives_the_status_of_ctrl_c(main, monkeypatch):
    assert "no checkpoint in out/none-seed0: starting anew\n" in main(
        *("wave", "--smoke", "--weights", "none", "--iterations", "1", "--out", "out", "--resume")
    )

    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Iteration, "update", stopped)
    with pytest.raises(SystemExit) as found:
        main("wave", "--smoke", "--out", "out")
    assert found.value.code == 130


def test_wave_gives_medians_over_seeds(tmp_path, main):
    few = ("wave", "--smoke", "--out", "out", "--weights", "none", "--iterations", "2")
    assert "error.png shows all seeds, the other figures seed 4 of none\n" in main(*few, "--seed", "4", "--seeds", "3")
    (found,) = json.loads((tmp_path / "out" / "summary.json").read_text())["runs"].values()
    errors = sorted(seed["l2"] for seed in found["seeds"].values())
    assert len(errors) == 3 and found["l2"] == errors[1]
    assert "error.png" not in main(*few[:3], "again", *few[4:])


def test_wave_pools_runs_of_one_folder_only_where_their_settings_are_those_asked_for(tmp_path, main):
    def summary():
        return json.loads((tmp_path / "out" / "summary.json").read_text())["runs"]

    few = ("wave", "--smoke", "--out", "out", "--iterations", "2")
    main(*few, "--seeds", "2", "--weights", "none")
    assert "left out" not in main(*few, "--seed", "5", "--weights", "none")
    assert set(summary()["none"]["seeds"]) == {"0", "1", "5"}
    others = "left out, as made from other settings: none-seed0, none-seed1, none-seed5\n"
    assert others in main(*few, "--width", "8", "--weights", "ntk")
    assert set(summary()) == {"ntk"} and set(summary()["ntk"]["seeds"]) == {"0"}
    assert others in main("wave", "--figures-only", "--out", "out")
    assert summary()["ntk"]["settings"]["width"] == 8


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--iterations", "-1"), "--iterations: expected a whole number of at least 0, got -1"),
        (("--width", "0"), "--width: expected a whole number of at least 1, got 0"),
        (("--batch", "1"), "--batch: expected a whole number of at least 2, got 1"),
        (("--lr", "nan"), "--lr: expected a positive number, got nan"),
        (("--device", "cuda"), "--device: expected a device of this machine, got 'cuda', but torch finds no GPU"),
        (("--device", "abacus"), "--device: expected a device such as cpu or cuda, got 'abacus'"),
        (("--out", "file/below"), "--out: expected a folder that can be written, got 'file/below'"),
    ],
)
def test_wave_refuses_what_it_cannot_do(tmp_path, main, capsys, arguments, sentence):
    (tmp_path / "file").write_text("")
    assert sentence in refusal(main, capsys, "wave", "--smoke", *arguments)


def test_weights_work_in_a_loop_of_ones_own(tmp_path):
    done = run(tmp_path, "own_loop.py")
    assert done.returncode == 0, done.stderr
    weighted, unweighted = (float(line.split()[-1]) for line in done.stdout.splitlines())
    assert weighted < 0.2 * unweighted


def test_poisson_writes_figures_and_a_summary(tmp_path):
    done = run(tmp_path, "poisson1d.py", "--iterations", "30", "--width", "32", "--every", "10", "--out", "out")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == {
        "spectra.png",
        "drift.png",
        "modes.png",
        "solution.png",
    }
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert 0 < summary["kernel_drift"] < 1 and 0 < summary["parameter_drift"] < 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--iterations", "1"), "--iterations: expected at least 2, got 1"),
        (("--lr", "nan"), "--lr: expected a positive number, got nan"),
        (("--iterations", "2", "--out", "file/below"), "expected a folder that can be written, got 'file/below'"),
        (("--lr", "1", "--width", "32"), "expected finite residuals, got NaN or infinity; take a smaller --lr"),
    ],
)
def test_poisson_refuses_what_it_cannot_do(tmp_path, main, capsys, arguments, sentence):
    (tmp_path / "file").write_text("")
    assert sentence in refusal(main, capsys, "poisson1d", *arguments)


def test_poisson_draws_the_modes_that_a_narrow_network_has(tmp_path, main):
    main("poisson1d", "--iterations", "2", "--width", "1", "--out", "out")
    assert (tmp_path / "out" / "modes.png").exists()
