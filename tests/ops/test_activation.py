"""activation_forward and activation_backward: one activation on all channels of a jet, and its pull-back."""

import math
import os
import subprocess
import sys
from pathlib import Path

import activation_jet as definition
import pytest
import torch
from activation_jet import BETA, NAMES, THRESHOLD, Example, example, relative_error

import ntkfast._C as _C
from ntkfast import _ops

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    if request.param == "cuda" and not (torch.cuda.is_available() and _C.cuda_built):
        pytest.skip("needs a CUDA device and a build with CUDA")
    return request.param


def native(name: str, inputs: Example, device: str = "cpu") -> tuple[torch.Tensor, torch.Tensor]:
    z, g, omega = (t.to(device) for t in (inputs.z, inputs.g, inputs.omega))
    code = NAMES.index(name)
    h = _ops.activation_forward(z, omega, code, inputs.directions, BETA, THRESHOLD)
    zbar = _ops.activation_backward(z, g, omega, code, inputs.directions, BETA, THRESHOLD)
    return h.cpu(), zbar.cpu()


def check(name: str, inputs: Example, device: str = "cpu") -> None:
    tolerance = TOLERANCE[inputs.z.dtype]
    for actual, wanted in zip(native(name, inputs, device), definition.expected(name, inputs), strict=True):
        for channel, (a, b) in enumerate(zip(actual, wanted, strict=True)):
            assert relative_error(a, b) <= tolerance, f"channel {channel}"


@pytest.mark.parametrize("per_point", [False, True], ids=["shared", "per_point"])
@pytest.mark.parametrize("name", NAMES)
def test_equals_the_definition(name: str, per_point: bool, dtype: torch.dtype, device: str) -> None:
    for F in range(3):
        for M in range(3):
            check(name, example(F, M, n=5, w=37, dtype=dtype, per_point=per_point), device)


@pytest.mark.parametrize(("n", "w"), [(0, 3), (3, 0), (1, 1), (1, 129), (700, 33), (9, 10_001)])
@pytest.mark.parametrize("per_point", [False, True], ids=["shared", "per_point"])
def test_any_number_of_points_and_features(n: int, w: int, per_point: bool, dtype: torch.dtype, device: str) -> None:
    check("tanh", example(2, 1, n, w, dtype, per_point), device)


def test_pull_back_is_the_adjoint_of_the_push_forward() -> None:
    """⟨g, h(z + εv) − h(z − εv)⟩ / 2ε → ⟨z̄, v⟩, with no definition but the operators' own."""
    inputs = example(2, 2, 4, 7, torch.float64)
    v, eps = torch.randn_like(inputs.z), 1e-5
    for name in NAMES:
        if name in ("relu", "softplus"):  # not smooth at every point
            continue
        _, zbar = native(name, inputs)
        up, _ = native(name, Example(inputs.z + eps * v, inputs.g, inputs.omega, 2))
        down, _ = native(name, Example(inputs.z - eps * v, inputs.g, inputs.omega, 2))
        slope = (inputs.g * (up - down)).sum() / (2 * eps)
        assert torch.isclose(slope, (zbar * v).sum(), rtol=1e-7), name


def test_softplus_at_its_defaults_equals_torch() -> None:
    z = torch.linspace(-50, 50, 1001, dtype=torch.float64)[None, None]
    h = _ops.activation_forward(z, torch.empty(1, 0, 0, dtype=z.dtype), NAMES.index("softplus"), 0)
    assert relative_error(h, torch.nn.functional.softplus(z)) < 1e-15


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("position", [0, 16, 36])
def test_nan_survives_and_stays_in_its_element(name: str, position: int, dtype: torch.dtype, device: str) -> None:
    inputs = example(1, 1, 1, 37, dtype)
    inputs.z[0, 0, position] = math.nan
    h, _ = native(name, inputs, device)
    others = torch.arange(37) != position
    assert h[0, 0, position].isnan()
    assert h[:, 0, others].isfinite().all()


@pytest.mark.parametrize("name", ["identity", "relu", "softplus"])
def test_infinite_values_have_finite_derivatives(name: str, dtype: torch.dtype, device: str) -> None:
    inputs = example(1, 1, 1, 3, dtype)
    inputs.z[0] = math.inf
    h, _ = native(name, inputs, device)
    assert h[0].isinf().all()
    assert torch.equal(h[1:], inputs.z[1:])


@pytest.mark.parametrize("name", ["erf", "gelu"])
def test_polynomials_times_an_exponential_that_has_nearly_vanished(name: str, dtype: torch.dtype, device: str) -> None:
    inputs = example(2, 1, 1, 37, dtype)
    inputs.z[0] = torch.linspace(3.5, 8.0, 37) * torch.tensor([1.0, -1.0]).repeat(19)[:37]
    check(name, inputs, device)


