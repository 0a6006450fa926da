"""A call captured in a CUDA graph: what it launches, launched again at once, on the memory it was captured with."""

from __future__ import annotations

from collections.abc import Callable

import torch

WARM_UPS = 3


class Captured:
    """Calls replay the graph and return the tensors that the captured call returned, with new content.

    Args:
        call: works on tensors that stay where they are and waits for no number; whatever it allocates lies in the
            memory of the graph. It is kept, since the graph reads its tensors.
    """

    def __init__(self, call: Callable[[], object]) -> None:
        self.call = call
        self.graph = torch.cuda.CUDAGraph()
        before = torch.cuda.current_stream()
        # Warm up on the stream that is captured: libraries make their handles and workspaces by stream, at first use.
        stream = torch.cuda.Stream()
        stream.wait_stream(before)
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                call()
        before.wait_stream(stream)
        torch.cuda.synchronize()
        broken: Exception | None = None
        try:
            with torch.cuda.graph(self.graph, stream=stream):
                try:
                    self.result = call()
                except Exception as error:
                    broken = error
                    raise
        except Exception:
            if broken is not None:
                raise broken from None  # the end of the capture complains too, and says less
            raise
        finally:
            torch.cuda.set_stream(before)  # a capture that fails leaves its own stream behind as the current one

    def __call__(self) -> object:
        """Replay on the current stream."""
        self.graph.replay()
        return self.result
