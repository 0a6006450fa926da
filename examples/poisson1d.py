"""The experiment of the frozen kernel: how far that of one wide layer moves under small steps, and what it predicts.

    python examples/poisson1d.py                # 40 001 steps of plain gradient descent, less than a minute

u_xx = f on [0, 1] with u(0) = u(1) = 0 and f such that u = sin 4πx; a network 1-512-1. The figures show the eigenvalues
of K = [K_uu K_ur; K_ru K_rr], of K_uu and of K_rr while training, how far kernel and parameters move, the solution,
and the error along eigenvectors of the first kernel against what that kernel alone predicts: exp(−2ημt/n) a mode.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

# Read when torch is loaded: threads that wait spin briefly; for long, they would slow a busy machine down many times.
os.environ.setdefault("GOMP_SPINCOUNT", "20000")

import torch
from torch import Tensor, nn

import ntkfast as ntk
from ntkfast import plots

ROWS = 100  # of either group, so that the mean over a group divides every row alike
WAVENUMBER = 4 * math.pi
MODES = (1, 3, 6, 10)  # counted from the largest eigenvalue


@ntk.residual("x")
def poisson(u, at):
    """Return the rows of u_xx − f."""
    return u.d(x=2) + WAVENUMBER**2 * torch.sin(WAVENUMBER * at.x)


@ntk.residual("x")
def curvature(u):
    """Return u_xx."""
    return u.d(x=2)


@dataclass
class Records:
    """What is measured on the way."""

    iterations: list[int] = field(default_factory=list)
    rows: list[Tensor] = field(default_factory=list)
    kernel_drift: list[float] = field(default_factory=list)
    parameter_drift: list[float] = field(default_factory=list)
    spectra: dict[str, dict[int, Tensor]] = field(default_factory=lambda: {"": {}, "u": {}, "r": {}})


def main(argv: list[str] | None = None) -> None:
    """Train, measure, draw, and print a table."""
    args = parse(argv)
    out = Path(args.out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SystemExit(f"expected a folder that can be written, got {str(out)!r}: {error.strerror}") from error
    torch.manual_seed(args.seed)
    grid = torch.linspace(0, 1, ROWS, dtype=torch.float64)[:, None]
    edges = torch.tensor([[0.0], [1.0]], dtype=torch.float64).repeat(ROWS // 2, 1)
    # Uniform points of [0, 1] have mean 1/2 and variance 1/12.
    net = ntk.MLP([1, args.width, 1], "tanh", "normal", standardize=([0.5], [12**-0.5]), dtype=torch.float64)
    first = copy.deepcopy(net)
    groups = {"u": (edges, ntk.value), "r": (grid, poisson)}
    start = time.perf_counter()
    records = train(net, first, groups, args)
    seconds = time.perf_counter() - start
    summary = {**draw(net, first, groups, records, args.lr, out), "iterations": args.iterations, "seconds": seconds}
    (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    for name, number in summary.items():
        print(f"{name:18} {number:.4g}")
    print(f"figures and summary.json: {out}")


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--iterations", type=int, default=40_001)
    parser.add_argument("--lr", type=float, default=1e-5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=100, help="iterations between two measurements; before that, all")
    parser.add_argument("--out", default="runs/poisson1d")
    args = parser.parse_args(argv)
    for name, least in {"width": 1, "iterations": 2, "every": 1}.items():
        if getattr(args, name) < least:
            parser.error(f"--{name}: expected at least {least}, got {getattr(args, name)}")
    if not 0 < args.lr < math.inf:
        parser.error(f"--lr: expected a positive number, got {args.lr}")
    return args


def train(net: nn.Module, first: nn.Module, groups: dict, args: argparse.Namespace) -> Records:
    """Plain gradient descent on mean(u²) + mean(r²), measured on the way."""
    records, workspace = Records(), ntk.Workspace()
    shown = {0, *(10**k for k in range(2, 9) if 10**k < args.iterations), args.iterations - 1}
    parameters = dict(net.named_parameters())
    for k in range(args.iterations):
        with torch.no_grad():
            f = ntk.factors(net, groups, workspace=workspace)
            rows = f.rows
            if not bool(rows.isfinite().all()):
                raise SystemExit(f"iteration {k}: expected finite residuals, got NaN or infinity; take a smaller --lr")
            if k < args.every or k % args.every == 0 or k in shown:
                measure(records, k, rows, net, first, groups)
            if k in shown:
                record_spectra(records, k, f)
            for name, gradient in f.vjp(rows * (2 / ROWS)).items():
                parameters[name] -= args.lr * gradient
    return records


def measure(records: Records, k: int, rows: Tensor, net: nn.Module, first: nn.Module, groups: dict) -> None:
    """Record the rows and both drifts."""
    records.iterations.append(k)
    records.rows.append(rows.clone())
    records.kernel_drift.append(float(ntk.kernel_drift(net, first, groups)))
    records.parameter_drift.append(float(ntk.parameter_drift(net, first)))


def record_spectra(records: Records, k: int, f: ntk.Factors) -> None:
    """Record the eigenvalues of K and of its two diagonal blocks."""
    K = f.gram()
    blocks = {"": K, **{name: K[rows, rows] for name, rows in f.slices.items()}}
    for name, block in blocks.items():
        records.spectra[name][k] = torch.linalg.eigvalsh(block).flip(0)


def draw(net: nn.Module, first: nn.Module, groups: dict, records: Records, lr: float, out: Path) -> dict[str, float]:
    """Write the figures and return the errors and drifts at the end."""
    plots.save(plots.spectra(records.spectra), out / "spectra.png")
    curves = {
        r"$\|K - K_0\| / \|K_0\|$": (records.iterations, records.kernel_drift),
        r"$\|\theta - \theta_0\| / \|\theta_0\|$": (records.iterations, records.parameter_drift),
    }
    plots.save(plots.drifts(curves), out / "drift.png")
    plots.save(plots.modes(*mode_curves(first, groups, records, lr)), out / "modes.png")
    x = torch.linspace(0, 1, 1000, dtype=torch.float64)[:, None]
    sine = torch.sin(WAVENUMBER * x[:, 0])
    exact = {"u": sine, "u_xx": -(WAVENUMBER**2) * sine}
    with torch.no_grad():
        found = {"u": ntk.value(net, x), "u_xx": curvature(net, x)}
    titles = {"u": "$u(x)$", "u_xx": "$u_{xx}(x)$"}
    panels = {titles[name]: {"exact": exact[name], "network": found[name]} for name in exact}
    plots.save(plots.profiles(x[:, 0], panels), out / "solution.png")
    errors = {f"l2_{name}": float((found[name] - exact[name]).norm() / exact[name].norm()) for name in exact}
    return {**errors, "kernel_drift": records.kernel_drift[-1], "parameter_drift": records.parameter_drift[-1]}


def mode_curves(first: nn.Module, groups: dict, records: Records, lr: float) -> tuple[list[int], dict, dict]:
    """Return the squared error along eigenvectors of the first kernel: measured, and predicted from it alone."""
    values, vectors = torch.linalg.eigh(ntk.gram(first, groups))
    components = torch.stack(records.rows) @ vectors.flip(1)  # (T, N), the largest eigenvalue first
    decay = ntk.mode_decay(values.flip(0), lr / ROWS, torch.tensor(records.iterations))
    measured, predicted = {}, {}
    rounding = len(values) * torch.finfo(values.dtype).eps * values[-1]
    for mode in [mode for mode in MODES if values[-mode] > rounding]:
        label = rf"mode {mode}, $\mu = 10^{{{math.log10(values[-mode]):.1f}}}$"
        measured[label] = components[1:, mode - 1].square()
        predicted[label] = (decay[1:, mode - 1] * components[0, mode - 1]).square()
    return records.iterations[1:], measured, predicted


if __name__ == "__main__":
    main()
