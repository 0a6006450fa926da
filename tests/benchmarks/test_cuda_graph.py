"""A capture warms up on its own stream, and leaves the current stream and the first error as they were."""

import contextlib
import importlib
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


class Cuda:
    """As much of torch.cuda as a capture calls, writing down what it is asked."""

    def __init__(self):
        self.log = []
        self.current = Stream("default", self)

    def current_stream(self):
        return self.current

    def set_stream(self, stream):
        self.current = stream

    def Stream(self):
        return Stream("side", self)

    def CUDAGraph(self):
        return SimpleNamespace(replay=lambda: self.log.append("replay"))

    def synchronize(self):
        self.log.append("synchronize")

    @contextlib.contextmanager
    def stream(self, stream):
        before, self.current = self.current, stream
        yield
        self.current = before

    @contextlib.contextmanager
    def graph(self, graph, stream):
        before, self.current = self.current, stream
        self.log.append("begin")
        try:
            yield
        except RuntimeError:
            raise RuntimeError("the capture failed") from None  # and the stream stays
        self.log.append("end")
        self.current = before


class Stream:
    def __init__(self, name, cuda):
        self.name, self.cuda = name, cuda

    def wait_stream(self, other):
        self.cuda.log.append(f"{self.name} waits for {other.name}")


@pytest.fixture
def cuda():
    return Cuda()


@pytest.fixture
def captured(monkeypatch, cuda):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = importlib.import_module("cuda_graph")
    monkeypatch.setattr(module, "torch", SimpleNamespace(cuda=cuda))
    yield module.Captured
    del sys.modules["cuda_graph"]


def test_order_of_a_capture(captured, cuda):
    call = captured(lambda: cuda.log.append(f"call on {cuda.current.name}") or "result")
    warm_up = ["side waits for default", *3 * ["call on side"], "default waits for side", "synchronize"]
    assert cuda.log == [*warm_up, "begin", "call on side", "end"]
    assert cuda.current.name == "default"
    cuda.log.clear()
    assert call() == "result" and cuda.log == ["replay"]


def test_a_capture_that_fails_says_why_and_restores_the_stream(captured, cuda):
    def call():
        if "begin" in cuda.log:
            raise RuntimeError("a number was asked for")

    with pytest.raises(RuntimeError, match="a number was asked for"):
        captured(call)
    assert cuda.current.name == "default"
