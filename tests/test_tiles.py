"""What decides about matrix tiles and counts memory stands in C++ and in Python; here, that both say the same."""

import re
from pathlib import Path

import pytest
import torch

from ntkfast import memory, tiles

ROOT = Path(__file__).parents[1]
CPU = ROOT / "csrc" / "cpu"


def constant(file: str, pattern: str) -> list[float]:
    """The numbers that a pattern finds in a header, which must have it once."""
    (found,) = re.findall(pattern, (CPU / file).read_text(encoding="utf-8"))
    return [float(number) for number in (found if isinstance(found, tuple) else (found,))]


def named_constants(file: str, pattern: str) -> list[int]:
    """The same where numbers may have names, of this header or another."""
    (found,) = re.findall(pattern, (CPU / file).read_text(encoding="utf-8"))
    words = found if isinstance(found, tuple) else (found,)
    every = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "csrc").rglob("*.h")))
    return [int(word if word.isdigit() else re.findall(rf"\b{word} = (\d+)\b", every)[0]) for word in words]


def test_the_least_depth_of_a_product_of_sweeps():
    assert constant("product.h", r"kLeastDepth = (\d+);") == [tiles._LEAST_DEPTH]


@pytest.mark.parametrize(("kind", "which"), [(torch.float32, 0), (torch.float64, 1)])
def test_digits_and_what_they_cost(kind: torch.dtype, which: int):
    digits = constant("digits.h", r"kDigits = sizeof\(T\) == 4 \? (\d+) : (\d+);")
    costs = constant("digits.h", r"kDigitCost = sizeof\(T\) == 4 \? ([\d.]+) : ([\d.]+);")
    assert tiles._DIGITS[kind] == (digits[which], costs[which])


def test_the_greatest_depth_of_digits():
    assert constant("digits.h", r"kMaxDigitDepth = (\d+);") == [tiles._MOST_DIGIT_DEPTH]


def test_the_products_that_a_panel_keeps_and_the_budget_counts():
    assert constant("gram.cpp", r"kMostPairs = (\d+);") == [memory._SHARED_PAIRS]
    (rows,) = constant("digit_pipeline.h", r"kStripRows = (\d+) \* kDigitRows;")
    assert constant("digits.h", r"kDigitRows = (\d+),") == [memory._STRIP_ROWS / rows]


def test_a_row_of_a_panel_of_the_widest_vectors():
    (vectors,) = constant("tile_product.h", r"kPanel = (\d+) \* kLanes<T>;")
    levels = (ROOT / "build_support" / "toolchain.py").read_text(encoding="utf-8")
    widths = [int(size) for size in re.findall(r'"\w+": \((\d+), ', levels)]  # of a vector, level by level
    assert memory._PANEL_BYTES == vectors * max(widths)


def test_the_panels_and_sums_of_a_task():
    assert constant("gram.cpp", r"kTaskPanels = (\d+);") == [memory._TASK_PANELS]
    strips = max(constant("gram.cpp", r"kBlockStrips = NTKFAST_AMX \? (\d+) : (\d+);"))
    assert memory._SUMS_BYTES == strips * memory._STRIP_ROWS * memory._PANEL_BYTES


def test_the_rows_of_a_tile():
    pattern = r"return kHasTiles<T> && widest\(sweep\) > (\w+) \? (\w+) : (\w+);"
    numbers = [memory._WIDE, memory._WIDE_TILE_ROWS, memory._TILE_ROWS]
    assert named_constants("sweep.h", pattern) == numbers


@pytest.mark.parametrize("item", [4, 8])
def test_the_rows_of_stacks_are_padded_alike(item: int):
    (line,) = named_constants("sweep.h", r"kLine = (\w+) / sizeof\(T\);")
    (sets,) = named_constants("sweep.h", r"lines % (\w+) == 0 \? lines \+ 1 : lines\) \* kLine;")
    for width in range(1, 1100):
        lines = -(-width // (line // item))
        assert memory._stack_row(width, item) == line * (lines + (lines % sets == 0))
