"""A PINN of the wave equation, with NTK weights against without: what adaptive loss weights do, in one command.

    python examples/wave.py                     # a few minutes on two cores
    python examples/wave.py --preset paper      # the paper's network, 80 001 iterations; --resume goes on after a stop

Every figure, a summary.json and the history of each run go to the folder given by --out.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

# Read when torch is loaded: threads that wait spin briefly; for long, they would slow a busy machine down many times.
os.environ.setdefault("GOMP_SPINCOUNT", "20000")

import numpy as np
import torch

import ntkfast as ntk
from ntkfast import plots
from ntkfast.problems import predict
from ntkfast.training import History, adam, exponential_decay, writable_folder

LABELS = {"ntk": "NTK weights", "none": "no weights"}
GRID = 200  # points per axis of the error and of the maps
SLICES = (0.0, 0.35, 0.7)
FILES = ("settings.json", "history.jsonl", "checkpoint.pt", "prediction.npz", "run.json")  # of a run, in this order


@dataclass(frozen=True)
class Settings:
    """What a run is made from; the presets are values of it."""

    width: int = 100
    depth: int = 3
    iterations: int = 16_000
    batch: int = 300
    lr: float = 1e-3
    every: int = 100


# Quick takes twice the paper's learning rate, with weights and without: a small network has few iterations to learn in.
PRESETS = {"quick": Settings(lr=2e-3), "paper": Settings(width=500, iterations=80_001)}
SMOKE = Settings(width=16, depth=2, iterations=40, batch=30, every=10)


def main(argv: list[str] | None = None) -> None:
    """Train what was asked for, then draw every run of these settings that the folder holds."""
    args, settings = parse(argv)
    try:
        train_and_draw(args, settings, Path(args.out))
    except KeyboardInterrupt:
        print(
            f"interrupted: the same command with --resume goes on from the checkpoints in {args.out}", file=sys.stderr
        )
        sys.exit(130)  # as a shell has it for a command that Ctrl-C stopped


def train_and_draw(args: argparse.Namespace, settings: Settings, out: Path) -> None:
    """Do what the command line asks for."""
    if not args.figures_only:
        runs = {(rule, seed): out / f"{rule}-seed{seed}" for seed in args.seeds for rule in args.weights}
        if args.resume:
            for folder in runs.values():
                check_stored(folder, stored_settings(settings, args))
        for (rule, seed), folder in runs.items():
            train(rule, seed, settings, args, folder)
    runs = finished(out, None if args.figures_only else stored_settings(settings, args))
    if not runs:
        sys.exit(f"no finished run in {out}")
    draw(runs, out)
    summary = summarise(runs)
    (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    print_table(summary, out)


def parse(argv: list[str] | None) -> tuple[argparse.Namespace, Settings]:
    """Read the command line: what to do, and the preset with the flags that were given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, help="default: quick on a CPU, paper on a GPU")
    parser.add_argument("--width", type=int, help="neurons of a hidden layer")
    parser.add_argument("--depth", type=int, help="hidden layers")
    parser.add_argument("--iterations", type=int, help="in all, those of a resumed run included; 0 trains nothing")
    parser.add_argument("--batch", type=int, help="interior points; a third as many on the start and on either end")
    parser.add_argument("--lr", type=float, help="learning rate at the start; it decays by 0.9 per 1000 iterations")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds, counted up from --seed")
    parser.add_argument("--weights", nargs="+", choices=LABELS, default=list(LABELS))
    parser.add_argument("--every", type=int, help="iterations between two updates of the NTK weights")
    gpu = torch.cuda.is_available() and ntk.cuda_built
    parser.add_argument("--device", default="cuda" if gpu else "cpu", help="default: the GPU, where there is one")
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--out", help="folder for figures, summary.json and one folder a run")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on from the checkpoints in --out, with the same settings or more iterations; skip what is finished",
    )
    parser.add_argument(
        "--figures-only",
        action="store_true",
        help="train nothing, draw the runs in --out that have the settings of the newest one",
    )
    parser.add_argument("--smoke", action="store_true", help="a tiny network for a few seconds: does everything run?")
    args = parser.parse_args(argv)
    try:
        kind = torch.device(args.device).type
    except RuntimeError:
        parser.error(f"--device: expected a device such as cpu or cuda, got {args.device!r}")
    if kind == "cuda" and not torch.cuda.is_available():
        parser.error(f"--device: expected a device of this machine, got {args.device!r}, but torch finds no GPU")
    args.preset = args.preset or ("quick" if kind == "cpu" else "paper")
    given = {name: getattr(args, name) for name in vars(SMOKE) if getattr(args, name) is not None}
    settings = replace(SMOKE if args.smoke else PRESETS[args.preset], **given)
    for name, number in {**vars(settings), "seeds": args.seeds}.items():
        least = {"iterations": 0, "batch": 2, "lr": sys.float_info.min}.get(name, 1)
        if not number >= least:
            wanted = "a positive number" if name == "lr" else f"a whole number of at least {least}"
            parser.error(f"--{name}: expected {wanted}, got {number}")
    args.weights = list(dict.fromkeys(args.weights))
    args.seeds = range(args.seed, args.seed + args.seeds)
    args.out = args.out or f"runs/wave-{'smoke' if args.smoke else args.preset}"
    if not args.figures_only:
        try:
            writable_folder(args.out)
        except ValueError as error:
            parser.error(f"--out: {error}")
    return args, settings


