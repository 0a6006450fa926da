"""The operators of sweeps and contractions as torch sees them: schemas, fake rules, memory that does not fit.

What they compute is tested through the functions that call them, against `ntkfast.reference`.
"""

import pytest
import torch
from cases import two_components, u_t

import ntkfast as ntk
from ntkfast import _ops
from ntkfast.snapshot import Snapshot, Workspace, sweep
from ntkfast.sweep import chain_args, group_args

ops = torch.ops.ntkfast


def snapshot(dtype: torch.dtype) -> tuple[Snapshot, dict[str, torch.Tensor]]:
    """A sweep of three groups, and memory for everything that an operator writes."""
    torch.manual_seed(0)
    net = ntk.MLP([2, 5, 7, 1], dtype=dtype)
    x = torch.rand(6, 2, dtype=dtype)
    chain, args = chain_args(net)
    groups = group_args(chain, {"u": (x[:3], ntk.value), "ut": (x[:1], u_t), "two": (x, two_components)})
    made = sweep(chain, args, groups, Workspace())
    n, layers = groups.residual_rows, len(chain.layers)
    rows = groups.rows
    memory = {
        "out": torch.zeros(rows * chain.out_features, dtype=dtype),
        "Z": torch.zeros(rows * 12, dtype=dtype),
        "diag": torch.zeros(layers, n, dtype=torch.float64),
        "rows": torch.ones(n, dtype=dtype),
        "rows64": torch.zeros(n, dtype=torch.float64),
        "K": torch.zeros(n, n, dtype=dtype),
    }
    return made, memory


def calls(dtype: torch.dtype) -> dict[str, tuple]:
    """Valid arguments of every operator."""
    made, memory = snapshot(dtype)
    chain = (made.args.parameters, made.args.activations, made.args.constants)
    groups = made.groups
    parts = groups.outputs(memory["out"], 1)
    seeds = [s.contiguous() for r, o in zip(groups.recordings, parts, strict=True) for s in r.seeds(o)]
    points = (groups.points, groups.beta, groups.omega, groups.spec)
    side = (groups.spec, made.A, made.D)
    grads = [torch.zeros_like(p) for p in made.args.parameters]
    return {
        "jet_forward": (*chain, *points, memory["out"], made.A.clone(), memory["Z"]),
        "jet_backward": (*chain, groups.omega, groups.spec, seeds, memory["Z"], made.D.clone()),
        "diag": (*chain, *points, seeds, 0, memory["diag"]),
        "linear_sweep": (
            *(*chain, *points, seeds, memory["rows"].clone(), memory["rows"].clone(), 0),
            *(memory["rows"], grads, memory["diag"], made.A.clone(), made.D.clone()),
        ),
        "factor_diag": (*chain, *side, memory["diag"]),
        "vjp": (*chain, *side, memory["rows"], grads),
        "jvp": (*chain, *side, [torch.ones_like(g) for g in grads], memory["rows64"]),
        "gram": (*chain, *side, *side, True, [0, 1, 0], 64, 1, memory["K"]),
        "gemm": (torch.rand(7, 5, dtype=dtype), torch.rand(5, 3, dtype=dtype), torch.zeros(7, 3, dtype=dtype)),
    }


NAMES = tuple(calls(torch.float64))


@pytest.mark.parametrize("name", NAMES)
def test_opcheck(name: str, dtype: torch.dtype) -> None:
    torch.library.opcheck(getattr(ops, name).default, calls(dtype)[name])


def test_every_operator_is_checked() -> None:
    registered = {name.split("::")[1] for name in torch._C._dispatch_get_all_op_names() if name.startswith("ntkfast::")}
    assert registered == {*NAMES, "activation_forward", "activation_backward"}


@pytest.mark.parametrize("name", NAMES)
def test_refuses_outputs_of_another_size(name: str) -> None:
    *inputs, out = calls(torch.float64)[name]
    short = [g[:-1] for g in out] if isinstance(out, list) else out[:-1]
    with pytest.raises(RuntimeError, match=rf"ntkfast\.{name}: expected .*, got .*\."):
        getattr(ops, name)(*inputs, short)


@pytest.mark.parametrize(("name", "index"), [("diag", -1), ("factor_diag", -1), ("linear_sweep", -3)])
def test_refuses_a_diagonal_of_another_shape(name: str, index: int) -> None:
    """As many numbers in another order would be taken for others."""
    arguments = list(calls(torch.float64)[name])
    arguments[index] = arguments[index].reshape(arguments[index].shape[::-1])
    with pytest.raises(RuntimeError, match=r"expected (out|diag) \(3, 16\), got \(16, 3\)"):
        getattr(ops, name)(*arguments)


@pytest.mark.parametrize("together", [-(2**63), -1, 0, 2, 4, 2**32 + 1, 2**63 - 1])
def test_gram_refuses_to_sum_other_numbers_of_components(together: int) -> None:
    *given, _, out = calls(torch.float64)["gram"]
    with pytest.raises(RuntimeError, match=r"ntkfast\.gram: expected (at least 1 component|groups of \d+ components)"):
        ops.gram(*given, together, out)


