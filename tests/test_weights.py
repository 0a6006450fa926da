"""λ_i = Σ_j T_j / T_i, computed when due and held between; the paper's network has the paper's weights."""

import numpy as np
import pytest
import torch
from torch import nn

from ntkfast.factors import factors
from ntkfast.networks import MLP
from ntkfast.problems import Points
from ntkfast.residual import residual, value
from ntkfast.trace import trace
from ntkfast.weights import NTKWeights


@residual("t", "x")
def u_t(u):
    return u.d(t=1)


@residual("t", "x")
def wave(u):
    return u.d(t=2) - 4.0 * u.d(x=2)


def groups(n_u=6, n_ut=6, n_r=6, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = [torch.rand(n, 2, generator=generator, dtype=dtype) for n in (n_u, n_ut, n_r)]
    return {"u": (x[0], value), "ut": (x[1], u_t), "r": (x[2], wave)}


@pytest.fixture
def net():
    torch.manual_seed(0)
    return MLP([2, 12, 12, 1], dtype=torch.float64)


def floats(lam):
    return {name: value.item() for name, value in lam.items()}


def test_the_inverse_weights_sum_to_one_and_follow_the_traces(net):
    lam = NTKWeights()(net, groups())
    T = trace(net, groups())
    total = sum(T.values())
    assert floats(lam) == pytest.approx({name: (total / T[name]).item() for name in T}, rel=1e-12)
    assert sum(1 / v for v in floats(lam).values()) == pytest.approx(1.0, abs=1e-12)


def test_the_mean_rule_divides_by_rows_and_the_sum_rule_does_not():
    traces, rows = {"a": 6.0, "b": 6.0}, {"a": 2, "b": 6}
    assert floats(NTKWeights().update(traces, rows=rows)) == pytest.approx({"a": 4 / 3, "b": 4.0})
    assert floats(NTKWeights(normalize="sum").update(traces)) == {"a": 2.0, "b": 2.0}
    assert floats(NTKWeights(normalize="sum").update(traces, rows=rows)) == {"a": 2.0, "b": 2.0}


def test_equal_groups_make_both_rules_one():
    traces = {"a": torch.tensor(3.0), "b": torch.tensor(1.0)}
    mean, raw = NTKWeights().update(traces, rows=7), NTKWeights(normalize="sum").update(traces)
    assert floats(mean) == pytest.approx(floats(raw))


def test_duplicated_points_change_nothing_under_the_mean_rule(net):
    once, twice = groups(), groups()
    twice["r"] = (twice["r"][0].repeat(2, 1), wave)
    assert floats(NTKWeights()(net, twice)) == pytest.approx(floats(NTKWeights()(net, once)), rel=1e-12)


def test_several_rows_per_point_count_as_rows(net):
    wide = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    batch = {"all": (torch.rand(4, 2).double(), value), "one": (torch.rand(4, 2).double(), value[1])}
    T = trace(wide, batch)
    means = {"all": T["all"] / 12, "one": T["one"] / 4}
    total = sum(means.values())
    assert floats(NTKWeights()(wide, batch)) == pytest.approx({k: (total / v).item() for k, v in means.items()})


def test_points_with_further_columns_count_like_others(net):
    @residual("t", "x")
    def flux(u, at):
        return at.nx * u.d(x=1)

    x = torch.rand(5, 2, dtype=torch.float64)
    ones = torch.ones(5, dtype=torch.float64)
    with_columns = NTKWeights()(net, {"u": (x, value), "flux": (Points(x, nx=2 * ones), flux)})
    plain = NTKWeights()(net, {"u": (x, value), "flux": (Points(x, nx=ones), flux)})
    inverse = [1 / floats(lam)["flux"] for lam in (with_columns, plain)]
    ratio = [share / (1 - share) for share in inverse]  # T_flux / T_u
    assert ratio[0] == pytest.approx(4 * ratio[1], rel=1e-10)


def test_factors_of_a_sweep_give_the_same_weights(net):
    batch = groups(n_ut=3, n_r=9)
    assert floats(NTKWeights()(factors(net, batch))) == pytest.approx(floats(NTKWeights()(net, batch)), rel=1e-12)


def test_a_lone_group_weighs_one(net):
    lam = NTKWeights()(factors(net, torch.rand(4, 2).double(), wave))
    assert [value.item() for value in lam.values()] == [1.0]


def test_it_computes_at_call_zero_and_every_so_many_calls_and_holds_between(net):
    weights, seen = NTKWeights(every=3), []
    for call in range(7):
        assert weights.due == (call % 3 == 0)
        seen.append(floats(weights(net, groups(seed=call))))
    assert weights.calls == 7
    assert seen[0] == seen[1] == seen[2] != seen[3] == seen[4] == seen[5] != seen[6]


def test_a_call_that_fails_is_not_counted(net):
    weights = NTKWeights()
    with pytest.raises(ValueError):
        weights(net, {"r": (torch.rand(3, 5).double(), wave)})
    assert (weights.calls, weights.lam) == (0, {})


def test_update_computes_now_and_counts_nothing():
    weights = NTKWeights(every=100)
    weights.update({"a": 1.0, "b": 1.0}, rows=1)
    lam = weights.update({"a": 1.0, "b": 3.0}, rows=1)
    assert weights.calls == 0
    assert floats(lam) == floats(weights.lam) == pytest.approx({"a": 4.0, "b": 4 / 3})
    assert floats(weights.traces) == {"a": 1.0, "b": 3.0}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_are_detached_scalars_of_the_type_of_the_parameters(dtype):
    lam = NTKWeights()(MLP([2, 5, 1], dtype=dtype), groups(dtype=dtype))
    assert list(lam) == ["u", "ut", "r"]
    assert all(
        v.shape == () and v.dtype == dtype and not v.requires_grad and v.device.type == "cpu" for v in lam.values()
    )


def test_the_state_is_its_own():
    given = torch.tensor(2.0, requires_grad=True) * 1.0
    weights = NTKWeights(normalize="sum")
    lam = weights.update({"a": given, "b": torch.tensor(2.0)})
    given.data.zero_()
    lam["a"] = None
    assert floats(weights.lam) == {"a": 2.0, "b": 2.0}
    assert floats(weights.traces) == {"a": 2.0, "b": 2.0}


def test_a_zero_trace_has_weight_one_and_leaves_the_others_alone():
    assert floats(NTKWeights().update({"a": 0.0, "b": 1.0, "c": 3.0}, rows=5)) == pytest.approx(
        {"a": 1.0, "b": 4.0, "c": 4 / 3}
    )
    assert floats(NTKWeights().update({"a": 0.0, "b": 0.0}, rows=5)) == {"a": 1.0, "b": 1.0}


def test_a_frozen_network_has_weights_one(net):
    net.requires_grad_(False)
    assert set(floats(NTKWeights()(net, groups())).values()) == {1.0}


def test_a_trace_that_is_not_a_number_shows():
    assert all(v.isnan() for v in NTKWeights().update({"a": float("nan"), "b": 1.0}, rows=5).values())


def test_a_saved_state_resumes_bit_for_bit(net):
    first, second = NTKWeights(every=3), NTKWeights(every=3)
    for call in range(4):
        first(net, groups(seed=call))
    second.load_state_dict(first.state_dict())
    for call in range(4, 8):
        assert second.due == first.due
        assert floats(second(net, groups(seed=call))) == floats(first(net, groups(seed=call)))
    assert floats(second.traces) == floats(first.traces)


def test_the_state_is_a_snapshot():
    weights = NTKWeights(normalize="sum")
    weights.update({"a": 1.0, "b": 1.0})
    state = weights.state_dict()
    weights.update({"a": 1.0, "b": 3.0})
    assert floats(state["lam"]) == {"a": 2.0, "b": 2.0}


def state(**changed):
    return {"calls": 3, "lam": {}, "traces": {}, **changed}


REFUSED = [
    (lambda net: NTKWeights(every=0), ValueError, "every as a positive whole number of calls, got 0"),
    (lambda net: NTKWeights(every=1.5), ValueError, "got 1.5"),
    (lambda net: NTKWeights(points={"ut": 0}), ValueError, "number of points for group 'ut', got 0"),
    (lambda net: NTKWeights(normalize="max"), ValueError, "'mean' or 'sum', got 'max'"),
    (lambda net: NTKWeights()(net, torch.rand(3, 2)), TypeError, "a dict of groups {name: (points, residual)} with a"),
    (lambda net: NTKWeights()(net), TypeError, "got NoneType"),
    (lambda net: NTKWeights()(torch.rand(3)), TypeError, "(network, groups) or factors alone, got Tensor first"),
    (lambda net: NTKWeights()(net, {}), ValueError, "at least one group"),
    (lambda net: NTKWeights()(net, groups(n_ut=0)), ValueError, "at least one row in group 'ut', got 0"),
    (lambda net: NTKWeights().update({}, rows={}), ValueError, "at least one group, got none"),
    (lambda net: NTKWeights().update({"a": 1.0}), ValueError, 'rows of each group for normalize="mean", got None'),
    (lambda net: NTKWeights().update({"a": 1.0}, rows={"a": 0}), ValueError, "at least one row in group 'a', got 0"),
    (lambda net: NTKWeights().update({"a": 1.0}, rows={"b": 1}), ValueError, "the groups ('a',), got them for ('b',)"),
    (
        lambda net: NTKWeights().update({"a": torch.ones(3)}, rows=1),
        ValueError,
        "0-d trace for group 'a', got shape (3,)",
    ),
    (lambda net: NTKWeights().load_state_dict({"calls": 1}), ValueError, "calls, lam and traces, got calls"),
    (lambda net: NTKWeights().load_state_dict({}), ValueError, "calls, lam and traces, got an empty one"),
    (lambda net: NTKWeights().load_state_dict([]), TypeError, "a state as state_dict() returns it, got list"),
    (lambda net: NTKWeights().update({"a": 1.0, "b": -2.0}, rows=1), ValueError, "trace >= 0 for group 'b', got -2.0"),
    (lambda net: NTKWeights().update({"a": torch.tensor(-1.0)}, rows=1), ValueError, "for group 'a', got -1.0"),
    (lambda net: NTKWeights(points=["ut"]), TypeError, "points as a dict of numbers by group, got list"),
    (lambda net: NTKWeights().update([1.0], rows=1), TypeError, "a dict of traces by group, got list"),
    (lambda net: NTKWeights().update(torch.ones(2), rows=1), TypeError, "a dict of traces by group, got Tensor"),
    (lambda net: NTKWeights().update({"a": "3"}, rows=1), TypeError, "real number as the trace of group 'a', got str"),
    (lambda net: NTKWeights().update({"a": None}, rows=1), TypeError, "trace of group 'a', got NoneType"),
    (lambda net: NTKWeights().update({"a": np.ones(3)}, rows=1), TypeError, "trace of group 'a', got ndarray"),
    (lambda net: NTKWeights().update({"a": torch.tensor(1j)}, rows=1), TypeError, "of group 'a', got torch.complex64"),
    (
        lambda net: NTKWeights().update({"a": 1.0, "b": torch.ones((), device="meta")}, rows=1),
        ValueError,
        "all traces on one device, got them on cpu and meta",
    ),
    (lambda net: NTKWeights().update({"a": 1.0}, rows=2.5), TypeError, "rows as a whole number, got 2.5"),
    (lambda net: NTKWeights().update({"a": 1.0}, rows={"a": 2.5}), TypeError, "the rows of group 'a' as a whole"),
    (lambda net: NTKWeights().update({"a": 1.0}, rows={"a": "3"}), TypeError, "as a whole number, got '3'"),
    (lambda net: NTKWeights().load_state_dict(state(calls="3")), TypeError, "calls as a whole number, got '3'"),
    (lambda net: NTKWeights().load_state_dict(state(calls=1.5)), TypeError, "calls as a whole number, got 1.5"),
    (lambda net: NTKWeights().load_state_dict(state(calls=-1)), ValueError, "calls >= 0, got -1"),
    (
        lambda net: NTKWeights().load_state_dict(state(lam=None)),
        TypeError,
        "lam as a dict of 0-d tensors by group, got",
    ),
    (lambda net: NTKWeights().load_state_dict(state(traces=[1])), TypeError, "traces as a dict of 0-d tensors"),
    (
        lambda net: NTKWeights().load_state_dict(state(lam={"a": 3.0})),
        TypeError,
        "lam of group 'a' as a 0-d tensor, got",
    ),
    (lambda net: NTKWeights().load_state_dict(state(lam={"a": torch.ones(2)})), TypeError, "got shape (2,)"),
]


@pytest.mark.parametrize(("act", "kind", "sentence"), REFUSED, ids=[str(i) for i in range(len(REFUSED))])
def test_a_wrong_call_is_answered_by_a_sentence(net, act, kind, sentence):
    with pytest.raises(kind) as error:
        act(net)
    assert sentence in str(error.value)


def test_a_refused_state_changes_nothing():
    weights = NTKWeights()
    weights.update({"a": 1.0}, rows=1)
    for bad in (state(lam={"a": 3.0}), state(traces={"a": torch.ones(2)})):
        with pytest.raises(TypeError):
            weights.load_state_dict(bad)
    assert weights.calls == 0 and floats(weights.lam) == {"a": 1.0}


def test_other_groups_than_the_held_ones_are_named(net):
    weights = NTKWeights()
    weights(net, groups())
    batch = groups()
    del batch["ut"]
    with pytest.raises(ValueError, match=r"\('u', 'ut', 'r'\), got \('u', 'r'\)"):
        weights(net, batch)


def test_the_paper_network_has_the_weights_of_the_paper():
    found = {"u": [], "ut": [], "r": []}
    generator = torch.Generator().manual_seed(0)
    standard = ((0.5, 0.5), (12**-0.5, 12**-0.5))
    for seed in range(20):
        torch.manual_seed(seed)
        net = MLP([2, 500, 500, 500, 1], standardize=standard)
        edge, start, inside = torch.rand(3, 300, 2, generator=generator).unbind()
        edge[:100, 0], edge[100:200, 1], edge[200:, 1] = 0.0, 0.0, 1.0
        start[:, 0] = 0.0
        lam = NTKWeights()(net, {"u": (edge, value), "ut": (start, u_t), "r": (inside, wave)})
        for name, number in floats(lam).items():
            found[name].append(number)
        assert sum(1 / v for v in floats(lam).values()) == pytest.approx(1.0, abs=1e-5)
    u, ut, r = (torch.tensor(found[name]).median().item() for name in ("u", "ut", "r"))
    assert 5.5 <= u <= 7.5
    assert 2.3 <= ut <= 3.3
    assert 1.8 <= r <= 2.6


def test_traces_and_rows_of_other_libraries_are_taken():
    lam = NTKWeights().update({"u": np.float32(300), "r": np.float64(200)}, rows=np.int64(2))
    assert lam["u"].item() == pytest.approx(5 / 3) and lam["r"].item() == pytest.approx(2.5)


def test_whole_traces_are_not_cut_off():
    lam = NTKWeights().update({"u": torch.tensor(300), "r": torch.tensor(200)}, rows=1)
    assert lam["r"].item() == 2.5


def test_what_a_caller_does_to_weights_stays_there():
    weights = NTKWeights()
    weights.update({"u": 3.0, "r": 1.0}, rows=1)["r"].mul_(0)
    weights.lam["u"].mul_(0)
    assert weights.lam["r"].item() == 4.0 and weights.lam["u"].item() == pytest.approx(4 / 3)


def test_numbers_are_balanced_as_they_are():
    """Beyond what float32 holds, too: only λ has torch's default type."""
    for numbers, expected in (({"u": 1e-46, "r": 1e-40}, 1e6), ({"u": 1e39, "r": 1e40}, 11.0)):
        lam = NTKWeights().update(numbers, rows=1)["u"]
        assert lam.item() == pytest.approx(expected, rel=1e-5) and lam.dtype == torch.float32
