"""Required and measured speed and memory, every figure by one command.

* ``python benchmarks/must_show.py``: all of it, written to ``results/main.json`` too, or to another by ``--name``.
* ``python benchmarks/must_show.py trace gram``: some of it, printed only.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import bench_agreement
import bench_contraction
import bench_gram
import bench_memory
import bench_operator
import bench_outputs
import bench_roofline
import bench_step
import bench_trace
import machine
import results
import setting
import torch
from measure import ratio

TRACE_FUNC = {(500, 300): 150, (256, 1024): 120, (128, 4096): 140, (50, 300): 30}
TRACE_UNFUSED = {(500, 300): 2.1, (256, 1024): 2.8, (128, 4096): 3.5, (50, 300): 3}
OVER_FLOOR = {(500, 300): 1.6, (256, 1024): 1.6, (128, 4096): 2.2}
GRAM = {
    (500, 300, "float32"): 80,
    (256, 1024, "float32"): 40,
    (128, 2048, "float32"): 20,
    (64, 1600, "float64"): 8,
}
STEP = {500: 2.5, 100: 3}
BUSY = 0.3  # other running threads, above which a notice is printed


@dataclass(frozen=True)
class Row:
    """One line of the table. ``at_least`` says which side of ``required`` is good."""

    what: str
    required: float
    measured: float
    unit: str
    at_least: bool
    detail: str

    @property
    def met(self) -> bool:
        return self.measured >= self.required if self.at_least else self.measured <= self.required

    def __str__(self) -> str:
        sign = "≥" if self.at_least else "≤"
        verdict = "yes" if self.met else "NO"
        required, measured = f"{sign} {self.required:.4g}{self.unit}", f"{self.measured:.4g}{self.unit}"
        return f"{self.what:<52} {required:>12} {measured:>12}  {verdict:<4} {self.detail}"


Found = tuple[str, dict, list[Row]]  # key of the measurement, the measurement, its lines


def _times(record: dict, *names: str) -> str:
    return ", ".join(f"{n} {1e3 * record['seconds'][n]['median']:.3g} ms" for n in names)


def trace() -> Iterator[Found]:
    for (width, n), bound in TRACE_FUNC.items():
        record = bench_trace.compare(width, n)
        size = f"width {width}, N = {n}"
        rows = [
            Row(
                f"trace, {size}, against {rival}",
                least,
                ratio(record, rival),
                "×",
                True,
                _times(record, "ntkfast", rival),
            )
            for rival, least in (("torch.func", bound), ("unfused", TRACE_UNFUSED[width, n]))
        ]
        yield f"{width}x{n}", record, rows


def roofline() -> Iterator[Found]:
    for (width, n), bound in OVER_FLOOR.items():
        record = bench_roofline.compare(width, n)
        rates = ", ".join(f"{k} {v:.0f}" for k, v in record["gflops"].items())
        what = f"trace over its own products, width {width}, N = {n}"
        yield f"{width}x{n}", record, [Row(what, bound, record["over_floor"], "×", False, f"GFLOP/s: {rates}")]


def gram() -> Iterator[Found]:
    for width, n, dtype in bench_gram.SIZES:
        record = bench_gram.compare(width, n, dtype)
        size = f"gram, width {width}, N = {n}, {dtype}"
        detail = _times(record, "ntkfast", "unfused", "torch.func")
        rows = [
            Row(f"{size}, against {rival}", least, ratio(record, rival), "×", True, detail)
            for rival, least in (("torch.func", GRAM.get((width, n, dtype), 1)), ("unfused", 1))
        ]
        yield f"{width}x{n} {dtype}", record, rows


def outputs() -> Iterator[Found]:
    for n, summed in bench_outputs.SIZES:
        record = bench_outputs.compare(n, summed)
        what = f"gram of ten outputs{', summed' * summed}, N = {n}"
        detail = _times(record, "ntkfast", "unfused", "torch.func")
        rows = [
            Row(f"{what}, against {rival}", 1, ratio(record, rival), "×", True, detail)
            for rival in ("torch.func", "unfused")
        ]
        yield f"{n} {'summed' if summed else 'all'}", record, rows


def contraction() -> Iterator[Found]:
    for width, n, dtype in bench_contraction.RATES:
        record = bench_contraction.rate(width, n, dtype)
        what, rates = f"structured path over torch.mm, {width}, {n}, {dtype}", record["gflops"]
        detail = f"GFLOP/s: {rates['ntkfast']:.0f}, {rates['torch.mm']:.0f}"
        yield f"{width}x{n} {dtype}", record, [Row(what, 1.3, record["over_mm"], "×", True, detail)]
    cells = [bench_contraction.regret(*cell) for cell in bench_contraction.grid()]
    worst = max(cells, key=lambda cell: cell["regret"])
    detail = f"of {len(cells)} cells; worst: " + ", ".join(f"{k} {v}" for k, v in worst["size"].items())
    yield "regret", {"cells": cells}, [Row("regret of the cost model", 1.25, worst["regret"], "×", False, detail)]


def operator() -> Iterator[Found]:
    for width, n in bench_operator.SIZES:
        record = bench_operator.compare(width, n)
        detail = _times(record, "ntkfast", "torch.func", "dense product")
        what = f"K @ v, width {width}, N = {n}, against torch.func"
        yield f"{width}x{n}", record, [Row(what, 1, ratio(record, "torch.func"), "×", True, detail)]


def step() -> Iterator[Found]:
    for width in bench_step.WIDTHS:
        record = bench_step.compare(width)
        added = 100 * (record["seconds"]["ntkfast with traces"]["median"] / record["seconds"]["ntkfast"]["median"] - 1)
        detail = _times(record, "ntkfast", "ntkfast with traces", "unfused", "nested autograd")
        rows = []
        if width in STEP:
            speed = ratio(record, "nested autograd")
            rows.append(
                Row(f"training step, width {width}, against nested autograd", STEP[width], speed, "×", True, detail)
            )
            rows.append(Row(f"exact traces added to that step, width {width}", 15, added, " %", False, ""))
        yield f"{width}", record, rows


def memory() -> Iterator[Found]:
    record = bench_memory.compare()
    peaks = {k: v / bench_memory.MEGABYTE for k, v in record["peak_bytes"].items()}
    detail = ", ".join(f"{k} {v:.1f} MB" for k, v in peaks.items())
    yield (
        "peak",
        record,
        [Row("peak memory of the trace, width 500, N = 300", 16, peaks["ntkfast"], " MB", False, detail)],
    )
    record = bench_memory.million()
    peak, seconds = record["peak_bytes"]["ntkfast"] / bench_memory.MEGABYTE, record["cold_seconds"]["ntkfast"]
    what = "trace, width 128, N = 10⁶, budget 512 MB"
    rows = [Row(f"{what}: peak", 512, peak, " MB", False, ""), Row(f"{what}: time", 4, seconds, " s", False, "cold")]
    yield "million", record, rows


def agreement() -> Iterator[Found]:
    record = bench_agreement.compare()
    rows = [
        Row(f"agreement with reference, {dtype}", bound, record["largest"][dtype], "", False, "")
        for dtype, bound in bench_agreement.BOUNDS.items()
    ]
    yield "all", record, rows


SECTIONS: dict[str, Callable[[], Iterator[Found]]] = {
    f.__name__: f for f in (agreement, trace, roofline, gram, outputs, contraction, operator, step, memory)
}


def run(sections: list[str], patience: float = 0.0) -> tuple[dict[str, dict], list[Row]]:
    """Measure, printing lines as they come; returns measurements by section and key, and the lines."""
    measurements: dict[str, dict] = {}
    lines: list[Row] = []
    print(f"{'':<52} {'required':>12} {'measured':>12}  met")
    for section in sections:
        running = machine.quiet(BUSY, patience)
        if running > BUSY:
            print(f"note: {running:.1f} other threads are running; these figures will suffer")
        for key, record, rows in SECTIONS[section]():
            measurements.setdefault(section, {})[key] = {**record, "other_threads_before": running}
            lines += rows
            print(*rows, sep="\n", end="\n" if rows else "", flush=True)
    return measurements, lines


def main(arguments: list[str] | None = None) -> int:
    """Returns 1 if a figure is not met, 2 if the library is not installed."""
    parser = argparse.ArgumentParser(description="Required and measured speed and memory.")
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)}; default all")
    parser.add_argument(
        "--patience", type=float, default=0, help="minutes to wait before each section for a quiet machine"
    )
    parser.add_argument("--no-write", action="store_true", help="print only")
    parser.add_argument("--name", default="main", help="write results/NAME.json; default main")
    args = parser.parse_args(arguments)
    unknown = sorted(set(args.sections) - set(SECTIONS))
    if unknown:
        parser.error(f"expected sections of {', '.join(SECTIONS)}, got {', '.join(unknown)}")
    try:
        import ntkfast  # noqa: F401
    except ImportError as error:
        print(f"ntkfast is not installed ({error}); run `pip install .` first", file=sys.stderr)
        return 2
    torch.set_num_threads(setting.THREADS)
    before = machine.load()
    measurements, lines = run(args.sections or list(SECTIONS), 60 * args.patience)
    if not args.sections and not args.no_write:
        content = {"load": {"before": before, "after": machine.load()}, "measurements": measurements}
        print(f"\nwritten: {results.write(args.name, content)}")
    return 0 if all(row.met for row in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
