"""Small networks take the fused sweep, and its tiles change no bit."""

from __future__ import annotations

import pytest
import torch
from cases import mlp, wave
from sweep_cases import SweepCase, laplacian4, make, ragged, unwritten
from sweep_library import SweepLibrary
from test_sweeps_on_host import SWEEPS, Made, device
from torch import Tensor, nn

A100, RTX_5090 = 163 * 1024, 99 * 1024  # bytes of shared memory that a block may have there
POINTS = 60


def wave_net(*widths: int, n: int = 300) -> SweepCase:
    return SweepCase("wave", lambda: mlp(nn.Tanh, (2, *widths, 1)), {"r": (n, wave)})  # 4 channels


def rows(library: SweepLibrary, case: SweepCase, dtype: torch.dtype, task: str = "diag") -> int:
    made = make(case, dtype)
    return library.small_tile_rows(made.args, made.groups.spec, task)


@pytest.mark.parametrize("task", SWEEPS)
@pytest.mark.parametrize("width", [50, 100, 128])
def test_small_networks_fit(library: SweepLibrary, width: int, task: str, dtype: torch.dtype) -> None:
    """300 points make fewer tiles than there are multiprocessors, so the smallest tile; 3000 larger ones."""
    assert rows(library, wave_net(width, width, width), dtype, task) == 16
    most = 16 if (width, dtype, task) == (128, torch.float64, "diag") else 64 if dtype == torch.float32 else 32
    assert rows(library, wave_net(width, width, width, n=3000), dtype, task) >= most


@pytest.mark.parametrize("task", SWEEPS)
def test_other_networks_do_not(library: SweepLibrary, task: str, dtype: torch.dtype) -> None:
    assert rows(library, wave_net(129), dtype, task) == 0
    assert rows(library, wave_net(*[8] * 7), dtype, task) == 16
    assert rows(library, wave_net(*[8] * 8), dtype, task) == 0, "more layers than a launch describes"
    with device(shared_bytes=0):
        assert rows(library, wave_net(8), dtype, task) == 0


def test_smaller_devices(library: SweepLibrary) -> None:
    wide, many = wave_net(128, 128, 128, n=3000), wave_net(100, 100, 100, n=3000)
    for shared_bytes, expected in ((A100, (32, 64)), (RTX_5090, (0, 32))):
        with device(shared_bytes=shared_bytes):
            assert (rows(library, wide, torch.float32), rows(library, many, torch.float32)) == expected


def results(library: SweepLibrary, made: Made) -> list[Tensor]:
    out, A, Z, D = map(unwritten, (made.out, made.A, made.Z, made.D))
    diag = torch.full((len(made.chain.layers), made.groups.residual_rows), torch.nan).double()
    assert library.jet_forward(made.args, made.groups, out, A, Z) == 0
    assert library.jet_backward(made.args, made.groups, made.seeds, made.Z, D) == 0
    assert library.diag(made.args, made.groups, made.seeds, 0, diag) == 0
    return [t.nan_to_num(7.0) for t in (out, A, Z, D, diag)]


@pytest.mark.parametrize(
    "case",
    [
        SweepCase("ragged", lambda: mlp(nn.Tanh, (2, 33, 18, 1)), ragged(POINTS)),
        SweepCase("six_channels", lambda: mlp(nn.SiLU, (4, 9, 10, 1)), {"r": (POINTS, laplacian4)}, 4),
    ],
    ids=str,
)
def test_a_tile_changes_no_bit(library: SweepLibrary, case: SweepCase, dtype: torch.dtype) -> None:
    made, found = make(case, dtype), {}
    for multiprocessors in range(1, 200, 3):
        with device(multiprocessors=multiprocessors):
            tiles = tuple(library.small_tile_rows(made.args, made.groups.spec, task) for task in SWEEPS)
            if tiles not in found:
                found[tiles] = results(library, made)
    assert {tiles[2] for tiles in found} == {16, 32, 64}
    first, *others = found.values()
    assert all(torch.equal(a, b) for other in others for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("multiprocessors", [1, 132])
def test_nothing_is_kept_in_memory(library: SweepLibrary, multiprocessors: int, dtype: torch.dtype) -> None:
    made = make(wave_net(20, 20, n=POINTS), dtype)
    with device(multiprocessors=multiprocessors):
        assert library.diag_workspace(made.args, made.groups.spec) == 0
    with device(shared_bytes=0):
        assert library.diag_workspace(made.args, made.groups.spec) > 0


def test_nan_stays_where_it_is(library: SweepLibrary, dtype: torch.dtype) -> None:
    """A point that is not a number spoils its own rows alone, however large the tile."""
    made = make(wave_net(20, 20, n=POINTS), dtype)
    made.groups.points[0][7] = torch.nan
    clean = torch.arange(POINTS) != 7
    for multiprocessors in (1, 132):
        with device(multiprocessors=multiprocessors):
            diag = torch.zeros(len(made.chain.layers), POINTS).double()
            assert library.diag(made.args, made.groups, made.seeds, 0, diag) == 0
        assert diag[:-1, ~clean].isnan().all() and diag[:, clean].isfinite().all()
