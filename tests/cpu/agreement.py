"""What products must have in common with a chain of multiply–adds."""

from __future__ import annotations

import numpy as np


def assert_agrees_where_not_finite(c: np.ndarray, expected: np.ndarray) -> None:
    """NaN and infinities stand where they are expected, and everything else is as it should be."""
    assert np.array_equal(np.isnan(c), np.isnan(expected))
    assert np.array_equal(c[np.isinf(expected)], expected[np.isinf(expected)])
    clean = np.isfinite(expected)
    assert clean.sum() > 1000
    np.testing.assert_allclose(c[clean], expected[clean], rtol=1e-5)
