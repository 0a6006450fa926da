"""What decides about matrix tiles stands in C++ and in Python; here, that both say the same."""

import re
from pathlib import Path

import pytest
import torch

from ntkfast import memory, tiles

CPU = Path(__file__).parents[1] / "csrc" / "cpu"


def constant(file: str, pattern: str) -> list[float]:
    """The numbers that a pattern finds in a header, which must have it once."""
    (found,) = re.findall(pattern, (CPU / file).read_text(encoding="utf-8"))
    return [float(number) for number in (found if isinstance(found, tuple) else (found,))]


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
