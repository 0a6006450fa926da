"""The dense product beneath every sweep, at every level: accuracy, edges, infinities, and bits that must not change."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest
from agreement import assert_agrees_where_not_finite
from levels import LEVELS, compiled

HARNESS = Path(__file__).with_name("product_harness.cpp")
DTYPES = [np.float32, np.float64]
NAMES = {np.float32: "float", np.float64: "double"}
# Rows, columns, depth: whole and partial strips, halves of panels, depths by vectors and on matrix tiles.
SIZES = [
    (1, 1, 1),
    (14, 32, 32),
    (33, 17, 111),
    (16, 16, 112),
    (32, 32, 128),
    (31, 45, 131),
    (130, 70, 250),
    (7, 5, 513),
]


@pytest.fixture(scope="module", params=[*LEVELS, "elsewhere"])
def library(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    library = compiled(HARNESS, request.param, tmp_path_factory.mktemp("product"))
    if not library.lends_tiles():
        pytest.skip("the system lends no matrix tiles")
    return library


def multiply(
    library: ctypes.CDLL,
    a: np.ndarray,
    b: np.ndarray,
    start: np.ndarray | None = None,
    left_columns: bool = False,
    right_rows: bool = False,
) -> np.ndarray:
    """A B, or start + A B, from operands that lie in memory as they are or transposed; nothing else may be written."""
    (m, k), n = a.shape, b.shape[1]
    a, b = (np.ascontiguousarray(x.T if turned else x) for x, turned in ((a, left_columns), (b, right_rows)))
    c = np.full((m, n), 3, a.dtype) if start is None else start.copy()
    pointers = [ctypes.c_void_p(x.ctypes.data) for x in (a, b, c)]
    flags = [ctypes.c_bool(f) for f in (left_columns, right_rows, start is not None)]
    function = getattr(library, f"multiply_{NAMES[a.dtype.type]}")
    function.restype = ctypes.c_bool
    assert function(*(ctypes.c_long(size) for size in (m, n, k)), *pointers, *flags)
    return c


def operands(size: tuple[int, int, int], dtype: type, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    m, n, k = size
    return rng.standard_normal((m, k)).astype(dtype), rng.standard_normal((k, n)).astype(dtype)


def error(c: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """Largest error over |A||B|, the scale of rounding, in units of the dtype's own."""
    wide = np.longdouble
    exact = a.astype(wide) @ b.astype(wide)
    scale = np.abs(a.astype(wide)) @ np.abs(b.astype(wide))
    return float(np.max(np.abs(c - exact) / np.where(scale > 0, scale, 1)) / np.finfo(a.dtype).eps)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("form", ["rows", "left_columns", "right_rows", "accumulate"])
def test_error_is_that_of_a_chain_of_multiply_adds(library, size, form: str, dtype: type) -> None:
    a, b = operands(size, dtype)
    if form == "accumulate":
        start = operands((size[0], size[1], size[1]), dtype, seed=1)[0]
        c = multiply(library, a, b, start)
        a, b = np.hstack([a, start]), np.vstack([b, np.eye(size[1], dtype=dtype)])
    else:
        c = multiply(library, a, b, **({} if form == "rows" else {form: True}))
    assert error(c, a, b) <= 4  # random signs: far below the bound of K roundings


@pytest.mark.parametrize("size", [(40, 40, 128), (64, 33, 500)], ids=str)
def test_float32_is_as_accurate_as_a_sum_in_order(library, size) -> None:
    """A library's product would be a rival that sums in another order on another processor."""
    a, b = operands(size, np.float32)
    exact = a.astype(np.float64) @ b.astype(np.float64)
    chain = np.cumsum(a[:, :, None] * b, axis=1)[:, -1]
    own, other = (np.linalg.norm(c - exact) for c in (multiply(library, a, b), chain))
    assert own <= 1.05 * other


@pytest.mark.parametrize("dtype", DTYPES)
def test_magnitudes_do_not_mix(library, dtype: type) -> None:
    """Rows and columns far apart in size keep their own accuracy."""
    a, b = operands((48, 40, 160), dtype)
    a *= np.logspace(-12, 12, 48, dtype=dtype)[:, None]
    b *= np.logspace(12, -12, 40, dtype=dtype)
    assert error(multiply(library, a, b), a, b) <= 4


@pytest.mark.parametrize("size", [1e-15, 1e-10, 1e15, 1e18])
def test_small_and_large_float32_keep_their_accuracy(library, size: float) -> None:
    a, b = (x * np.float32(size) for x in operands((48, 40, 160), np.float32))
    assert error(multiply(library, a, b), a, b) <= 4


def test_the_largest_floats_stay_finite(library) -> None:
    a, b = operands((40, 35, 144), np.float32)
    a[3, 5] = np.finfo(np.float32).max
    b *= np.float32(1e-6)
    assert error(multiply(library, a, b), a, b) <= 4


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_not_finite_comes_out_as_in_a_chain_of_multiply_adds(library, dtype: type) -> None:
    a, b = (np.abs(x) for x in operands((40, 35, 144), dtype))
    a[3, 5], a[7, 0], b[11, 20], b[140, 33] = np.inf, np.nan, -np.inf, np.nan
    a[20, 11], b[11, 4] = 0, 0
    big = np.finfo(dtype).max / 8
    a[25], b[:, 9] = big, 2  # overflows in the sum alone
    with np.errstate(all="ignore"):
        expected = a @ b
        c = multiply(library, a, b)
    assert_agrees_where_not_finite(c, expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_not_finite_changes_no_bit_beside_it(library, dtype: type) -> None:
    a, b = operands((40, 35, 144), dtype)
    before = multiply(library, a, b)
    a[3, 5], b[11, 20] = np.inf, np.nan
    after = multiply(library, a, b)
    others = np.ix_(np.arange(40) != 3, np.arange(35) != 20)
    assert np.array_equal(after[others], before[others])


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_result_does_not_depend_on_how_rows_are_cut(library, dtype: type) -> None:
    a, b = operands((130, 70, 250), dtype)
    whole = multiply(library, a, b)
    for count in (1, 16, 33, 129):
        assert np.array_equal(multiply(library, a[:count], b), whole[:count])
        assert np.array_equal(multiply(library, a[-count:], b), whole[-count:])
