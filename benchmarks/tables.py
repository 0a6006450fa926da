"""The README's figures: ``results/main.json``, those of other processors and ``gpu.json``, each between two markers.

* ``python benchmarks/tables.py``: rewrite it.
* ``python benchmarks/tables.py --check``: say whether it is up to date.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import gpu_tables
import results
from bench_agreement import BOUNDS
from cells import size_of, time_of, times

ACCURACY_BEGIN, ACCURACY_END = "<!-- accuracy:begin -->", "<!-- accuracy:end -->"
BEGIN, END = "<!-- speed:begin -->", "<!-- speed:end -->"
OTHERS_BEGIN, OTHERS_END = "<!-- speed-elsewhere:begin -->", "<!-- speed-elsewhere:end -->"
# Results on other processors, and what these are.
OTHERS = {"main-amx": "AMX", "main-zen4": "Zen 4", "main-zen3": "Zen 3"}
README = Path(__file__).resolve().parents[1] / "README.md"
NAMES = {"trace": "trace", "gram": "gram", "step": "training step"}
COMPARED = {"trace": "traces", "diag": "diagonals", "gram": "Grams", "gradient": "gradients of losses"}
RIVALS = {"trace": "torch.func", "gram": "torch.func", "step": "nested autograd"}


def _line(section: str, record: dict) -> str:
    seconds = {side: t["median"] for side, t in record["seconds"].items()}
    own, plain, rival = seconds["ntkfast"], seconds["unfused"], seconds[RIVALS[section]]
    cells = [
        NAMES[section],
        size_of(record["size"]),
        time_of(own),
        time_of(plain),
        f"{time_of(rival)} ({RIVALS[section]})",
    ]
    return f"| {' | '.join(cells)} | {times(plain / own)} | {times(rival / own)} |"


def speed_table(content: dict) -> str:
    """The table as markdown, with the machine below it."""
    lines = [
        "| what | size | ntkfast | plain torch, unfused | autograd | against unfused | against autograd |",
        "|---|---|---|---|---|---|---|",
    ]
    for section in NAMES:
        lines += [_line(section, record) for record in content["measurements"].get(section, {}).values()]
    return "\n".join([*lines, "", _footer(content)])


def _power(number: float, decimals: int = 1) -> str:
    """A digit and some decimals, without a zero before the exponent."""
    digits, exponent = f"{number:.{decimals}e}".split("e")
    return f"{digits}e{int(exponent)}"


def accuracy_table(contents: Sequence[dict]) -> str:
    """The largest errors of all results by dtype, as markdown, and what was compared."""
    records = [r for c in contents for r in c["measurements"].get("agreement", {}).values()]
    errors = [(*key.split(), error) for record in records for key, error in record["errors"].items()]
    compared = [shown for verb, shown in COMPARED.items() if verb in {what for _, what, *_ in errors}]
    lines = [
        "Largest norm-wise relative error against `ntk.reference` (torch.func, float64) over "
        f"{', '.join(compared[:-1])} and {compared[-1]} of the wave network:",
        "",
        "| parameters | ntkfast | tested bound |",
        "|---|---|---|",
    ]
    for dtype, bound in BOUNDS.items():
        largest = max(error for kind, *_, error in errors if kind == dtype)
        lines.append(f"| {dtype} | {_power(largest)} | {_power(bound, 0)} |")
    return "\n".join(lines)


def _range(ratios: list[float]) -> str:
    return f"{times(min(ratios))[:-1]}–{times(max(ratios))}"


def summary(content: dict, kind: str) -> str:
    """One sentence on a processor of some kind: the ranges of all ratios, section by section, of those measured."""
    machine, parts = content["machine"], []
    for section, name in NAMES.items():
        if section not in content["measurements"]:
            continue
        seconds = [{k: t["median"] for k, t in r["seconds"].items()} for r in content["measurements"][section].values()]
        found = [_range([s[side] / s["ntkfast"] for s in seconds]) for side in (RIVALS[section], "unfused")]
        parts.append(f"{name} {found[0]} against {RIVALS[section]}, {found[1]} against unfused")
    where = f"{machine['processor']}, {kind}, level {machine['instruction_set']}, torch {machine['torch']}"
    return f"The same sizes on {where}: {'; '.join(parts)}."


def _footer(content: dict) -> str:
    machine, measurements = content["machine"], content["measurements"]
    text = (
        "Medians of one run, float32 unless said otherwise, wave residual, tanh, 3 hidden layers, "
        f"{machine['threads']} threads of {machine['processor']}, torch {machine['torch']}."
    )
    if "peak" in measurements.get("memory", {}):
        peaks = measurements["memory"]["peak"]["peak_bytes"]
        text += " Peak memory of the first trace: " + ", ".join(f"{k} {v / 1e6:.0f} MB" for k, v in peaks.items()) + "."
    return text


def insert(text: str, table: str, begin: str = BEGIN, end: str = END) -> str:
    """The text with what stands between the markers replaced.

    Raises:
        ValueError: the markers are missing or in the wrong order.
    """
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"expected {begin} and then {end}, once each")
    head, rest = text.split(begin)
    return f"{head}{begin}\n{table}\n{end}{rest.split(end)[1]}"


def insert_all(text: str, main: dict, gpu: dict, others: Mapping[str, dict] | None = None) -> str:
    """The README with the table of the processor, and where there are figures and a place for them, a sentence on each
    other processor, the errors on all of them and the table of the GPU.
    """
    text = insert(text, speed_table(main))
    if ACCURACY_BEGIN in text:
        text = insert(text, accuracy_table([main, *(others or {}).values()]), ACCURACY_BEGIN, ACCURACY_END)
    if others and OTHERS_BEGIN in text:
        sentences = " ".join(summary(content, kind) for kind, content in others.items())
        text = insert(text, sentences, OTHERS_BEGIN, OTHERS_END)
    if gpu and gpu_tables.BEGIN in text:
        text = insert(text, gpu_tables.gpu_table(gpu), gpu_tables.BEGIN, gpu_tables.END)
    return text


def main(arguments: list[str] | None = None) -> int:
    """Rewrite the README, or with ``--check`` return 1 where it is out of date."""
    parser = argparse.ArgumentParser(description="The README's tables from the results.")
    parser.add_argument("--check", action="store_true", help="change nothing")
    args = parser.parse_args(arguments)
    content = results.read("main")
    if not content:
        print("there is no results/main.json yet; run `python benchmarks/must_show.py`", file=sys.stderr)
        return 2
    before = README.read_text(encoding="utf-8")
    others = {kind: found for name, kind in OTHERS.items() if (found := results.read(name))}
    after = insert_all(before, content, results.read("gpu"), others)
    if args.check:
        print("up to date" if before == after else "out of date: run `python benchmarks/tables.py`")
        return int(before != after)
    draft = README.with_suffix(f".{os.getpid()}.tmp")
    draft.write_text(after, encoding="utf-8")
    os.replace(draft, README)
    return 0


if __name__ == "__main__":
    sys.exit(main())
