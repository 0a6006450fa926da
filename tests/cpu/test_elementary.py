"""The vector elementary functions: error in ulp, special values, symmetry and partial vectors, at every level."""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Callable
from pathlib import Path

import mpmath
import numpy as np
import pytest
from levels import compiled

HARNESS = Path(__file__).with_name("elementary_harness.cpp")
VECTOR_LEVELS = ["base", "avx2", "avx512", "elsewhere"]
FUNCTIONS = ["tanh", "exp", "log1p", "sin", "cos", "erf"]
DTYPES = [np.float32, np.float64]
PROMISED_ULP = {np.float32: 2.0, np.float64: 4.0}
TRIG_LIMIT = {np.float32: 1e5, np.float64: 1e8}  # sin and cos keep the promise by their own code up to here
C_NAME = {np.float32: "float", np.float64: "double"}
INF, NAN = math.inf, math.nan


@pytest.fixture(scope="module", params=VECTOR_LEVELS)
def library(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return compiled(HARNESS, request.param, tmp_path_factory.mktemp("elementary"))


def evaluate(library: ctypes.CDLL, name: str, x: np.ndarray) -> np.ndarray:
    x = np.ascontiguousarray(x)
    y = np.full_like(x, 7)
    function = getattr(library, f"{name}_{C_NAME[x.dtype.type]}")
    function(ctypes.c_void_p(x.ctypes.data), ctypes.c_void_p(y.ctypes.data), ctypes.c_long(x.size))
    return y


@functools.cache
def samples(name: str, dtype: type, n: int) -> np.ndarray:
    """Points dense where the function changes, over all magnitudes, and nearest to the multiples of π/2."""
    rng = np.random.default_rng(0)
    sign = rng.choice([-1.0, 1.0], n)
    if name == "log1p":
        parts = [rng.uniform(0, 1, n), np.exp(rng.uniform(-80, 0, n)), [0.0, 1.0]]
    elif name == "exp":
        low, high = (-104.0, 88.7) if dtype is np.float32 else (-746.0, 709.7)
        parts = [rng.uniform(low, high, n), rng.uniform(-2, 2, n), sign * np.exp(rng.uniform(-60, 4, n))]
    elif name in ("sin", "cos"):
        limit = TRIG_LIMIT[dtype]
        turns = np.concatenate([rng.integers(0, int(limit / 1.571), n), np.arange(64)])
        near = (turns * np.longdouble("1.5707963267948966192313")).astype(dtype)
        parts = [near, np.nextafter(near, dtype(0)), rng.uniform(-limit, limit, n), rng.uniform(-10, 10, n)]
        parts.append(sign * np.exp(rng.uniform(-60, math.log(limit), n)))
    else:
        parts = [rng.uniform(-1, 1, n), rng.uniform(-6, 6, n), sign * np.exp(rng.uniform(-80, 3.5, n))]
    return np.concatenate([np.asarray(part).astype(dtype) for part in parts])


@functools.cache
def reference(name: str, dtype: type, n: int) -> tuple[np.ndarray, np.ndarray]:
    """f at the samples as high + low: in float64 for float32 arguments, from 40 digits for float64."""
    x = samples(name, dtype, n)
    if dtype is np.float32:
        f: Callable = np.vectorize(math.erf) if name == "erf" else getattr(np, name)
        high = f(x.astype(np.float64))
        return high, np.zeros_like(high)
    with mpmath.workdps(40):
        exact = [getattr(mpmath, name)(mpmath.mpf(float(v))) for v in x]
        high = np.array([float(v) for v in exact])
        low = np.array([float(v - mpmath.mpf(h)) for v, h in zip(exact, high, strict=True)])
    return high, low


def ulp_error(y: np.ndarray, high: np.ndarray, low: np.ndarray) -> np.ndarray:
    spacing = np.spacing(np.abs(high).astype(y.dtype)).astype(np.float64)
    return np.abs((y.astype(np.float64) - high) - low) / spacing


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_error_is_within_the_promised_ulp(library: ctypes.CDLL, name: str, dtype: type) -> None:
    n = 100_000 if dtype is np.float32 else 2000
    x = samples(name, dtype, n)
    error = ulp_error(evaluate(library, name, x), *reference(name, dtype, n))
    worst = int(np.argmax(np.where(np.isnan(error), INF, error)))
    assert error[worst] <= PROMISED_ULP[dtype], f"{name}({x[worst]!r}) is off by {error[worst]:.2f} ulp"


SPECIAL: dict[str, list[tuple[float, float]]] = {
    "tanh": [(NAN, NAN), (INF, 1), (-INF, -1), (0.0, 0.0), (-0.0, -0.0), (1e30, 1), (-30, -1)],
    "exp": [(NAN, NAN), (INF, INF), (-INF, 0.0), (0.0, 1), (-0.0, 1), (1e4, INF), (-1e4, 0.0)],
    "log1p": [(NAN, NAN), (0.0, 0.0)],
    "sin": [(NAN, NAN), (INF, NAN), (-INF, NAN), (0.0, 0.0), (-0.0, -0.0)],
    "cos": [(NAN, NAN), (INF, NAN), (-INF, NAN), (0.0, 1), (-0.0, 1)],
    "erf": [(NAN, NAN), (INF, 1), (-INF, -1), (0.0, 0.0), (-0.0, -0.0), (1e30, 1), (-30, -1)],
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_special_values(library: ctypes.CDLL, name: str, dtype: type) -> None:
    pairs = SPECIAL[name] * 5  # in every lane, beside ordinary values
    x, expected = (np.array(column, dtype) for column in zip(*pairs, strict=True))
    x, expected = np.insert(x, range(0, x.size, 3), 0), np.insert(expected, range(0, x.size, 3), NAN)
    y = evaluate(library, name, x)
    kept = np.ones(x.size, bool)
    kept[[i + j for j, i in enumerate(range(0, len(pairs), 3))]] = False
    np.testing.assert_array_equal(y[kept], expected[kept])
    signed = kept & ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(y[signed]), np.signbit(expected[signed]))
    ordinary = {"exp": 1.0, "cos": 1.0}.get(name, 0.0)
    assert np.all(y[~kept] == ordinary)


@pytest.mark.parametrize("dtype", DTYPES)
def test_exp_overflows_and_underflows_where_it_should(library: ctypes.CDLL, dtype: type) -> None:
    info = np.finfo(dtype)
    top, bottom = dtype(math.log(float(info.max))), dtype(math.log(float(info.smallest_normal)))
    x = np.array([top * dtype(0.999), top * dtype(1.001), bottom, bottom * dtype(1.05), bottom * dtype(1.3)], dtype)
    y = evaluate(library, "exp", x)
    assert np.isfinite(y[0]) and y[1] == INF
    assert 0 < y[3] < info.smallest_normal and y[4] == 0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["tanh", "sin", "cos", "erf"])
