"""The host run of CUDA kernels computes what sound kernels should, and catches faulty ones (harness.cu)."""

import math
import os
import subprocess
from pathlib import Path

import pytest
from host_build import FOLDER, SANITIZED, compile_for_host

THREADS = 70
VARIANTS = {"plain": [], "ucontext": ["-DCUDA_HOST_UCONTEXT"], "sanitized": SANITIZED}
INVALID_CONFIGURATION = 9


@pytest.fixture(scope="session", params=list(VARIANTS))
def variant(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="session")
def program(variant: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("harness") / variant
    return compile_for_host([FOLDER / "harness.cu"], output, *VARIANTS[variant])


def run(program: Path, *arguments: str, reverse: bool = False, threads: int = 2) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("CUDA_HOST_")}
    environment |= {"CUDA_HOST_THREADS": str(threads)} | ({"CUDA_HOST_REVERSE": "1"} if reverse else {})
    return subprocess.run([str(program), *arguments], capture_output=True, text=True, env=environment, timeout=60)


def result(program: Path, *arguments: str, **settings) -> tuple[int, list[float]]:
    """The launch's code and the kernel's output."""
    done = run(program, *arguments, **settings)
    assert done.returncode == 0, done.stderr
    word, code, *values = done.stdout.split()
    assert word == "code"
    return int(code), [float(value) for value in values]


def shifted() -> list[float]:
    return [1.0, *(float(i) for i in range(1, THREADS))]


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("threads", [1, 3])
def test_sound_kernels(program: Path, reverse: bool, threads: int) -> None:
    blocks, n = 5, 5 * THREADS - 13
    sums = [float(sum(range(b * THREADS + 1, min((b + 1) * THREADS, n) + 1))) for b in range(blocks)]
    code, values = result(program, "block_sum", str(blocks), reverse=reverse, threads=threads)
    assert (code, values) == (0, [*sums, sum(sums)])
    assert result(program, "shift", reverse=reverse, threads=threads) == (0, shifted())


def test_missing_barrier_shows_in_one_of_the_two_schedules(program: Path) -> None:
    _, forward = result(program, "missing_barrier")
    _, reverse = result(program, "missing_barrier", reverse=True)
    assert forward == shifted()
    assert all(math.isnan(value) for value in reverse[1:]), "unwritten shared memory reads as NaN"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("divergent_barrier", "barrier divergence: threads wait at "),
        ("deadlock", "deadlock: no thread of a block can go on"),
        ("partial_mask", "a warp operation with a partial mask"),
    ],
)
def test_aborts_with_a_sentence(program: Path, name: str, message: str) -> None:
    done = run(program, name)
    assert done.returncode != 0
    assert message in done.stderr


def test_divergence_names_both_places(program: Path) -> None:
    assert run(program, "divergent_barrier").stderr.count("harness.cu:") == 2


@pytest.mark.parametrize("variant", ["sanitized"], indirect=True)
@pytest.mark.parametrize("name", ["out_of_bounds", "shared_out_of_bounds"])
def test_address_sanitizer_sees_out_of_bounds(program: Path, name: str) -> None:
    done = run(program, name)
    assert done.returncode != 0
    assert "heap-buffer-overflow" in done.stderr


def test_launch_returns_early_on_nothing_and_refuses_what_does_not_fit(program: Path) -> None:
    untouched = [0.0] * THREADS
    assert result(program, "empty_grid") == (0, untouched)
    for name in ("grid_too_large", "grid_too_deep", "block_too_large"):
        assert result(program, name) == (INVALID_CONFIGURATION, untouched)


def test_launch_asks_for_more_shared_memory(program: Path) -> None:
    assert result(program, "large_shared") == (0, shifted())
    assert result(program, "shared_too_large") == (INVALID_CONFIGURATION, [0.0] * THREADS)
