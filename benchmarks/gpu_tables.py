"""The figures of ``results/gpu.json`` as markdown: speed against the rivals, and what was required.

``python benchmarks/gpu_tables.py`` prints both; ``tables.py`` puts the first into the README where its markers stand.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping

import results
from cells import size_of, time_of, times
from sides import IN_GRAPH

BEGIN, END = "<!-- gpu:begin -->", "<!-- gpu:end -->"
NAMES = {"trace": "traces of three groups", "gram": "gram", "step": "training step with traces"}
TRACE_SECONDS, TRACE_RATIO = 4e-4, 100
GRAM_RATIO, GRAM_SHARE = 20, 0.4
RUN_SECONDS, RUN_ERROR = 60, 5e-3


def medians(record: Mapping) -> dict[str, float]:
    """Seconds of every side."""
    return {name: timing["median"] for name, timing in record["seconds"].items()}


def own_name(record: Mapping) -> str:
    """Our side: with traces where there is one with and one without."""
    return "ntkfast with traces" if "ntkfast with traces" in record["seconds"] else "ntkfast"


def best(record: Mapping, *starts: str) -> str | None:
    """The fastest side whose name starts so; with no starts, the fastest that is neither ours nor unfused."""
    found = {
        name: seconds
        for name, seconds in medians(record).items()
        if (name.startswith(starts) if starts else not name.startswith(("ntkfast", "unfused")))
    }
    return min(found, key=found.__getitem__, default=None)


def _line(section: str, record: Mapping) -> str:
    seconds, own = medians(record), own_name(record)
    plain, rival, fastest = best(record, "unfused"), best(record), best(record, own)
    ours = seconds[fastest or own]
    share = record.get("shares", {}).get(fastest, {}).get("share_of_floor")
    cells = [NAMES[section], size_of(record["size"]), time_of(seconds[own]), time_of(seconds.get(own + IN_GRAPH))]
    for name in (plain, rival):
        cells.append("–" if name is None else f"{time_of(seconds[name])} ({name}), {times(seconds[name] / ours)}")
    return f"| {' | '.join(cells)} | {'–' if share is None else f'{100 * share:.0f} %'} |"


def gpu_table(content: Mapping) -> str:
    """The table as markdown, with the rest and the machine below it."""
    measurements = content["measurements"]
    lines = [
        "| what | size | ntkfast | in a CUDA graph | plain torch, unfused | autograd, strongest | of the floor |",
        "|---|---|---|---|---|---|---|",
    ]
    for section in NAMES:
        lines += [_line(section, record) for record in measurements.get(section, {}).values()]
    return "\n".join([*lines, "", " ".join([*_sentences(measurements), _footer(content["machine"])])])


def _sentences(measurements: Mapping) -> Iterator[str]:
    for record in measurements.get("memory", {}).values():
        size, peak = record["size"], record["peak_bytes"]["ntkfast"]
        text = f"Trace at N = {size['n']}, width {size['width']}, budget {record['budget']}: "
        yield text + time_of(medians(record)["ntkfast"]) + ("." if peak is None else f", peak {peak / 1e6:.0f} MB.")
    for record in measurements.get("training", {}).values():
        each = medians(record)["ntkfast"]
        yield f"An iteration of the trainer with NTK weights, width {record['size']['width']}: {time_of(each)}."
    for record in measurements.get("whole_run", {}).values():
        error = f"{record['relative_l2_error']:.1e}"
        yield f"The paper's wave run: {time_of(record['run_seconds'])}, relative error {error}."


def _footer(machine: Mapping) -> str:
    return (
        "Medians of one run, float32 (no TF32) unless said otherwise, wave residual, tanh, 3 hidden layers, "
        f"{machine.get('gpu', 'no GPU')}, driver {machine.get('driver')}, CUDA {machine.get('cuda')}, "
        f"torch {machine['torch']}."
    )


def required(measurements: Mapping) -> Iterator[tuple[str, str, str, bool]]:
    """(what, required, measured, met) of every figure that has a bound and was measured."""
    record = measurements.get("trace", {}).get("500x300")
    if record:
        seconds = medians(record)
        ours = min(v for k, v in seconds.items() if k.startswith("ntkfast"))
        ratio = seconds["torch.func"] / ours
        yield "traces, width 500", f"≤ {time_of(TRACE_SECONDS)}", time_of(ours), ours <= TRACE_SECONDS
        yield "traces, width 500, over torch.func", f"≥ {TRACE_RATIO}×", times(ratio), ratio >= TRACE_RATIO
    record = measurements.get("gram", {}).get("500x4096 float32")
    if record:
        ratio = medians(record)["torch.func"] / medians(record)["ntkfast"]
        yield "gram, width 500, N = 4096, over torch.func", f"≥ {GRAM_RATIO}×", times(ratio), ratio >= GRAM_RATIO
        share = record["shares"]["ntkfast"]["share_of_nominal"]
        if share is not None:
            said = f"{100 * share:.0f} %"
            yield "that gram's flops, of the float32 peak", f"≥ {100 * GRAM_SHARE:.0f} %", said, share >= GRAM_SHARE
    record = measurements.get("whole_run", {}).get("paper")
    if record:
        seconds, error = record["run_seconds"], record["relative_l2_error"]
        yield "the paper's wave run", f"≤ {RUN_SECONDS} s", time_of(seconds), seconds <= RUN_SECONDS
        yield "its relative error", f"≤ {RUN_ERROR:g}", f"{error:.1e}", error <= RUN_ERROR


def left_out(measurements: Mapping) -> Iterator[str]:
    """The sides that could not run, and why."""
    for section, records in measurements.items():
        for key, record in records.items():
            for name, reason in record.get("missing", {}).items():
                yield f"{section} {key}: {name}: {reason}"


def main() -> int:
    """Print the tables; 1 if a figure is not what is required, 2 if there are none."""
    content = results.read("gpu")
    if not content:
        print("there is no results/gpu.json yet; run `pytest --benchmark-only -m gpu` on a GPU", file=sys.stderr)
        return 2
    print(gpu_table(content), end="\n\n")
    rows = list(required(content["measurements"]))
    print("| what | required | measured | met |\n|---|---|---|---|")
    print(*(f"| {what} | {bound} | {got} | {'yes' if met else 'no'} |" for what, bound, got, met in rows), sep="\n")
    print(*(f"\nleft out: {line}" for line in left_out(content["measurements"])), sep="")
    return 0 if all(met for *_, met in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
