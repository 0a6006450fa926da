"""A capture warms up first, on a stream of its own, and keeps the result of the call that is captured."""

import contextlib
import importlib
import sys
from pathlib import Path
from types import SimpleNamespace

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


class Cuda:
    """As much of torch.cuda as a warm-up calls, writing down what it is asked."""

    def __init__(self):
        self.log = []
        self.current = Stream("default", self)

    def current_stream(self):
        return self.current

    def current_device(self):
        return 0

    def Stream(self):
        return Stream("side", self)

    def synchronize(self):
        self.log.append("synchronize")

    @contextlib.contextmanager
    def stream(self, stream):
        before, self.current = self.current, stream
        yield
        self.current = before

    def graph(self, device):
        def capture(work):
            self.log.append("begin")
            result = work()
            self.log.append("end")
            return result

        return SimpleNamespace(capture=capture, replay=lambda: self.log.append("replay"))


class Stream:
    def __init__(self, name, cuda):
        self.name, self.cuda = name, cuda

    def wait_stream(self, other):
        self.cuda.log.append(f"{self.name} waits for {other.name}")


def test_order_of_a_capture(monkeypatch):
    cuda = Cuda()
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = importlib.import_module("cuda_graph")
    monkeypatch.delitem(sys.modules, "cuda_graph")
    monkeypatch.setattr(module, "torch", SimpleNamespace(cuda=cuda, device=lambda *name: name))
    monkeypatch.setattr(module, "CudaGraph", cuda.graph)
    call = module.Captured(lambda: cuda.log.append(f"call on {cuda.current.name}") or "result")
    warm_up = ["side waits for default", *3 * ["call on side"], "default waits for side", "synchronize"]
    assert cuda.log == [*warm_up, "begin", "call on default", "end"]
    assert cuda.current.name == "default"
    cuda.log.clear()
    assert call() == "result" and cuda.log == ["replay"]