def test_gram_refuses_to_sum_components_of_explicit_layers() -> None:
    f = ntk.factors(ntk.MLP([2, 5, 3]), torch.rand(4, 2))._snapshot
    chain, side = (f.args.parameters, f.args.activations, f.args.constants), (f.groups.spec, f.A, f.D)
    with pytest.raises(RuntimeError, match="expected structured layers where components are summed"):
        ops.gram(*chain, *side, *side, True, [0, 1], 64, 3, torch.zeros(4, 4))


def test_refuses_channels_of_a_component_that_do_not_ascend() -> None:
    """The pull-back writes over channels that it has read, in their order."""
    net, product = ntk.MLP([2, 5, 1]), ntk.residual("t", "x")(lambda u: u.d(t=2) * u.d(x=2))
    f = ntk.factors(net, torch.rand(3, 2), product)._snapshot
    head = [3, 2, 2, 1, 1, 2, 2]  # one component of two directions and two collapsed channels
    assert f.groups.spec == [*head, 0, 1, 0, 1]
    chain, diag = (f.args.parameters, f.args.activations, f.args.constants), torch.zeros(2, 3, dtype=torch.float64)
    for wrong in ([1, 0, 0, 1], [0, 0, 0, 1], [0, 1, 1, 0]):
        with pytest.raises(RuntimeError, match=r"expected a group number in \[\d, 2\), got 0"):
            ops.factor_diag(*chain, [*head, *wrong], f.A, f.D, diag)


@pytest.mark.parametrize("name", NAMES)
def test_refuses_outputs_of_another_dtype(name: str) -> None:
    *inputs, out = calls(torch.float64)[name]
    other = [g.int() for g in out] if isinstance(out, list) else out.int()
    with pytest.raises(RuntimeError, match=rf"ntkfast\.{name}: expected \w+ in float64, got int32\."):
        getattr(ops, name)(*inputs, other)


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 0, 2), (0, 4, 5), (37, 64, 33), (200, 500, 129)])
def test_gemm_equals_torch(shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    m, k, n = shape
    a, b, out = torch.randn(m, k, dtype=dtype), torch.randn(k, n, dtype=dtype), torch.empty(m, n, dtype=dtype)
    _ops.gemm(a, b, out)
    exact = a.double() @ b.double()
    assert (out - exact).norm() <= (1e-6 if dtype == torch.float32 else 1e-14) * exact.norm()


def test_gemm_refuses_what_does_not_fit() -> None:
    a = torch.rand(3, 4)
    with pytest.raises(RuntimeError, match=r"expected a \(m, k\) and b \(k, n\), got \(3, 4\) and \(3, 4\)"):
        _ops.gemm(a, a, torch.empty(3, 4))
    with pytest.raises(RuntimeError, match=r"expected out \(3, 3\), got \(3, 4\)"):
        _ops.gemm(a, torch.rand(4, 3), torch.empty(3, 4))


@pytest.mark.parametrize(("name", "place"), [("diag", 7), ("linear_sweep", 7), ("jet_backward", 5)])
def test_refuses_seeds_whose_storage_was_freed(name: str, place: int) -> None:
    arguments = list(calls(torch.float64)[name])
    arguments[place] = [seed.clone() for seed in arguments[place]]
    arguments[place][0].untyped_storage().resize_(0)
    with pytest.raises(RuntimeError, match="expected seeds with memory, got one whose storage was freed"):
        getattr(ops, name)(*arguments)


def test_refuses_a_meta_tensor_among_others() -> None:
    a, out = torch.ones(4, 4), torch.zeros(4, 4)
    with pytest.raises(RuntimeError, match="expected tensors on one device, got some on cpu and meta"):
        _ops.gemm(a, a.to("meta"), out)


@pytest.mark.parametrize(
    ("name", "output", "inputs"),
    [
        *(("jet_backward", -1, (6,)), ("factor_diag", -1, (4, 5)), ("jvp", -1, (4, 5, 6))),
        *(("vjp", -1, (4, 5, 6)), ("gram", -1, (4, 5, 7, 8)), ("gemm", -1, (0, 1))),
    ],
)
def test_refuses_an_output_over_an_input(name: str, output: int, inputs: tuple[int, ...]) -> None:
    """Of a gram whose sides are two, since one that is symmetric has its inputs twice."""
    for place in inputs:
        arguments = list(calls(torch.float64)[name])
        if name == "gram":
            arguments[9] = False
        read, written = arguments[place], arguments[output]
        x, out = (t[0] if isinstance(t, list) else t for t in (read, written))
        memory = torch.zeros(x.numel() + out.numel() - 1, dtype=torch.float64)  # one number in common
        x, out = memory[: x.numel()].view(x.shape), memory[x.numel() - 1 :].view(out.shape)
        arguments[place] = [x, *read[1:]] if isinstance(read, list) else x
        arguments[output] = [out, *written[1:]] if isinstance(written, list) else out
        with pytest.raises(RuntimeError, match=rf"{name}: expected an output apart from .+, got overlapping memory\."):
            getattr(ops, name)(*arguments)


def test_a_symmetric_gram_is_that_of_the_first_factors() -> None:
    """Half of it is written for the other half."""
    arguments = list(calls(torch.float64)["gram"])
    ops.gram(*arguments)
    expected = arguments[-1].clone()
    arguments[7], arguments[8] = torch.rand_like(arguments[7]), torch.rand_like(arguments[8])
    ops.gram(*arguments)
    assert torch.equal(arguments[-1], expected)
