"""The CUDA kernels of the activation jet, compiled for the host, equal the definition: no GPU needed."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import activation_jet as definition
import pytest
import torch
from activation_jet import BETA, NAMES, THRESHOLD, Example, example, relative_error
from host_build import CSRC, FOLDER, SANITIZED, compile_for_host, run_sanitized
from torch import Tensor

SOURCES = [FOLDER / "activation_exports.cpp", CSRC / "cuda" / "activation.cu", CSRC / "cuda" / "error.cu"]
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
INVALID_VALUE = 1


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return ctypes.CDLL(
        str(compile_for_host(SOURCES, tmp_path_factory.mktemp("cuda_host") / "activation.so", "-shared"))
    )


def run(library: ctypes.CDLL, inputs: Example, activation: int, g: Tensor | None, out: Tensor) -> int:
    """One call of csrc/cuda/activation.h: forward where g is None."""
    z, omega = inputs.z, inputs.omega
    n, w = z.shape[1:]
    stride = 0 if len(omega) == 1 else omega.shape[1] * omega.shape[2]
    function = getattr(library, f"activation_{str(z.dtype).removeprefix('torch.')}")
    pointers = [ctypes.c_void_p(t.data_ptr() if t is not None else None) for t in (z, g, omega, out)]
    sizes = [ctypes.c_int64(size) for size in (n, w, stride)]
    softplus = [ctypes.c_double(BETA), ctypes.c_double(THRESHOLD)]
    return function(g is None, *pointers, *sizes, inputs.directions, omega.shape[1], activation, *softplus)


def check(library: ctypes.CDLL, name: str, inputs: Example) -> None:
    wanted = definition.expected(name, inputs)
    for g, expected in zip((None, inputs.g), wanted, strict=True):
        actual = torch.full_like(inputs.z, torch.nan)
        assert run(library, inputs, NAMES.index(name), g, actual) == 0
        for channel, (a, b) in enumerate(zip(actual, expected, strict=True)):
            assert relative_error(a, b) <= TOLERANCE[inputs.z.dtype], (name, inputs.directions, channel)


def check_all(library: ctypes.CDLL) -> None:
    for name in NAMES:
        for dtype in TOLERANCE:
            for per_point in (False, True):
                check(library, name, example(2, 1, n=3, w=87, dtype=dtype, per_point=per_point))


@pytest.mark.parametrize("per_point", [False, True], ids=["shared", "per_point"])
@pytest.mark.parametrize("name", NAMES)
def test_equals_the_definition(library: ctypes.CDLL, name: str, per_point: bool, dtype: torch.dtype) -> None:
    for F in range(3):
        for M in range(3):
            check(library, name, example(F, M, n=3, w=7, dtype=dtype, per_point=per_point))


@pytest.mark.parametrize(("n", "w"), [(0, 3), (3, 0), (1, 1), (1, 256), (1, 257), (5, 301)])
@pytest.mark.parametrize("per_point", [False, True], ids=["shared", "per_point"])
def test_any_number_of_points_and_features(
    library: ctypes.CDLL, n: int, w: int, per_point: bool, dtype: torch.dtype
) -> None:
    check(library, "tanh", example(2, 1, n, w, dtype, per_point))


def test_reverse_schedule(library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_HOST_REVERSE", "1")
    check_all(library)


def test_nan_survives(library: ctypes.CDLL, dtype: torch.dtype) -> None:
    inputs = example(1, 1, 1, 9, dtype)
    inputs.z[0, 0, 4] = torch.nan
    for activation in range(len(NAMES)):
        h = torch.zeros_like(inputs.z)
        assert run(library, inputs, activation, None, h) == 0
        assert h[0].isnan().nonzero().tolist() == [[0, 4]], NAMES[activation]


@pytest.mark.parametrize("activation", [-1, len(NAMES)])
def test_unknown_activation_is_an_error_code(library: ctypes.CDLL, activation: int) -> None:
    inputs = example(2, 1, 3, 5, torch.float32)
    out = torch.full_like(inputs.z, torch.nan)
    assert run(library, inputs, activation, None, out) == INVALID_VALUE
    assert out.isnan().all(), "nothing was launched"
    library.error_message.restype = ctypes.c_char_p
    assert library.error_message(INVALID_VALUE) == b"invalid argument"


def in_sanitized_python(library: Path, statements: str) -> subprocess.CompletedProcess[str]:
    load = f"import ctypes, torch, test_activation_on_host as host; library = ctypes.CDLL({str(library)!r})"
    return run_sanitized(library, [FOLDER, Path(definition.__file__).parent], f"{load}\n{statements}")


def test_reads_and_writes_within_bounds(tmp_path: Path) -> None:
    """AddressSanitizer sees no access beyond the arrays, and does see one where the output is too small."""
    library = compile_for_host(SOURCES, tmp_path / "activation.so", "-shared", *SANITIZED)
    sound = in_sanitized_python(library, "host.check_all(library)")
    assert sound.returncode == 0 and "finished" in sound.stdout, sound.stderr
    short = """
inputs = host.example(2, 1, 3, 5, torch.float32)
host.run(library, inputs, 2, None, torch.empty(inputs.z.numel() - 1))
"""
    faulty = in_sanitized_python(library, short)
    assert "heap-buffer-overflow" in faulty.stderr and "forward_kernel" in faulty.stderr
