"""Budgets hold: resident memory beyond inputs and result, the bytes that plans count, and the least budget."""

import re
import subprocess
import sys
import weakref

import pytest
import torch
from cases import Case, burgers, mlp, two_components, u_t, uniform, wave
from torch import nn

import ntkfast as ntk
from ntkfast import assembly, drift
from ntkfast.contraction import contract
from ntkfast.memory import factor_bytes, parse_memory
from ntkfast.snapshot import sweep
from ntkfast.sweep import chain_args, group_args

NARROW = Case("narrow", lambda: mlp(nn.Tanh, (2, 9, 9, 1)), wave)

# Each runs in a process of its own: what is resident at most while a verb runs, beyond what was before.
MEASURE = """
import resource, sys
import torch, ntkfast as ntk
torch.manual_seed(0)
wave = ntk.residual("t", "x")(lambda u: u.d(t=2) - 4.0 * u.d(x=2))
burgers = ntk.residual("t", "x")(lambda u: u.d(t=1) + u * u.d(x=1) - 0.01 * u.d(x=2))
two = ntk.residual("t", "x")(lambda u, at: {{"a": u - at.x, "b": u.d(t=1)}})
net, x, out = ntk.MLP([2, {width}, {width}, {width}, 1]), torch.rand({n}, 2), torch.zeros({side}, {side})
def run(x, **more):
    return {call}
run(x[:8], memory="64MB")  # libraries and threads
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
run(x, memory={budget}, **(dict(out=out) if len(out) else {{}}))
print(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))
"""
RUNS = {
    "trace": ("ntk.trace(net, x, wave, **more)", 64, 300_000, 0),
    "trace of products": ("ntk.trace(net, x, burgers, **more)", 64, 300_000, 0),
    "diag": ("ntk.diag(net, x, wave, **more)", 64, 300_000, 0),
    "gram": ("ntk.gram(net, x, wave, **more)", 64, 3000, 3000),
    "wide gram": ("ntk.gram(net, x, wave, **more)", 300, 1000, 1000),
    "gram of products": ("ntk.gram(net, x, burgers, **more)", 64, 2000, 2000),
    "explicit gram": ('ntk.gram(net, x, wave, method="explicit", **more)', 32, 1500, 1500),
    "summed gram": ("ntk.gram(net, x, two, sum_components=True, **more)", 64, 2000, 2000),
}


@pytest.mark.parametrize("name", RUNS)
def test_memory_beyond_inputs_and_result_stays_within_the_budget(name: str, tmp_path):
    call, width, n, side = RUNS[name]
    budget, result = 16_000_000, 4 * n if name == "diag" else 0
    script = MEASURE.format(call=call, width=width, n=n, side=side, budget=budget)
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) <= budget + result


@pytest.mark.parametrize("residual", [ntk.value, wave, two_components, burgers], ids=lambda residual: residual.name)
def test_the_bytes_of_factors_are_those_that_a_sweep_keeps(residual):
    net, x = NARROW.net(), uniform(50)
    f = ntk.factors(net, x, residual)
    kept = 8 * (f._snapshot.A.numel() + f._snapshot.D.numel())
    counted = factor_bytes(f._snapshot.chain, f._snapshot.groups)
    if f._snapshot.groups.linear:
        assert counted == kept
    else:  # pre-activations, channels and forms
        stash = f._snapshot.workspace._buffers["Z"].nbytes
        assert kept + stash < counted < 1.5 * (kept + stash)
    planned = dict(ntk.plan(net, x, residual).memory)["factors"]
    assert 0.8 * counted < planned <= counted


@pytest.mark.parametrize(("x", "y"), [(wave, u_t), (u_t, wave), (two_components, burgers), (burgers, ntk.value)])
def test_the_least_budget_is_enough_and_nothing_less(x, y):
    net, points, others = NARROW.net(), uniform(40), uniform(30, 2, 5)
    with pytest.raises(ValueError, match="memory: expected at least") as refusal:
        ntk.gram(net, points, x, others, y, memory=100)
    least = int(re.search(r"at least (\d+) bytes", str(refusal.value))[1])
    assert torch.equal(ntk.gram(net, points, x, others, y, memory=least), ntk.gram(net, points, x, others, y))
    with pytest.raises(ValueError, match=f"at least {least} bytes"):
        ntk.gram(net, points, x, others, y, memory=least - 1)


VERBS = {assembly: ntk.gram, drift: lambda net, *more, memory: ntk.kernel_drift(net, net, *more, memory=memory)}


def at_least_budget(verb, *arguments):
    """Call a verb with the least budget, which its refusal names."""
    with pytest.raises(ValueError, match="memory: expected at least") as refusal:
        verb(*arguments, memory=100)
    return verb(*arguments, memory=int(re.search(r"at least (\d+) bytes", str(refusal.value))[1]))


