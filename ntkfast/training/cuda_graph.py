"""A CUDA graph: work on a device that is recorded once and launched again as one."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, final

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

T = TypeVar("T")


@final
class Reads(TorchDispatchMode):
    """Holds the memory that work reads and has not made: a graph reads it again, whoever has dropped it since."""

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[int, torch.UntypedStorage] = {}
        self._made: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = _storages((args, kwargs))
        result = func(*args, **(kwargs or {}))
        self.held.update((place, storage) for place, storage in given.items() if place not in self._made)
        self._made.update(_storages(result).keys() - given.keys())
        return result


def _storages(tree: Any) -> dict[int, torch.UntypedStorage]:
    storages = [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]
    return {storage._cdata: storage for storage in storages}


@final
class CudaGraph:
    """A CUDA graph. It holds what it reads.

    Args:
        device: where the work is done.
        generator: advanced by every replay as by eager work; None: the work draws nothing.
    """

    def __init__(self, device: torch.device, generator: torch.Generator | None = None) -> None:
        self._device = device
        self._reads = Reads()
        with torch.cuda.device(device):  # a generator's state is registered on the current one
            self._graph = torch.cuda.CUDAGraph()
            if generator is not None:
                self._graph.register_generator_state(generator)

    def capture(self, work: Callable[[], T]) -> T:
        """Record the work without doing it; what it returns holds its results after each replay.

        Raises:
            RuntimeError: work that a graph cannot hold.
        """
        broken: Exception | None = None
        with torch.cuda.device(self._device), _collector_at_rest():
            before = torch.cuda.current_stream()
            # torch's own stream for captures is on the device that was captured first.
            stream, pool = torch.cuda.Stream(self._device), torch.cuda.graph_pool_handle()
            try:
                with torch.cuda.graph(self._graph, pool, stream, capture_error_mode="thread_local"):
                    try:
                        with self._reads:
                            return work()
                    except Exception as error:
                        broken = error
                        raise
            except Exception as late:
                if late is broken:  # and the capture has ended well
                    raise
                torch.cuda.set_stream(before)
                _end_capture(pool)
                if broken is None:
                    raise
                raise RuntimeError(str(broken)) from broken  # the end of a broken capture complains too, and says less
            finally:
                torch.cuda.set_stream(before)  # a capture that fails leaves its own one current
                broken = None  # whose traceback holds this frame

    def replay(self) -> None:
        """Queue the recorded work on the current stream."""
        with torch.cuda.device(self._device):
            self._graph.replay()


@contextlib.contextmanager
def _collector_at_rest() -> Iterator[None]:
    """Keep Python's collector from freeing another graph meanwhile, which breaks a capture."""
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _end_capture(pool: Any) -> None:
    """Let torch forget a capture whose end has failed; only the memory of its pool stays reserved.

    Before 2.13 it goes on counting it as under way, and the next release of cached memory fails by that
    (pytorch/pytorch#180395); its default generator refuses eager draws until a capture has ended well.
    """
    with contextlib.suppress(RuntimeError, AttributeError):  # where torch has done so itself
        torch._C._cuda_endAllocateToPool(torch.cuda.current_device(), pool)
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    with contextlib.suppress(RuntimeError):
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            torch.zeros(1, device="cuda")