def test_odd_functions_are_odd_and_cos_even_bit_for_bit(library: ctypes.CDLL, name: str, dtype: type) -> None:
    x = samples(name, dtype, 2000)
    sign = 1 if name == "cos" else -1
    np.testing.assert_array_equal(evaluate(library, name, -x), sign * evaluate(library, name, x))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["tanh", "sin", "cos", "erf"])
def test_bounded_by_one(library: ctypes.CDLL, name: str, dtype: type) -> None:
    assert np.max(np.abs(evaluate(library, name, samples(name, dtype, 2000)))) <= 1


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["tanh", "sin", "erf"])
def test_subnormal_arguments_keep_their_value(library: ctypes.CDLL, name: str, dtype: type) -> None:
    tiny = float(np.finfo(dtype).smallest_subnormal)
    x = np.array([tiny * k for k in (1, 2, 3, 1000, 4_000_001)], dtype)
    slope = 2 / math.sqrt(math.pi) if name == "erf" else 1.0
    np.testing.assert_allclose(evaluate(library, name, x), x * slope, rtol=0, atol=tiny)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["sin", "cos"])
def test_huge_arguments_are_right_and_leave_other_lanes_alone(library: ctypes.CDLL, name: str, dtype: type) -> None:
    x = samples(name, dtype, 200).copy()
    alone = evaluate(library, name, x)
    huge = np.arange(0, x.size, 7)
    x[huge] = np.geomspace(TRIG_LIMIT[dtype] * 1.01, float(np.finfo(dtype).max) * 0.9, huge.size) * (-1) ** (huge % 2)
    y = evaluate(library, name, x)
    np.testing.assert_array_equal(np.delete(y, huge), np.delete(alone, huge))
    with mpmath.workdps(400):
        exact = np.array([float(getattr(mpmath, name)(mpmath.mpf(float(v)))) for v in x[huge]])
    assert np.max(ulp_error(y[huge], exact, np.zeros_like(exact))) <= PROMISED_ULP[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_partial_vector_gives_the_same_bits_and_writes_no_further(library: ctypes.CDLL, dtype: type) -> None:
    x = samples("tanh", dtype, 100)[:40].copy()
    whole = evaluate(library, "tanh", x)
    function = getattr(library, f"tanh_{C_NAME[dtype]}")
    for n in range(x.size):
        y = np.full_like(x, 7)
        function(ctypes.c_void_p(x.ctypes.data), ctypes.c_void_p(y.ctypes.data), ctypes.c_long(n))
        np.testing.assert_array_equal(y[:n], whole[:n])
        assert np.all(y[n:] == 7)


@pytest.mark.parametrize("dtype", DTYPES)
def test_sum_and_any_see_every_lane(library: ctypes.CDLL, dtype: type) -> None:
    lanes = library.vector_bytes() // np.dtype(dtype).itemsize
    total, negative = (getattr(library, f"{stem}_{C_NAME[dtype]}") for stem in ("sum", "any_negative"))
    total.restype = {np.float32: ctypes.c_float, np.float64: ctypes.c_double}[dtype]
    negative.restype = ctypes.c_bool
    x = 2.0 ** np.arange(lanes, dtype=dtype)
    assert total(ctypes.c_void_p(x.ctypes.data)) == 2**lanes - 1
    assert not negative(ctypes.c_void_p(x.ctypes.data))
    for lane in range(lanes):
        y = x.copy()
        y[lane] = -1
        assert negative(ctypes.c_void_p(y.ctypes.data))
