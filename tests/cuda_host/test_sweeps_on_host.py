"""The CUDA kernels of the sweeps, compiled for the host, do what the CPU operators do: no GPU needed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import torch
from cases import mlp, two_components
from host_build import FOLDER, SANITIZED, run_sanitized
from sweep_cases import BY_NAME, CASES, FEW, Made, SweepCase, close, make, unwritten
from sweep_library import SweepLibrary
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ntkfast import _ops
from ntkfast.sweep import GroupArgs

SHAPES = [(1, 1, 1), (3, 0, 2), (0, 4, 5), (64, 16, 64), (65, 17, 66), (130, 33, 5)]
INVALID_VALUE = 1
Side = tuple[list[int], Tensor, Tensor]


def check_gemm(library: SweepLibrary, shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    m, k, n = shape
    a, b = torch.randn(m, k, dtype=dtype), torch.randn(k, n, dtype=dtype)
    out = torch.full((m, n), torch.nan, dtype=dtype)
    assert library.gemm(a, b, out) == 0
    close(out, a.double() @ b.double(), shape, dtype)


def check_forward(library: SweepLibrary, case: SweepCase, dtype: torch.dtype) -> None:
    made = make(case, dtype)
    out, A, Z = unwritten(made.out), unwritten(made.A), unwritten(made.Z)
    assert library.jet_forward(made.args, made.groups, out, A, Z) == 0
    for name, actual, expected in (("A", A, made.A), ("Z", Z, made.Z), ("out", out, made.out)):
        close(actual, expected, (case, name))
    alone, nothing = unwritten(made.out), out.new_empty(0)
    assert library.jet_forward(made.args, made.groups, alone, nothing, nothing) == 0
    assert torch.equal(alone, out), "what is kept changes no bit"


def check_backward(library: SweepLibrary, case: SweepCase, dtype: torch.dtype) -> None:
    made = make(case, dtype)
    D = unwritten(made.D)
    assert library.jet_backward(made.args, made.groups, made.seeds, made.Z, D) == 0
    close(D, made.D, case)


def check_factor_diag(library: SweepLibrary, case: SweepCase, dtype: torch.dtype) -> None:
    made = make(case, dtype)
    for spec, rows in selections(made.groups):
        actual, expected = (torch.full((len(made.chain.layers), rows), torch.nan).double() for _ in range(2))
        assert library.factor_diag(made.args, spec, made.A, made.D, actual) == 0
        _ops.factor_diag(made.args, spec, made.A, made.D, expected)
        close(actual, expected, case, dtype)


def check_diag(library: SweepLibrary, case: SweepCase, dtype: torch.dtype) -> None:
    """In one chunk, and in chunks that cut groups: a chunk changes no bit."""
    made = make(case, dtype)
    shape = (len(made.chain.layers), made.groups.residual_rows)
    whole, chunked, expected = (torch.full(shape, torch.nan).double() for _ in range(3))
    _ops.diag(made.args, made.groups, made.seeds, 0, expected)
    assert library.diag(made.args, made.groups, made.seeds, 0, whole) == 0
    assert library.diag(made.args, made.groups, made.seeds, 23, chunked) == 0
    close(whole, expected, case, dtype)
    assert torch.equal(whole, chunked)


def check_vjp(library: SweepLibrary, case: SweepCase, dtype: torch.dtype) -> None:
    made = make(case, dtype)
    for spec, rows in selections(made.groups):
        x = torch.randn(rows, dtype=dtype)
        actual, expected = ([unwritten(p) for p in active(made)] for _ in range(2))
        assert library.vjp(made.args, spec, made.A, made.D, x, actual) == 0
        _ops.vjp(made.args, spec, made.A, made.D, x, expected)
        for i, (a, b) in enumerate(zip(actual, expected, strict=True)):
            close(a, b, (case, i))


def check_linear_sweep(library: SweepLibrary, case: SweepCase, dtype: torch.dtype) -> None:
    """With everything that can be asked for, with a gradient alone, a diagonal alone, and with factors alone."""
    made = make(case, dtype)
    n = made.groups.residual_rows
    nothing, diag = torch.empty(0, dtype=dtype), torch.empty(len(made.chain.layers), n, dtype=torch.float64)
    pull, offset, grads = torch.randn(n, dtype=dtype), torch.randn(n, dtype=dtype), active(made)
    asked = {
        "all": (offset, pull, grads, diag, made.A, made.D),
        "gradient": (nothing, pull, grads, nothing.double(), nothing, nothing),
        "diagonal": (offset, pull, [p[:0] for p in grads], diag, nothing, nothing),
        "factors": (offset, nothing, [p[:0] for p in grads], nothing.double(), made.A, made.D),
    }
    for name, (given, factor, gradient, *others) in asked.items():
        outputs = [
            (unwritten(pull), [unwritten(g) for g in gradient], *(unwritten(t) for t in others)) for _ in range(2)
        ]
        assert library.linear_sweep(made.args, made.groups, made.seeds, given, factor, *outputs[0]) == 0
        _ops.linear_sweep(made.args, made.groups, made.seeds, given, factor, 0, *outputs[1])
        for i, (a, b) in enumerate(zip(*(tree_leaves(side) for side in outputs), strict=True)):
            close(a, b, (case, name, i), dtype)


def check_jvp(library: SweepLibrary, case: SweepCase, dtype: torch.dtype) -> None:
    made = make(case, dtype)
    tangents = [torch.randn_like(p) for p in active(made)]
    tangents[-1] = tangents[-1][:0]  # counts as zero
    for spec, rows in selections(made.groups):
        actual, expected = (torch.full((rows,), torch.nan).double() for _ in range(2))
        assert library.jvp(made.args, spec, made.A, made.D, tangents, actual) == 0
        _ops.jvp(made.args, spec, made.A, made.D, tangents, expected)
        close(actual, expected, case, dtype)


def check_gram(
    library: SweepLibrary, case: SweepCase, dtype: torch.dtype, is_explicit: Callable[[int], bool] = lambda layer: False
) -> None:
    """A symmetric gram, exactly so; against some of its groups, and these against it, the same numbers."""
    made = make(case, dtype)
    (whole, n), *_, (part, m) = selections(made.groups)
    x, y = (whole, made.A, made.D), (part, made.A, made.D)
    paths = [int(is_explicit(layer)) for layer in range(len(made.chain.layers))]
    columns = max(1, sum(p.numel() for p in active(made)))

    def gram(left: Side, right: Side, shape: tuple[int, int], chunk: int = columns) -> Tensor:
        K = torch.full(shape, torch.nan, dtype=dtype)
        assert library.gram(made.args, left, right, left is right, paths, chunk, 1, K) == 0
        return K

    K, across, back = gram(x, x, (n, n)), gram(x, y, (n, m)), gram(y, x, (m, n))
    for actual, sides, symmetric in ((K, (x, x), True), (across, (x, y), False)):
        expected = unwritten(actual)
        _ops.gram(made.args, *sides, symmetric, [0] * len(paths), 64, 1, expected)
        close(actual, expected, case)
    assert torch.equal(K, K.T)
    assert torch.equal(across, back.T), "exchanging the sides changes no bit"
    if any(paths):  # whichever layers and outputs it cuts
        assert torch.equal(gram(x, x, (n, n), columns // 3 + 1), K), "a chunk changes no bit"
        assert torch.equal(gram(x, y, (n, m), columns // 3 + 1), across)


def check_summed_gram(library: SweepLibrary, case: SweepCase, dtype: torch.dtype) -> None:
    """The groups of most components, against each other and against one of them."""
    made = make(case, dtype)
    components = {name: r.n_components for name, r in zip(made.groups.names, made.groups.recordings, strict=True)}
    k = max(components.values())
    names = [name for name in components if components[name] == k]
    x, y = ((made.groups.select(own), made.A, made.D) for own in (names, names[-1:]))
    points = dict(zip(made.groups.names, made.groups.sizes, strict=True))
    n, m = sum(points[name] for name in names), points[names[-1]]
    paths = [0] * len(made.chain.layers)
    for left, right, shape in ((x, x, (n, n)), (x, y, (n, m)), (y, x, (m, n))):
        actual = torch.full(shape, torch.nan, dtype=dtype)
        assert library.gram(made.args, left, right, left is right, paths, 64, k, actual) == 0
        every = actual.new_empty(k * shape[0], k * shape[1])
        _ops.gram(made.args, left, right, left is right, paths, 64, 1, every)
        close(actual, every.view(shape[0], k, shape[1], k).diagonal(dim1=1, dim2=3).sum(-1), case)
        assert left is not right or torch.equal(actual, actual.T)


@contextmanager
def device(shared_bytes: int = 227 * 1024, multiprocessors: int = 132) -> Iterator[None]:
    """The device that the host pretends to have: the fused sweep asks for its shape."""
    shape = {"CUDA_HOST_SHARED_BYTES": str(shared_bytes), "CUDA_HOST_MULTIPROCESSORS": str(multiprocessors)}
    before = {name: os.environ.get(name) for name in shape}
    os.environ.update(shape)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def selections(groups: GroupArgs) -> list[tuple[list[int], int]]:
    """Descriptions of all groups and of every second one, with their residual rows."""
    counts = [n * r.n_components for n, r in zip(groups.sizes, groups.recordings, strict=True)]
    return [(groups.spec, sum(counts)), (groups.select(groups.names[::2]), sum(counts[::2]))]


def active(made: Made) -> list[Tensor]:
    """The parameters that the Jacobian contains; empty tensors for the others."""
    wanted = [flag for layer in range(len(made.chain.layers)) for flag in made.args.active(layer)]
    return [p if flag else p.new_empty(0) for p, flag in zip(made.args.parameters, wanted, strict=True)]


CHECKS = {
    "jet_forward": check_forward,
    "jet_backward": check_backward,
    "factor_diag": check_factor_diag,
    "diag": check_diag,
    "vjp": check_vjp,
    "linear_sweep": check_linear_sweep,
    "jvp": check_jvp,
    "gram": check_gram,
    "gram_explicit": partial(check_gram, is_explicit=lambda layer: True),
    "gram_mixed": partial(check_gram, is_explicit=lambda layer: layer in (0, 2)),
    "gram_summed": check_summed_gram,
}
SWEEPS = ("jet_forward", "jet_backward", "diag")  # fused for a small network, or else a launch a layer
DEVICES = {"by_layer": {"shared_bytes": 0}, "large_tiles": {"multiprocessors": 1}}  # beside small tiles


def check_few(library: SweepLibrary) -> None:
    for dtype in (torch.float32, torch.float64):
        check_gemm(library, (65, 17, 66), dtype)
        for case in FEW:
            for check in CHECKS.values():
                check(library, case, dtype)
            for shape in DEVICES.values():
                with device(**shape):
                    for name in SWEEPS:
                        CHECKS[name](library, case, dtype)
    for name in ("jet_forward", "jet_backward", "vjp", "jvp", "gram_explicit"):
        CHECKS[name](library, BY_NAME["many_channels"], torch.float32)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gemm_equals_torch(library: SweepLibrary, shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    check_gemm(library, shape, dtype)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("name", CHECKS)
def test_equals_the_cpu_operator(library: SweepLibrary, name: str, case: SweepCase, dtype: torch.dtype) -> None:
    if name in ("gram", "gram_mixed", "gram_summed") and case.name == "many_channels":
        pytest.skip("thousands of pairs of channels: minutes on the host, and a pair is like any other")
    CHECKS[name](library, case, dtype)


@pytest.mark.parametrize("chunk", [1, 2, 3, 4, 15, 16, 17, 43, 44, 45])
def test_every_cut_of_explicit_columns(library: SweepLibrary, chunk: int, dtype: torch.dtype) -> None:
    """Through outputs, between weight and bias, at the end of a layer, within a slice: the same bits."""
    made = make(SweepCase("small", lambda: mlp(nn.Tanh, (2, 5, 4, 1)), {"two": (3, two_components)}), dtype)
    side, rows = (made.groups.spec, made.A, made.D), made.groups.residual_rows
    whole, cut = (torch.full((rows, rows), torch.nan, dtype=dtype) for _ in range(2))
    assert library.gram(made.args, side, side, True, [1, 1, 1], 44, 1, whole) == 0
    assert library.gram(made.args, side, side, True, [1, 1, 1], chunk, 1, cut) == 0
    assert torch.equal(cut, whole)


@pytest.mark.parametrize("paths", [[0, 0, 0], [1, 1, 1], [1, 0, 1]], ids=str)
def test_a_nan_stays_in_its_row_and_column_of_a_gram(
    library: SweepLibrary, paths: list[int], dtype: torch.dtype
) -> None:
    made = make(BY_NAME["odd_widths"], dtype)
    made.D[-1] = torch.nan
    side, rows = (made.groups.spec, made.A, made.D), made.groups.residual_rows
    actual, expected = (torch.zeros(rows, rows, dtype=dtype) for _ in range(2))
    assert library.gram(made.args, side, side, True, paths, 100, 1, actual) == 0
    _ops.gram(made.args, side, side, True, paths, 100, 1, expected)
    assert 0 < expected.isnan().sum() < rows * rows
    close(actual, expected)


@pytest.mark.parametrize("shape", DEVICES)
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("name", SWEEPS)
def test_on_other_devices(library: SweepLibrary, name: str, case: SweepCase, shape: str, dtype: torch.dtype) -> None:
    with device(**DEVICES[shape]):
        CHECKS[name](library, case, dtype)


def test_reverse_schedule(library: SweepLibrary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_HOST_REVERSE", "1")
    check_few(library)


def test_reads_and_writes_within_bounds(tmp_path: Path) -> None:
    """AddressSanitizer sees no access beyond the arrays, and does see one where the output is too small."""
    library = SweepLibrary.build(tmp_path / "sweeps.so", *SANITIZED)
    sound = in_sanitized_python(library, "host.check_few(library)")
    assert sound.returncode == 0 and "finished" in sound.stdout, sound.stderr
    short = "library.gemm(torch.ones(9, 9), torch.ones(9, 9), torch.empty(80))"
    faulty = in_sanitized_python(library, short)
    assert "heap-buffer-overflow" in faulty.stderr and "gemm_kernel" in faulty.stderr


def in_sanitized_python(library: Path, statements: str) -> subprocess.CompletedProcess[str]:
    load = "import torch, test_sweeps_on_host as host; torch.manual_seed(0)"
    load += f"; library = host.SweepLibrary({str(library)!r})"
    return run_sanitized(library, [FOLDER, FOLDER.parent], f"{load}\n{statements}")
