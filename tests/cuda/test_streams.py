"""On a CUDA device operators run on torch's current stream and device, can be captured, and tell errors when asked."""

from __future__ import annotations

import copy
import os
import subprocess
import sys

import pytest
import torch
from cases import mlp, randomized, uniform, wave, wave_groups
from torch import Tensor, nn

import ntkfast as ntk
from ntkfast import _C
from ntkfast.training.cuda_graph import CudaGraph

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not (torch.cuda.is_available() and _C.cuda_built), reason="needs a CUDA device and a build with CUDA"
    ),
]

CYCLES = 2 * 10**8  # of a kernel that only waits: a tenth of a second


def on(device: str, n: int = 300) -> tuple[nn.Module, Tensor]:
    return randomized(mlp(nn.Tanh)).to(device, torch.float32), uniform(n).to(device, torch.float32)


def everything(net: nn.Module, x: Tensor) -> dict[str, Tensor]:
    f = ntk.factors(net, x, wave)
    weights = torch.ones(len(x), device=x.device)
    return {
        "rows": f.rows.detach(),
        "diag": f.diag(),
        "gram": f.gram(),
        "jvp": f.jvp({name: torch.ones_like(p) for name, p in f.parameters().items()}),
        "streaming diag": ntk.diag(net, x, wave),
        "trace": ntk.trace(net, x, wave),
        **f.vjp(weights),
    }


def test_another_stream_changes_no_bit() -> None:
    net, x = on("cuda")
    expected = everything(net, x)
    torch.cuda.synchronize()
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        actual = everything(net, x)
    side.synchronize()
    for name, value in expected.items():
        assert torch.equal(actual[name], value), name


def test_waits_for_what_the_current_stream_still_has_to_do() -> None:
    """Its input is written by the stream after a long wait: an operator on any other stream reads what was before."""
    net, x = on("cuda")
    f, weights = ntk.factors(net, x, wave), torch.rand(300, device="cuda")
    expected = f.vjp(weights)
    held, given = torch.full_like(weights, torch.nan), {n: torch.empty_like(p) for n, p in f.parameters().items()}
    torch.cuda.synchronize()
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        torch.cuda._sleep(CYCLES)
        held.copy_(weights)
        f.vjp(held, out=given)
        copies = {name: g.clone() for name, g in given.items()}
    side.synchronize()
    for name, value in expected.items():
        assert torch.equal(copies[name], value), name


def test_does_not_wait_for_other_streams() -> None:
    net, x = on("cuda")
    f, weights = ntk.factors(net, x, wave), torch.ones(300, device="cuda")
    given = {n: torch.empty_like(p) for n, p in f.parameters().items()}
    f.vjp(weights, out=given)
    busy, side, done = torch.cuda.Stream(), torch.cuda.Stream(), torch.cuda.Event()
    torch.cuda.synchronize()
    with torch.cuda.stream(busy):
        torch.cuda._sleep(20 * CYCLES)
    with torch.cuda.stream(side):
        f.vjp(weights, out=given)
        done.record()
    done.synchronize()
    assert not busy.query()
    torch.cuda.synchronize()


def test_works_on_the_device_of_its_tensors() -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two CUDA devices")
    net, x = on("cuda:0")
    expected = everything(net, x)
    actual = everything(copy.deepcopy(net).to("cuda:1"), x.to("cuda:1"))
    assert torch.cuda.current_device() == 0
    for name, value in expected.items():
        assert actual[name].device.index == 1, name
        assert torch.allclose(actual[name].cpu(), value.cpu(), rtol=1e-4, atol=1e-4 * float(value.abs().max())), name


def test_the_same_in_a_captured_graph() -> None:
    """Replayed on other points in the same memory: a whole step, sweeps and contractions, and no bit differs."""
    net = randomized(mlp(nn.Tanh)).to("cuda", torch.float32)
    groups = {name: (x.cuda(), residual) for name, (x, residual) in wave_groups(12, torch.float32).items()}
    buffers, others = ntk.Workspace(), ntk.Workspace()

    def step() -> list[Tensor]:
        f = ntk.factors(net, groups, workspace=buffers)
        with torch.no_grad():
            rows = f.rows
        traces = ntk.trace(net, groups)
        results = [rows, f.gram(), *f.trace().values(), *f.vjp(rows).values(), *traces.values()]
        found = ntk.loss_gradient(net, groups, traces=True, workspace=others)
        return [*results, *found.losses.values(), *found.gradient.values(), *(found.traces or {}).values()]

    before, side = torch.cuda.current_stream(), torch.cuda.Stream()
    side.wait_stream(before)
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    before.wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=side):
        held = step()
    for x, _ in groups.values():
        x.copy_(torch.rand(x.shape, generator=torch.Generator().manual_seed(len(x))))
    graph.replay()
    torch.cuda.synchronize()
    actual = [tensor.clone() for tensor in held]
    for got, expected in zip(actual, step(), strict=True):
        assert torch.equal(got, expected)


