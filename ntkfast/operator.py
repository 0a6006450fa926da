"""The kernel as a linear operator: K v = J (Jᵀ v), without K and without J."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .factors import factors
from .residual import value

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator

# Up to here a dense gram and all its eigenvalues take less time than the sweeps of a Lanczos iteration.
DENSE_ROWS = 512


def check_kernel(owner: str, K: Tensor) -> None:
    """Refuse a kernel, or the diagonal of one, that is not finite: no eigenvalue solver says so.

    Raises:
        ValueError: NaN or infinity.
    """
    if not bool(K.isfinite().all()):
        raise ValueError(f"{owner}: expected a finite kernel, got {'NaN' if bool(K.isnan().any()) else 'infinity'}")


class NTKOperator:
    """The neural tangent kernel K = J Jᵀ of residual rows, applied without forming it; a snapshot at the present θ.

    Args:
        net: a native network.
        points: (n, d), in the units of the problem; or a dict of groups {name: (points, residual)}, whose rows follow
            each other in its order.
        residual: what the rows are; the outputs themselves by default.
        wrt: fnmatch patterns on parameter names; all trainable parameters if None.

    Raises:
        ValueError: a network, residual or points that the native core refuses, or a pattern without a match.

    Cost: two sweeps when made; then N C Σ n_in n_out multiply–adds twice for each K v; memory for the factors,
    N C Σ (n_in + n_out) numbers.

    Example:
        >>> import torch
        >>> import ntkfast as ntk
        >>> net = ntk.MLP([2, 16, 1])
        >>> K = ntk.NTKOperator(net, torch.rand(5, 2))
        >>> K.shape, (K @ torch.ones(5)).shape
        ((5, 5), torch.Size([5]))
    """

    def __init__(
        self,
        net: nn.Module,
        points: Tensor | Mapping[str, tuple[Tensor, Any]],
        residual: Any = value,
        *,
        wrt: str | Sequence[str] | None = None,
    ) -> None:
        self.factors = factors(net, points, residual, wrt=wrt)
        rows = self.factors.rows.detach()
        self._n, self._dtype, self._device = rows.numel(), rows.dtype, rows.device

    @property
    def shape(self) -> tuple[int, int]:
        """(N, N)."""
        return self._n, self._n

    @property
    def dtype(self) -> torch.dtype:
        """The type of the parameters, and of what ``K @ v`` takes and returns."""
        return self._dtype

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return self._device

    def __matmul__(self, v: Tensor) -> Tensor:
        """Return K v for ``v`` of shape (N,), or K V for (N, k), column by column.

        Raises:
            TypeError: not a tensor.
            ValueError: another length, type or device.
        """
        if not isinstance(v, Tensor):
            raise TypeError(f"NTKOperator: expected a tensor after @, got {type(v).__name__}")
        if v.ndim not in (1, 2) or v.shape[0] != self._n:
            raise ValueError(f"NTKOperator: expected v of shape ({self._n},) or ({self._n}, k), got {tuple(v.shape)}")
        if v.dtype != self._dtype or v.device != self._device:
            raise ValueError(f"NTKOperator: expected v in {self._dtype} on {self._device}, got {v.dtype} on {v.device}")
        if v.ndim == 1:
            return self.factors.jvp(self.factors.vjp(v))
        columns = [self.factors.jvp(self.factors.vjp(column.contiguous())) for column in v.unbind(1)]
        return torch.stack(columns, 1) if columns else v.new_empty(self._n, 0)

    def diag(self) -> Tensor:
        """Return the diagonal K_ii, (N,)."""
        found = self.factors.diag()
        if not isinstance(found, Mapping):
            return found
        return torch.cat([torch.empty(0, dtype=self._dtype, device=self._device), *found.values()])

    def trace(self) -> Tensor:
        """Return the trace of the whole operator, 0-d: over all groups together."""
        found = self.factors.trace()
        if not isinstance(found, Mapping):
            return found
        nothing = torch.zeros((), dtype=torch.float64, device=self._device)
        return sum((trace.double() for trace in found.values()), nothing).to(self._dtype)

    def to_dense(self) -> Tensor:
        """Return the gram (N, N)."""
        return self.factors.gram()

    def eigsh(self, k: int = 6, which: str = "LA") -> tuple[Tensor, Tensor]:
        """Return k eigenvalues and eigenvectors: K v_j = μ_j v_j with μ₁ ≥ μ₂ ≥ … and orthonormal v_j.

        The dense gram and all its eigenvalues, in float64, are used where N ≤ 512, 4 k ≥ N or the smallest eigenvalues
        are asked for; else Lanczos iterations (ARPACK) with K v, from a fixed start, so that a repetition gives the
        same numbers.

        Args:
            k: how many, 1 … N.
            which: "LA" the largest, "SA" the smallest.

        Returns:
            (values (k,), vectors (N, k)) in the operator's dtype, values descending.

        Raises:
            ValueError: k is out of range, ``which`` is neither of the two, or the kernel is not finite.

        Cost: dense N² + 10 N³ beside the gram; Lanczos a few times k products K v.
        """
        if not isinstance(k, int) or isinstance(k, bool) or not 1 <= k <= self._n:
            raise ValueError(f"NTKOperator.eigsh: expected k as a whole number from 1 to {self._n}, got {k!r}")
        if which not in ("LA", "SA"):
            raise ValueError(f"NTKOperator.eigsh: expected which 'LA' (largest) or 'SA' (smallest), got {which!r}")
        check_kernel("NTKOperator.eigsh", self.diag())  # K is J Jᵀ: where J is not finite, neither is the diagonal
        nothing = not bool(self.diag().any())  # Lanczos finds no start in a kernel that is zero
        if self._n <= DENSE_ROWS or 4 * k >= self._n or which == "SA" or nothing:
            values, vectors = torch.linalg.eigh(self.to_dense().double())  # ascending
            chosen = slice(self._n - k, self._n) if which == "LA" else slice(0, k)
            values, vectors = values[chosen].flip(0), vectors[:, chosen].flip(1)
        else:
            values, vectors = self._lanczos(k)
        values = values.to(self._dtype)
        check_kernel("NTKOperator.eigsh", values)
        return values, vectors.to(self._dtype)

    def to_scipy(self) -> LinearOperator:
        """Return the operator as a ``scipy.sparse.linalg.LinearOperator`` of numpy's type for ``dtype``."""
        from scipy.sparse.linalg import LinearOperator

        def apply(v: Any) -> Any:
            if v.dtype.kind == "c":
                return apply(v.real) + 1j * apply(v.imag)
            return (self @ torch.from_numpy(v.copy()).to(self._device, self._dtype)).cpu().numpy()

        kind = torch.empty(0, dtype=self._dtype, device="cpu").numpy().dtype
        flat = lambda v: apply(v.reshape(-1))  # noqa: E731  scipy may hand over (N, 1)
        products = {"matvec": flat, "rmatvec": flat, "matmat": apply, "rmatmat": apply}
        # scipy makes the class that fits these functions, which a type checker cannot see.
        return LinearOperator(shape=self.shape, dtype=kind, **products)  # type: ignore[call-arg]

    def _lanczos(self, k: int) -> tuple[Tensor, Tensor]:
        import numpy as np
        from scipy.sparse.linalg import LinearOperator, eigsh

        whole = self.to_scipy()

        # By a power of two, which changes no bit: ARPACK squares numbers that may be near the largest or the smallest.
        scale = 2.0 ** (math.frexp(float(self.diag().max()))[1] - 1)

        def product(v: Any) -> Any:
            found = whole.matvec(v)
            check_kernel("NTKOperator.eigsh", torch.from_numpy(found))  # entries may be finite and their sums not
            return found / scale

        operator = LinearOperator(shape=self.shape, dtype=whole.dtype, matvec=product)  # type: ignore[call-arg]
        start = np.random.default_rng(0).standard_normal(self._n).astype(operator.dtype)
        values, vectors = eigsh(operator, k=k, which="LA", v0=start)
        order = np.argsort(values)[::-1].copy()
        found = (torch.from_numpy(values[order]).double() * scale, torch.from_numpy(vectors[:, order].copy()))
        return found[0].to(self._device), found[1].to(self._device)

    def __repr__(self) -> str:
        """Return shape, type and device."""
        return f"NTKOperator(shape={self.shape}, dtype={self._dtype}, device={self._device})"
