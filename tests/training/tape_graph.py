"""A stand-in for a CUDA graph that runs on the CPU: it records the operators of a step and does them again in place.

Like a graph it repeats work on the memory that was there when it was captured, calls no Python, and refuses what the
host would have to wait for: a look at a number, a tensor made from numbers of the host.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten
REFUSED = {aten._local_scalar_dense.default, aten.nonzero.default, aten.lift_fresh.default, aten.equal.default}


class TapeGraph(TorchDispatchMode):
    """Records what is dispatched under ``capture`` and dispatches it again on ``replay``."""

    captured = 0  # by all graphs together
    replayed = 0

    def __init__(self, *_: Any) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], list[Any]]] = []
        self.done = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in REFUSED:
            raise RuntimeError(f"operation not permitted when stream is capturing: {func}")
        result = func(*args, **kwargs)
        self.calls.append((func, args, kwargs, tree_leaves(result)))
        return result

    def capture(self, work: Callable[[], Any]) -> Any:
        """Record the work. It is done meanwhile, which counts as the first replay."""
        with self:
            found = work()
        TapeGraph.captured += 1
        return found

    def replay(self) -> None:
        """Do the work again, results into the tensors that held them first."""
        TapeGraph.replayed += 1
        if not self.done:
            self.done = True
            return
        with torch.no_grad():
            for func, args, kwargs, kept in self.calls:
                for old, new in zip(kept, tree_leaves(func(*args, **kwargs)), strict=True):
                    if isinstance(old, Tensor) and old is not new:
                        old.copy_(new)