def test_same_bits_for_any_number_of_threads() -> None:
    inputs = example(2, 1, 300, 65, torch.float32, per_point=True)
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(native("gelu", inputs))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("isa", ["base", "avx2", "avx512", "amx"])
def test_every_instruction_set_level(isa: str, tmp_path: Path) -> None:
    if isa not in _C.cpu_levels:
        pytest.skip(f"{isa} is not built for this processor family")
    child = f"""
import sys; sys.path[:0] = [{str(Path(__file__).parent)!r}, {str(Path(definition.__file__).parent)!r}]
import torch
from test_activation import NAMES, _C, check, example
if _C.isa() != {isa!r}: print("unsupported"); raise SystemExit
for dtype in (torch.float32, torch.float64):
    for name in NAMES:
        check(name, example(2, 1, 3, 37, dtype, per_point=True))
print("checked")
"""
    environment = {**os.environ, "NTKFAST_ISA": isa}
    command = [sys.executable, "-c", child]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    if "unsupported" in done.stdout:
        pytest.skip(f"this processor has no {isa}")
    assert "checked" in done.stdout


def arguments(inputs: Example, activation: int = 2) -> tuple:
    return (inputs.z, inputs.omega, activation, BETA, THRESHOLD, inputs.directions, torch.empty_like(inputs.z))


@pytest.mark.parametrize("per_point", [False, True], ids=["shared", "per_point"])
def test_opcheck(per_point: bool, dtype: torch.dtype, device: str) -> None:
    inputs = example(2, 1, 3, 5, dtype, per_point)
    z, g, omega = (t.to(device) for t in (inputs.z, inputs.g, inputs.omega))
    rest = (2, BETA, THRESHOLD, inputs.directions)
    torch.library.opcheck(torch.ops.ntkfast.activation_forward.default, (z, omega, *rest, torch.empty_like(z)))
    torch.library.opcheck(torch.ops.ntkfast.activation_backward.default, (z, g, omega, *rest, torch.empty_like(z)))


def refusal(call, match: str) -> None:
    with pytest.raises(RuntimeError, match=match):
        call()


def test_refuses_what_does_not_fit() -> None:
    inputs = example(2, 1, 3, 5, torch.float64)
    z, omega, g = inputs.z, inputs.omega, inputs.g
    forward, backward = _ops.activation_forward, _ops.activation_backward
    refusal(lambda: forward(z.int(), omega, 2, 2), "activation_forward: expected z in float32 or float64, got int32")
    refusal(lambda: forward(z[0], omega, 2, 2), r"expected z \(channels, points, features\), got \(3, 5\)")
    refusal(lambda: forward(z, omega, 2, 4), "expected 0 to 3 directions in 4 channels, got 4")
    refusal(lambda: forward(z, omega, 2, -1), "expected 0 to 3 directions in 4 channels, got -1")
    refusal(lambda: forward(z, omega, 10, 2), "expected an activation code from 0 to 9, got 10")
    refusal(lambda: forward(z, omega, -1, 2), "expected an activation code from 0 to 9, got -1")
    refusal(lambda: forward(z, omega.float(), 2, 2), "expected omega in float64, got float32")
    refusal(lambda: forward(z, omega[0], 2, 2), r"expected omega \(1 or 3, 1, 2\), got \(1, 2\)")
    refusal(
        lambda: forward(z, omega.expand(2, 1, 2).clone(), 2, 2),
        r"expected omega \(1 or 3, 1, 2\), got \(2, 1, 2\)",
    )
    refusal(lambda: backward(z, g[:3], omega, 2, 2), r"activation_backward: expected g \(4, 3, 5\), got \(3, 3, 5\)")
    refusal(lambda: backward(z, g.float(), omega, 2, 2), "expected g in float64, got float32")


def test_refuses_strides() -> None:
    inputs = example(2, 1, 3, 6, torch.float64)
    wide = torch.randn(4, 3, 12, dtype=torch.float64)[:, :, ::2]
    refusal(
        lambda: _ops.activation_forward(wide, inputs.omega, 2, 2),
        r"expected z contiguous, got shape \(4, 3, 6\) with gaps",
    )
    refusal(lambda: _ops.activation_backward(inputs.z, wide, inputs.omega, 2, 2), "expected g contiguous")
    omega = inputs.omega.expand(3, 1, 2)
    refusal(lambda: _ops.activation_forward(inputs.z, omega, 2, 2), "expected omega contiguous")


def test_refuses_an_output_over_an_input() -> None:
    z, omega, *rest, _ = arguments(example(2, 1, 3, 5, torch.float64))
    operator = torch.ops.ntkfast.activation_forward
    refusal(lambda: operator(z, omega, *rest, z), "expected an output apart from z, got overlapping memory")
    refusal(
        lambda: operator(z, omega, *rest, torch.empty(4, 3, 6).double()),
        r"expected the output \(4, 3, 5\), got \(4, 3, 6\)",
    )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_refuses_mixed_devices() -> None:
    inputs = example(2, 1, 3, 5, torch.float64)
    refusal(lambda: _ops.activation_forward(inputs.z.cuda(), inputs.omega, 2, 2), "expected omega on cuda:0, got cpu")


@pytest.mark.gpu
@pytest.mark.skipif(
    not (torch.cuda.is_available() and _C.cuda_built), reason="needs a CUDA device and a build with CUDA"
)
def test_runs_on_the_current_stream() -> None:
    """The result is right although the default stream is busy and never waited for."""
    inputs = example(2, 1, 64, 33, torch.float32)
    z, omega = inputs.z.cuda(), inputs.omega.cuda()
    torch.cuda.synchronize()
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        late = z * 1.0
        h = _ops.activation_forward(late, omega, 2, 2)
    side.synchronize()
    assert relative_error(h.cpu(), definition.expected("tanh", inputs)[0]) < 1e-5
