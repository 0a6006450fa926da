"""How the tables write times, ratios and sizes."""

from __future__ import annotations

from collections.abc import Mapping


def time_of(seconds: float | None) -> str:
    """Three digits in a unit that suits them."""
    if seconds is None:
        return "–"
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"


def times(ratio: float) -> str:
    """A ratio, with a decimal where it has one digit."""
    return f"{ratio:.0f}×" if ratio >= 10 else f"{ratio:.1f}×"


def size_of(size: Mapping) -> str:
    """Width and rows of a measurement."""
    rows = f"N = {size['n']}" if "n" in size else " + ".join(str(size[group]) for group in ("u", "ut", "r")) + " rows"
    groups = f" each of {size['groups']}" if "groups" in size else ""
    kind = ", float64" if size.get("dtype") == "float64" else ""
    return f"width {size['width']}, {rows}{groups}{kind}"
