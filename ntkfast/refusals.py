"""What is said of a residual function that does with its values what a row cannot."""

from __future__ import annotations


def branch_message(name: str) -> str:
    """The sentence for `if`, `and`, `or`, `not` on values."""
    return (
        f"residual {name}: expected one formula for all points, got a branch (if, and, or, not, bool) on values; "
        f"use torch.where(condition, a, b)"
    )


def conversion_message(name: str, how: str) -> str:
    """The sentence for values that become a number of Python, `how` being "to float" or "by .item()"."""
    return f"residual {name}: expected a torch function, got a conversion {how}"


def meaning(name: str, error: Exception) -> Exception | None:
    """What an error that a residual function meets in Python, torch or NumPy says of it; None: it is its own."""
    text = str(error)
    if "Boolean value of Tensor" in text:
        return TypeError(branch_message(name))
    if "does not support ufuncs" in text or "Can't call numpy() on Tensor" in text:
        return TypeError(f"residual {name}: expected a torch function, as in torch.sin(u), got one of NumPy")
    if text == "too many indices for tensor of dimension 1":
        return ValueError(
            f"residual {name}: expected u and its derivatives as they are, (n,), one value a point, "
            f"got an index of several axes"
        )
    if text in ("'Tensor' object has no attribute 'd'", "'Tensor' object has no attribute 'laplacian'"):
        return ValueError(
            f"residual {name}: d() expects an output itself, as in u.d(x=2), got a product or a function of it"
        )
    return None
