"""The examples run as a user runs them, and leave what they promise."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

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
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, EXAMPLES / script, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def smoke(folder: Path, *arguments: str) -> str:
    done = run(folder, "wave.py", "--smoke", "--out", "out", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_wave_writes_figures_summary_and_histories_and_resumes(tmp_path):
    table = smoke(tmp_path)
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == FIGURES
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert set(summary["runs"]) == {"ntk", "none"} and "machine" in summary
    for rule, found in summary["runs"].items():
        assert found["iterations"] == 40 and found["l2"] > 0 and found["seconds"] > 0
        assert f"{found['l2']:.2e}" in table
        assert (tmp_path / "out" / f"{rule}-seed0" / "history.jsonl").exists()

    # What is finished is skipped; what is not, or what is asked to go further, goes on from its checkpoint.
    (tmp_path / "out" / "ntk-seed0" / "run.json").unlink()
    assert "no weights, seed" not in smoke(tmp_path, "--resume")
    resumed = smoke(tmp_path, "--resume", "--iterations", "50", "--weights", "ntk")
    assert "no weights, seed" not in resumed
    again = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert again["runs"]["ntk"]["iterations"] == 50
    assert again["runs"]["none"] == summary["runs"]["none"]
    records = (tmp_path / "out" / "ntk-seed0" / "history.jsonl").read_text().splitlines()
    assert {json.loads(line)["iteration"] for line in records} >= {0, 40, 50}

    # Other settings are not those of the run, and without --resume the folder of a run is its own again.
    for arguments, sentence in (
        (("--width", "17"), "--resume: expected --width 16 as in out/ntk-seed0, got 17"),
        (("--iterations", "45"), "--resume: expected --iterations of at least 50 as in out/ntk-seed0, got 45"),
    ):
        done = run(tmp_path, "wave.py", "--smoke", "--out", "out", "--resume", *arguments)
        assert done.returncode != 0 and done.stderr.strip() == sentence
    smoke(tmp_path, "--weights", "ntk", "--iterations", "0")
    records = (tmp_path / "out" / "ntk-seed0" / "history.jsonl").read_text().splitlines()
    assert {json.loads(line)["iteration"] for line in records} == {0}


def test_wave_gives_medians_over_seeds(tmp_path):
    smoke(tmp_path, "--seeds", "3", "--weights", "none", "--iterations", "2")
    (found,) = json.loads((tmp_path / "out" / "summary.json").read_text())["runs"].values()
    errors = sorted(seed["l2"] for seed in found["seeds"].values())
    assert len(errors) == 3 and found["l2"] == errors[1]


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
def test_wave_refuses_what_it_cannot_do(tmp_path, arguments, sentence):
    (tmp_path / "file").write_text("")
    done = run(tmp_path, "wave.py", "--smoke", *arguments)
    assert done.returncode == 2 and sentence in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr


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


def test_poisson_refuses_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    done = run(tmp_path, "poisson1d.py", "--iterations", "2", "--out", "file/below")
    assert done.returncode != 0 and "expected a folder that can be written, got 'file/below'" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--iterations", "1"), "--iterations: expected at least 2, got 1"),
        (("--lr", "nan"), "--lr: expected a positive number, got nan"),
        (("--lr", "1", "--width", "32"), "expected finite residuals, got NaN or infinity; take a smaller --lr"),
    ],
)
def test_poisson_refuses_what_it_cannot_do(tmp_path, arguments, sentence):
    done = run(tmp_path, "poisson1d.py", *arguments)
    assert done.returncode != 0 and sentence in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr


def test_poisson_draws_the_modes_that_a_narrow_network_has(tmp_path):
    done = run(tmp_path, "poisson1d.py", "--iterations", "2", "--width", "1", "--out", "out")
    assert done.returncode == 0, done.stderr