def stored_settings(settings: Settings, args: argparse.Namespace) -> dict[str, object]:
    """Return all that tells the runs of a folder apart beside rule and seed, as their settings.json has it."""
    return {**vars(settings), "device": args.device, "dtype": args.dtype}


def check_stored(folder: Path, settings: dict[str, object]) -> None:
    """Stop if the run in a folder was made from other settings, or has gone further than it is asked to go."""
    path = folder / "settings.json"
    if not path.exists():
        return
    stored = json.loads(path.read_text(encoding="utf-8"))
    for name in settings:
        if stored.get(name) != settings[name] and name != "iterations":
            sys.exit(f"--resume: expected --{name} {stored.get(name)} as in {folder}, got {settings[name]}")
    if settings["iterations"] < stored["iterations"]:
        sys.exit(
            f"--resume: expected --iterations of at least {stored['iterations']} as in {folder}, "
            f"got {settings['iterations']}"
        )


def train(rule: str, seed: int, settings: Settings, args: argparse.Namespace, folder: Path) -> None:
    """Train one network, or what is left of it, and store what the figures need."""
    run_file, checkpoint = folder / "run.json", folder / "checkpoint.pt"
    resumed = args.resume and checkpoint.exists()
    if resumed and run_file.exists():
        if json.loads(run_file.read_text(encoding="utf-8"))["iterations"] >= settings.iterations:
            return
    print(f"{LABELS[rule]}, seed {seed}: {settings}", flush=True)
    problem = ntk.problems.Wave1D()
    torch.manual_seed(seed)
    net = ntk.MLP(
        [2, *[settings.width] * settings.depth, 1],
        activation="tanh",
        init="glorot_normal",
        standardize=problem.domain,
        dtype=getattr(torch, args.dtype),
        device=args.device,
    )
    optimizer = adam(net, settings.lr)
    all_settings = stored_settings(settings, args)
    if resumed:
        try:
            trainer = ntk.Trainer.resume(checkpoint, problem, net, optimizer, exponential_decay)
        except ValueError as error:
            sys.exit(f"--resume: {error}")
        print(f"resumed at iteration {trainer.iteration}", flush=True)
        run_file.unlink(missing_ok=True)
    else:
        if args.resume:
            print(f"no checkpoint in {folder}: starting anew", flush=True)
        for name in FILES:
            (folder / name).unlink(missing_ok=True)
        weights = ntk.NTKWeights(every=settings.every) if rule == "ntk" else None
        trainer = ntk.Trainer(problem, net, weights, optimizer, exponential_decay, seed=seed, batch=settings.batch)
    (writable_folder(folder) / "settings.json").write_text(json.dumps(all_settings, indent=2) + "\n", encoding="utf-8")
    history = trainer.fit(
        max(0, settings.iterations - trainer.iteration),
        out=folder,
        error_every=max(1, settings.iterations // 100),
        spectra=spectrum_iterations(settings.iterations),
        checkpoint_seconds=180.0,
    )
    grid = problem.domain.grid(GRID)
    u = predict(net, grid).reshape(GRID, GRID).numpy().astype(np.float32)
    np.savez_compressed(folder / "prediction.npz", u=u)
    run = {
        "rule": rule,
        "seed": seed,
        "l2": history.error[-1],
        "seconds": history.seconds[-1],
        "iterations": trainer.iteration,
        "settings": all_settings,
        "machine": machine(args.device),
    }
    run_file.write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")


def spectrum_iterations(iterations: int) -> list[int]:
    """Return 0, powers of ten from 100 on, and the end: evenly spaced on a logarithmic scale."""
    powers = [10**k for k in range(2, 9) if 10**k < 0.9 * iterations]
    return [0, *powers, iterations]


def machine(device: str) -> dict[str, object]:
    """Describe what the run ran on."""
    name = platform.processor()
    if sys.platform == "linux":
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    found: dict[str, object] = {"cpu": name, "cores": os.cpu_count(), "threads": torch.get_num_threads()}
    if torch.device(device).type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
    return {**found, "torch": torch.__version__, "ntkfast": ntk.__version__, "date": time.strftime("%Y-%m-%d")}


@dataclass(frozen=True)
class Run:
    """A finished run, as read from its folder."""

    info: dict
    history: History
    u: np.ndarray  # prediction, (GRID, GRID), t first


def finished(out: Path, settings: dict[str, object] | None) -> dict[str, list[Run]]:
    """Read the finished runs that were made from the given settings, by rule in the order of their seeds.

    Without settings those of the newest run count. Runs of others are named and left out.
    """
    files = [path for rule in LABELS for path in out.glob(f"{rule}-seed*/run.json")]
    infos = {path.parent: json.loads(path.read_text(encoding="utf-8")) for path in files}
    if settings is None and infos:
        settings = infos[max(infos, key=lambda folder: (folder / "run.json").stat().st_mtime_ns)]["settings"]
    others = sorted(folder.name for folder, info in infos.items() if info["settings"] != settings)
    if others:
        print(f"left out, as made from other settings: {', '.join(others)}")
    runs: dict[str, list[Run]] = {rule: [] for rule in LABELS}
    for folder, info in sorted(infos.items(), key=lambda item: item[1]["seed"]):
        if folder.name not in others:
            with np.load(folder / "prediction.npz") as arrays:
                runs[info["rule"]].append(Run(info, History.load(folder), arrays["u"]))
    return {rule: found for rule, found in runs.items() if found}


def draw(runs: dict[str, list[Run]], out: Path) -> None:
    """Write the figures: curves of the error for all seeds, everything else for the first one."""
    first = {rule: found[0] for rule, found in runs.items()}
    problem = ntk.problems.Wave1D()
    exact = problem.solution(problem.domain.grid(GRID)).reshape(GRID, GRID).numpy()
    axis = np.linspace(0, 1, GRID)
    rows = [round(t * (GRID - 1)) for t in SLICES]
    curves = {LABELS[rule]: [run.history.error for run in found] for rule, found in runs.items()}
    plots.save(plots.errors(curves), out / "error.png")
    losses = {LABELS[rule]: run.history.loss for rule, run in first.items()}
    plots.save(plots.losses(losses), out / "losses.png")
    predictions = {LABELS[rule]: run.u[rows] for rule, run in first.items()}
    plots.save(plots.slices(axis, SLICES, exact[rows], predictions), out / "slices.png")
    for rule, run in first.items():
        plots.save(plots.maps(axis, axis, exact, run.u), out / f"solution-{rule}.png")
        plots.save(plots.spectra(run.history.spectrum), out / f"spectra-{rule}.png")
    if "ntk" in first:
        plots.save(plots.weights(first["ntk"].history.weights), out / "weights.png")


def summarise(runs: dict[str, list[Run]]) -> dict:
    """Return medians over seeds, and each seed by itself."""
    summary: dict = {"runs": {}, "machine": next(iter(runs.values()))[0].info["machine"]}
    for rule, found in runs.items():
        infos = [run.info for run in found]
        summary["runs"][rule] = {
            "l2": statistics.median(info["l2"] for info in infos),
            "seconds": statistics.median(info["seconds"] for info in infos),
            "iterations": infos[0]["iterations"],
            "settings": infos[0]["settings"],
            "seeds": {str(info["seed"]): {"l2": info["l2"], "seconds": info["seconds"]} for info in infos},
        }
    return summary


def print_table(summary: dict, out: Path) -> None:
    """Print one line a rule."""
    print(f"\n{'':14}{'relative L2 error':>18}{'iterations':>12}{'seconds':>10}{'seeds':>7}")
    for rule, run in summary["runs"].items():
        numbers = f"{run['l2']:>18.2e}{run['iterations']:>12}{run['seconds']:>10.1f}{len(run['seeds']):>7}"
        print(f"{LABELS[rule]:14}{numbers}")
    print(f"\nfigures and summary.json: {out}")
    if any(len(run["seeds"]) > 1 for run in summary["runs"].values()):
        shown = ", ".join(f"seed {min(map(int, run['seeds']))} of {rule}" for rule, run in summary["runs"].items())
        print(f"error.png shows all seeds, the other figures {shown}")


if __name__ == "__main__":
    main()
