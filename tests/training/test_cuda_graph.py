"""A capture is on its own device, and one that fails leaves stream, collector and torch as they were."""

from __future__ import annotations

import contextlib
import gc
import types
import weakref
from collections.abc import Callable

import pytest
import torch

import ntkfast as ntk
from ntkfast.training.cuda_graph import CudaGraph, Reads

POOL = (0, 7)


class FakeCuda:
    """The parts of torch.cuda that a capture calls; the end of a broken one complains as torch's does.

    Args:
        forgets: whether torch itself forgets a capture whose end has failed.
    """

    def __init__(self, forgets: bool) -> None:
        self.forgets = forgets
        self.captured_on: list[object] = []
        self.devices: list[torch.device] = []  # the current ones, innermost last
        self.collected: list[bool] = []  # whether Python's collector was on in a capture
        self.under_way: set[tuple[int, int]] = set()
        self.current = "the caller's stream"

    def CUDAGraph(self) -> object:
        return types.SimpleNamespace(register_generator_state=lambda generator: None)

    def Stream(self, device: object = "the current device") -> object:
        return f"a stream on {device}"

    def current_stream(self) -> object:
        return self.current

    def set_stream(self, stream: object) -> None:
        self.current = stream

    def current_device(self) -> int:
        return 1

    def graph_pool_handle(self) -> tuple[int, int]:
        return POOL

    @contextlib.contextmanager
    def device(self, device: torch.device):
        self.devices.append(device)
        yield
        self.devices.pop()

    @contextlib.contextmanager
    def graph(self, graph: object, pool: tuple[int, int] = (0, 0), stream: object = None, capture_error_mode: str = ""):
        assert not self.under_way, "a capture that nobody has ended"
        self.captured_on.append((*self.devices, stream))
        self.collected.append(gc.isenabled())
        self.current = stream
        self.under_way.add(pool)
        try:
            yield
        except Exception as error:
            if "device" not in str(error):  # a failure of Python alone does not break the capture
                self.under_way.discard(pool)
                raise
            if self.forgets:
                self.under_way.discard(pool)
            raise RuntimeError("operation failed due to a previous error during capture") from None
        self.under_way.discard(pool)
        self.current = "the caller's stream"

    def end(self, device: int, pool: tuple[int, int]) -> None:
        if pool not in self.under_way:
            raise RuntimeError("not currently recording to mempool_id")
        self.under_way.discard(pool)


@pytest.fixture(params=[False, True], ids=["torch goes on counting", "torch forgets"])
def fake(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> FakeCuda:
    fake, zeros = FakeCuda(request.param), torch.zeros
    for name in ("CUDAGraph", "Stream", "current_stream", "set_stream", "current_device", "graph_pool_handle"):
        monkeypatch.setattr(torch.cuda, name, getattr(fake, name))
    for name in ("device", "graph"):
        monkeypatch.setattr(torch.cuda, name, getattr(fake, name))
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", fake.end, raising=False)
    monkeypatch.setattr(torch, "zeros", lambda *size, device: zeros(*size))
    return fake


def fails(message: str, kind: type[Exception] = RuntimeError) -> None:
    raise kind(message)


def test_a_capture_is_on_its_own_device_with_the_collector_at_rest(fake: FakeCuda) -> None:
    graph = CudaGraph(torch.device("cuda:1"), torch.Generator())
    assert graph.capture(lambda: "found") == "found"
    assert fake.captured_on == [(torch.device("cuda:1"), "a stream on cuda:1")]
    assert fake.collected == [False] and gc.isenabled()


def test_what_nobody_needs_is_collected_before_a_capture(fake: FakeCuda) -> None:
    """Another graph in a cycle, say."""

    class Cycle:
        pass

    cycle = Cycle()
    cycle.itself, found = cycle, weakref.ref(cycle)
    del cycle
    CudaGraph(torch.device("cuda:1")).capture(lambda: found() and pytest.fail("it is still there"))


@pytest.mark.parametrize("message", ["a wait for the device", "a mistake"])
def test_a_capture_that_fails_leaves_everything_as_it_was(fake: FakeCuda, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        CudaGraph(torch.device("cuda:1")).capture(lambda: fails(message))
    assert fake.current == "the caller's stream" and not fake.under_way and gc.isenabled()
    # torch's own generator takes eager draws again after a capture that has ended well.
    assert len(fake.captured_on) == (2 if "device" in message else 1)
    assert CudaGraph(torch.device("cuda:1")).capture(lambda: "found") == "found"


def test_another_error_of_a_broken_capture_is_the_capture_s(fake: FakeCuda) -> None:
    with pytest.raises(RuntimeError, match="wraps a wait for the device"):
        CudaGraph(torch.device("cuda:1")).capture(lambda: fails("wraps a wait for the device", ValueError))
    with pytest.raises(ValueError, match="a mistake"):
        CudaGraph(torch.device("cuda:1")).capture(lambda: fails("a mistake", ValueError))


def test_a_collector_that_was_off_stays_off(fake: FakeCuda) -> None:
    gc.disable()
    try:
        CudaGraph(torch.device("cuda:1")).capture(lambda: None)
        assert not gc.isenabled()
    finally:
        gc.enable()


def held_by(work: Callable[[], object]) -> set[int]:
    with Reads() as reads:
        work()
    return {storage.data_ptr() for storage in reads.held.values()}


def test_reads_are_what_was_there_before_and_not_what_is_made() -> None:
    """Through views and in-place writes too."""
    x, w, out = torch.ones(3), torch.ones(2, 3), torch.zeros(3)

    def work() -> None:
        made = x * w[1]
        out.copy_(made.view(3) + made)

    assert held_by(work) == {t.data_ptr() for t in (x, w, out)}


def test_reads_are_those_of_native_operators_and_of_backward_passes_too() -> None:
    net, x, scale = ntk.MLP([2, 5, 1]), torch.rand(4, 2), torch.rand(4)
    held = held_by(lambda: (ntk.factors(net, x).rows * scale).sum().backward())
    assert {t.data_ptr() for t in (x, scale, *net.parameters())} <= held


def test_a_graph_holds_what_it_reads(fake: FakeCuda) -> None:
    graph, given = CudaGraph(torch.device("cuda:1")), [torch.ones(3)]
    storage = weakref.ref(given[0].untyped_storage())
    graph.capture(lambda: given[0] + 1)
    given.clear()
    gc.collect()
    assert storage() is not None
