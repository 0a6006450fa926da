"""Products of rows in digits, those of a gram: accuracy, edges, infinities, and bits that must not change."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest
from agreement import assert_agrees_where_not_finite
from levels import compiled

HARNESS = Path(__file__).with_name("digit_harness.cpp")
DTYPES = [np.float32, np.float64]
NAMES = {np.float32: "float", np.float64: "double"}
# Rows, columns, depth: whole and partial blocks, depths of one and of several pieces.
SIZES = [(1, 1, 1), (16, 16, 64), (33, 17, 65), (32, 48, 128), (31, 45, 131), (70, 20, 257), (17, 5, 1030)]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    library = compiled(HARNESS, "amx", tmp_path_factory.mktemp("digits"))
    if not library.lends_tiles():
        pytest.skip("the system lends no matrix tiles")
    return library


def multiply(library: ctypes.CDLL, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """A Bᵀ."""
    c = np.full((len(a), len(b)), 3, a.dtype)
    a, b = np.ascontiguousarray(a), np.ascontiguousarray(b)
    pointers = [ctypes.c_void_p(x.ctypes.data) for x in (a, b, c)]
    sizes = (ctypes.c_long(size) for size in (len(a), len(b), a.shape[1]))
    getattr(library, f"multiply_{NAMES[a.dtype.type]}")(*sizes, *pointers)
    return c


def operands(size: tuple[int, int, int], dtype: type, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    m, n, k = size
    return rng.standard_normal((m, k)).astype(dtype), rng.standard_normal((n, k)).astype(dtype)


def error(c: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """Largest error over ‖x‖ ‖x'‖, in units of the dtype's rounding."""
    wide = np.longdouble
    a, b = a.astype(wide), b.astype(wide)
    scale = np.linalg.norm(a.astype(wide), axis=1)[:, None] * np.linalg.norm(b, axis=1)
    return float(np.max(np.abs(c - a @ b.T) / np.where(scale > 0, scale, 1)) / np.finfo(c.dtype).eps)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_error_is_that_of_one_rounding(library, size, dtype: type) -> None:
    a, b = operands(size, dtype)
    assert error(multiply(library, a, b), a, b) <= 2


@pytest.mark.parametrize("dtype", DTYPES)
def test_it_is_nearly_as_accurate_as_numpy(library, dtype: type) -> None:
    a, b = operands((64, 60, 500), dtype)
    exact = a.astype(np.longdouble) @ b.T.astype(np.longdouble)
    own, other = (np.linalg.norm((c - exact).astype(np.float64)) for c in (multiply(library, a, b), a @ b.T))
    assert own <= 2.5 * other


@pytest.mark.parametrize("dtype", DTYPES)
def test_small_whole_numbers_are_exact(library, dtype: type) -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.integers(-100, 101, (40, 200)).astype(dtype) for _ in range(2))
    assert np.array_equal(multiply(library, a, b), a @ b.T)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("outlier", [1e2, 1e4, 1e6])
def test_a_number_that_dwarfs_its_row_costs_a_few_roundings_of_the_norm(library, outlier: float, dtype: type) -> None:
    a, b = operands((40, 35, 150), dtype)
    a[::2, 7] *= outlier
    b[::3, 20] *= outlier
    assert error(multiply(library, a, b), a, b) <= 40


@pytest.mark.parametrize("dtype", DTYPES)
def test_magnitudes_do_not_mix(library, dtype: type) -> None:
    """Rows far apart in size keep their own accuracy."""
    a, b = operands((48, 40, 160), dtype)
    a *= np.logspace(-18, 18, 48, dtype=dtype)[:, None]
    b *= np.logspace(18, -18, 40, dtype=dtype)[:, None]
    c = multiply(library, a, b)
    assert np.isfinite(c).all() and error(c, a, b) <= 2


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_ends_of_the_range(library, dtype: type) -> None:
    """The largest numbers, subnormal ones, and rows of zeros."""
    info, (a, b) = np.finfo(dtype), operands((20, 20, 144), dtype)
    a[3] *= info.max / 8
    b *= dtype(1e-3)
    assert error(multiply(library, a, b), a, b) <= 2
    a[5] = info.smallest_subnormal * np.arange(144)
    a[6], b[4] = 0, 0
    b[7] = 1
    c = multiply(library, a, b)
    assert c[5, 7] == a[5].sum() and not c[6].any() and not c[:, 4].any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("digit", [-128, 127])
def test_rows_of_one_number_do_not_overflow_and_lose_a_few_bits_at_most(library, digit: int, dtype: type) -> None:
    """All digits at an end of their range: the sums are at their largest, and what is left out has one sign."""
    lower, bits = (2, 23) if dtype is np.float32 else (6, 55)
    number = (64 * 256**lower + sum(digit * 256**i for i in range(lower))) / 2.0**bits
    a = np.full((32, 4000), number, dtype)
    assert error(multiply(library, a, a), a, a) <= 8


@pytest.mark.parametrize("dtype", DTYPES)
def test_many_small_numbers_beside_a_large_one(library, dtype: type) -> None:
    """The worst there is: what is left out grows with the depth."""
    a = np.full((16, 500), 0.00391, dtype)
    a[:, 0] = 0.6
    assert error(multiply(library, a, a), a, a) <= 500


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_not_finite_comes_out_as_in_a_chain_of_multiply_adds(library, dtype: type) -> None:
    a, b = (np.abs(x) for x in operands((40, 35, 144), dtype))
    a[3, 5], a[30, 0], b[20, 11], b[33, 140] = np.inf, np.nan, -np.inf, np.nan
    a[20, 11], b[4, 11] = 0, 0
    a[25], b[9] = np.finfo(dtype).max / 8, 2  # overflows in the sum alone
    with np.errstate(all="ignore"):
        expected = a @ b.T
        c = multiply(library, a, b)
    assert_agrees_where_not_finite(c, expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_not_finite_changes_no_bit_beside_it(library, dtype: type) -> None:
    a, b = operands((40, 35, 144), dtype)
    before = multiply(library, a, b)
    a[19, 5], b[20, 11] = np.inf, np.nan
    others = np.ix_(np.arange(40) != 19, np.arange(35) != 20)
    assert np.array_equal(multiply(library, a, b)[others], before[others])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", [20, 128, 300])
def test_neither_cuts_nor_the_order_of_operands_change_a_bit(library, k: int, dtype: type) -> None:
    a, b = operands((45, 38, k), dtype)
    whole = multiply(library, a, b)
    assert np.array_equal(multiply(library, b, a), whole.T)
    for count in (1, 16, 33):
        assert np.array_equal(multiply(library, a[:count], b), whole[:count])
        assert np.array_equal(multiply(library, a[-count:], b), whole[-count:])