@pytest.mark.parametrize("module", VERBS, ids=lambda module: module.__name__)
def test_the_least_budget_takes_pieces_of_eight(monkeypatch, module):
    """With fewer points workspaces weigh more than factors by far, and a gram takes minutes."""
    net, x, calls = NARROW.net(), uniform(320), []

    def counted(*args, **more):
        calls.append(args)
        return contract(*args, **more)

    monkeypatch.setattr(module, "contract", counted)
    at_least_budget(VERBS[module], net, x, wave)
    kernels = {assembly: 1, drift: 2}[module]
    assert len(calls) == kernels * 40 * 41 // 2


@pytest.mark.parametrize(
    ("widths", "residual"),
    [((2, 64, 64, 64, 1), burgers), ((2, 64, 64, 64, 64, 64, 1), wave), ((2, 64, 64, 64, 1), two_components)],
    ids=["nonlinear", "deep", "components"],
)
@pytest.mark.parametrize("module", VERBS, ids=lambda module: module.__name__)
def test_a_megabyte_is_enough_up_to_width_64(module, widths, residual):
    net, x = ntk.MLP(widths, dtype=torch.float64), uniform(70)
    VERBS[module](net, x, residual, memory="1MB")


@pytest.mark.parametrize("module", VERBS, ids=lambda module: module.__name__)
def test_factors_of_a_piece_are_gone_before_others_take_their_place(monkeypatch, module):
    """The budget counts one piece of either side and network."""
    net, x, made, alive = NARROW.net(), uniform(60), [], []

    def recorded(*args):
        alive.append(sum(factors() is not None for factors in made))
        found = sweep(*args)
        made.append(weakref.ref(found))
        return found

    monkeypatch.setattr(module, "sweep", recorded)
    at_least_budget(VERBS[module], net, x, wave)
    assert len(alive) > 8
    assert max(alive) == {assembly: 1, drift: 3}[module]


@pytest.mark.parametrize("module", VERBS, ids=lambda module: module.__name__)
def test_pieces_are_of_one_group_each(monkeypatch, module):
    """The bytes of a piece are counted for one group: several small ones together would exceed the budget."""
    net, groups, found = NARROW.net(), {str(i): (uniform(10, 2, i), wave) for i in range(3)}, []

    def recorded(chain, args, piece, *more):
        found.append(piece.names)
        return sweep(chain, args, piece, *more)

    monkeypatch.setattr(module, "sweep", recorded)
    at_least_budget(VERBS[module], net, groups)
    assert {len(names) for names in found} == {1}


def test_sums_of_components_are_the_same_by_pieces():
    net, x = NARROW.net(), uniform(90)
    whole = ntk.gram(net, x, two_components, sum_components=True)
    assert torch.equal(whole, whole.T)
    for memory in (250_000, "1MB"):
        assert torch.equal(ntk.gram(net, x, two_components, sum_components=True, memory=memory), whole)
        out = torch.empty_like(whole)
        ntk.gram(net, x, two_components, sum_components=True, memory=memory, out=out)
        assert torch.equal(out, whole)


@pytest.mark.parametrize(
    ("memory", "expected"), [(None, None), (1000, 1000), ("3", 3), ("1.5 GiB", 3 * 2**29), ("256MB", 256_000_000)]
)
def test_budgets_are_read(memory, expected):
    assert parse_memory(memory) == expected


@pytest.mark.parametrize("memory", [0, -1, "MB", "0MB", "1 furlong", "-3MB"])
def test_what_is_no_budget_is_refused(memory):
    with pytest.raises(ValueError, match="memory: expected"):
        parse_memory(memory)


@pytest.mark.parametrize("memory", [1.5, True, b"1MB"])
def test_budgets_of_other_types_are_refused(memory):
    with pytest.raises(TypeError, match="memory: expected bytes or a string"):
        parse_memory(memory)


def test_groups_of_a_sweep_are_counted_together():
    net = NARROW.net()
    chain, _ = chain_args(net)
    groups = group_args(chain, {"a": (uniform(5), ntk.value), "b": (uniform(7), wave)})
    alone = [
        group_args(chain, {name: group})
        for name, group in {"a": (uniform(5), ntk.value), "b": (uniform(7), wave)}.items()
    ]
    assert factor_bytes(chain, groups) == sum(factor_bytes(chain, one) for one in alone)


@pytest.mark.parametrize("memory", [100, "1MB", None])
def test_of_no_groups_or_points_any_budget_is_enough(memory):
    net, x = NARROW.net(), uniform(3)
    assert ntk.gram(net, {}, memory=memory).shape == (0, 0)
    assert ntk.gram(net, x[:0], wave, x, memory=memory).shape == (0, 3)