def test_grams_of_two_streams_share_no_memory() -> None:
    net, x = on("cuda")
    other = x.flip(0).contiguous()
    expected = ntk.gram(net, x, wave), ntk.gram(net, other, wave)
    torch.cuda.synchronize()
    streams = torch.cuda.Stream(), torch.cuda.Stream()
    for _ in range(5):
        found = []
        for stream, points in zip(streams, (x, other), strict=True):
            with torch.cuda.stream(stream):
                torch.cuda._sleep(CYCLES // 100)
                found.append(ntk.gram(net, points, wave))
        torch.cuda.synchronize()
        assert all(torch.equal(got, wanted) for got, wanted in zip(found, expected, strict=True))


def test_a_captured_gram_keeps_its_memory() -> None:
    net, x = on("cuda")
    expected = ntk.gram(net, x, wave)
    graph = CudaGraph(torch.device("cuda", torch.cuda.current_device()))
    held = graph.capture(lambda: ntk.gram(net, x, wave))
    for n in (40, 200):
        ntk.gram(net, x[:n], wave)
    graph.replay()
    assert torch.equal(held, expected)


def test_what_a_capture_makes_first_is_not_kept_for_others() -> None:
    """Layouts and identities are kept between calls: those that a graph writes are there only once it is replayed."""
    net = nn.Sequential(nn.Tanh(), nn.Linear(23, 1)).cuda()
    x = torch.rand(50, 23, device="cuda")
    graph = CudaGraph(torch.device("cuda", torch.cuda.current_device()))
    held = graph.capture(lambda: ntk.diag(net, x))
    torch.cuda.synchronize()
    found = ntk.diag(net, x)
    assert torch.allclose(found, 1 + x.tanh().square().sum(1), rtol=1e-5)
    graph.replay()
    assert torch.equal(held, found)


def test_a_capture_that_fails_leaves_nothing_behind() -> None:
    device = torch.device("cuda", torch.cuda.current_device())
    x = torch.ones(3, device="cuda")
    with pytest.raises(RuntimeError, match="captur"):
        CudaGraph(device).capture(lambda: float(x.sum()))
    torch.cuda.empty_cache()
    assert torch.rand(3, device="cuda").isfinite().all()
    graph = CudaGraph(device)
    held = graph.capture(lambda: x + 1)
    graph.replay()
    assert held.tolist() == [2, 2, 2]


FAULT = """
import os, torch, ntkfast as ntk
net, x, weights = ntk.MLP([2, 16, 1]).cuda(), torch.rand(5, 2).cuda(), torch.ones(5).cuda()
f, good, bad = ntk.factors(net, x), torch.tensor([0]).cuda(), torch.tensor([7]).cuda()
out = {name: torch.empty_like(p) for name, p in f.parameters().items()}
f.vjp(weights, out=out), weights[good], torch.cuda._sleep(1), torch.cuda.synchronize()
torch.cuda._sleep(10**9)
weights[bad]  # an index out of range: the device notices once it has slept
try:
    f.vjp(weights, out=out)
    print("returned", flush=True)
except RuntimeError as error:
    print(error, flush=True)
os._exit(0)
"""


@pytest.mark.parametrize(("sync", "said"), [("1", "ntkfast.vjp: the CUDA kernel failed: "), ("0", "returned")])
def test_an_error_on_the_device_surfaces_at_the_operator_when_asked(sync: str, said: str) -> None:
    environment = {**os.environ, "NTKFAST_SYNC": sync}
    done = subprocess.run([sys.executable, "-c", FAULT], env=environment, capture_output=True, text=True)
    assert said in done.stdout, done.stdout + done.stderr
