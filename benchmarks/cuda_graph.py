"""A call captured in a CUDA graph: what it launches, launched again at once, on the memory it was captured with."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ntkfast.training.cuda_graph import CudaGraph

WARM_UPS = 3


class Captured:
    """Calls replay the graph and return the tensors that the captured call returned, with new content.

    Args:
        call: works on tensors that stay where they are and waits for no number; whatever it allocates lies in the
            memory of the graph. It is kept, since the graph reads its tensors.
    """

    def __init__(self, call: Callable[[], object]) -> None:
        self.call = call
        before = torch.cuda.current_stream()
        # Libraries make their handles and workspaces at first use; those of the caller's stream are left alone.
        stream = torch.cuda.Stream()
        stream.wait_stream(before)
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                call()
        before.wait_stream(stream)
        torch.cuda.synchronize()
        self.graph = CudaGraph(torch.device("cuda", torch.cuda.current_device()))
        self.result = self.graph.capture(call)

    def __call__(self) -> object:
        """Replay on the current stream."""
        self.graph.replay()
        return self.result
