"""The sweeps' CUDA kernels, compiled for the host, behind the calls of `ntkfast._ops`."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path

from host_build import CSRC, FOLDER, compile_for_host
from torch import Tensor

from ntkfast.sweep import ChainArgs, GroupArgs

OPS = (
    "gemm",
    "jet_forward",
    "jet_backward",
    "factor_diag",
    "vjp",
    "jvp",
    "gram",
    "diag",
    "small_sweep",
    "linear_sweep",
)
SOURCES = [
    FOLDER / "sweep_exports.cpp",
    FOLDER / "contraction_exports.cpp",
    *(CSRC / "cuda" / f"{name}.cu" for name in (*OPS, "jacobian", "error")),
]


class ChainArrays(ctypes.Structure):
    """cuda_host::ChainArrays of host_sweep.h."""

    _fields_ = [
        ("layers", ctypes.c_int),
        ("parameters", ctypes.c_void_p),
        ("widths", ctypes.c_void_p),
        ("activations", ctypes.c_void_p),
        ("constants", ctypes.c_void_p),
    ]


class GroupArrays(ctypes.Structure):
    """cuda_host::GroupArrays of host_sweep.h."""

    _fields_ = [
        ("size", ctypes.c_int),
        ("spec", ctypes.c_void_p),
        ("points", ctypes.c_void_p),
        ("beta", ctypes.c_void_p),
        ("omega", ctypes.c_void_p),
        ("beta_rows", ctypes.c_void_p),
        ("omega_rows", ctypes.c_void_p),
        ("seeds", ctypes.c_void_p),
        ("seed_strides", ctypes.c_void_p),
    ]


def address(t: Tensor | None) -> int | None:
    return t.data_ptr() if t is not None and t.numel() else None


def pointer(t: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(address(t))


class Arrays:
    """Keeps what its structs point to."""

    def __init__(self) -> None:
        self.kept: list[object] = []

    def array(self, kind: type, values: Sequence) -> int:
        made = (kind * max(len(values), 1))(*values)
        self.kept.append(made)
        return ctypes.addressof(made)

    def chain(self, chain: ChainArgs) -> ctypes._Pointer:
        weights = chain.parameters[::2]
        widths = [weights[0].shape[1], *(w.shape[0] for w in weights)]
        made = ChainArrays(
            len(chain.activations),
            self.array(ctypes.c_void_p, [address(p) for p in chain.parameters]),
            self.array(ctypes.c_int64, widths),
            self.array(ctypes.c_int, chain.activations),
            self.array(ctypes.c_double, chain.constants),
        )
        self.kept.append(made)
        return ctypes.pointer(made)

    def groups(
        self, spec: Sequence[int], groups: GroupArgs | None = None, seeds: Sequence[Tensor] = ()
    ) -> ctypes._Pointer:
        made = GroupArrays(len(spec), self.array(ctypes.c_int64, spec))
        if groups is not None:
            made.points = self.array(ctypes.c_void_p, [t.data_ptr() for t in groups.points])
            made.beta = self.array(ctypes.c_void_p, [t.data_ptr() for t in groups.beta])
            made.omega = self.array(ctypes.c_void_p, [t.data_ptr() for t in groups.omega])
            made.beta_rows = self.array(ctypes.c_int64, [t.shape[0] for t in groups.beta])
            made.omega_rows = self.array(ctypes.c_int64, [t.shape[0] for t in groups.omega])
        if seeds:
            made.seeds = self.array(ctypes.c_void_p, [t.data_ptr() for t in seeds])
            made.seed_strides = self.array(ctypes.c_int64, [s for t in seeds for s in t.stride()])
        self.kept.append(made)
        return ctypes.pointer(made)


class SweepLibrary:
    """The operators by the names and arguments of `ntkfast._ops`; each returns the launch's code."""

    def __init__(self, path: Path) -> None:
        self.library = ctypes.CDLL(str(path))

    @staticmethod
    def build(output: Path, *flags: str) -> Path:
        return compile_for_host(SOURCES, output, "-shared", *flags)

    def call(self, name: str, like: Tensor, *arguments: object) -> int:
        return getattr(self.library, f"{name}_{str(like.dtype).removeprefix('torch.')}")(*arguments)

    def gemm(self, a: Tensor, b: Tensor, out: Tensor) -> int:
        sizes = [ctypes.c_int64(size) for size in (a.shape[0], b.shape[1], a.shape[1])]
        return self.call("gemm", a, *sizes, *map(pointer, (a, b, out)))

    def jet_forward(self, chain: ChainArgs, groups: GroupArgs, out: Tensor, A: Tensor, Z: Tensor) -> int:
        made = Arrays()
        described = made.groups(groups.spec, groups)
        return self.call("jet_forward", out, made.chain(chain), described, *map(pointer, (out, A, Z)))

    def jet_backward(self, chain: ChainArgs, groups: GroupArgs, seeds: list[Tensor], Z: Tensor, D: Tensor) -> int:
        made = Arrays()
        described = made.groups(groups.spec, groups, seeds)
        return self.call("jet_backward", D, made.chain(chain), described, pointer(Z), pointer(D))

    def small_tile_rows(self, chain: ChainArgs, spec: list[int], task: str) -> int:
        """Stack rows of a tile of the fused sweep; 0 where it is not taken."""
        made = Arrays()
        number = ("jet_forward", "jet_backward", "diag").index(task)
        return self.call("small_tile_rows", chain.parameters[0], made.chain(chain), made.groups(spec), number)

    def diag(self, chain: ChainArgs, groups: GroupArgs, seeds: list[Tensor], tile_rows: int, out: Tensor) -> int:
        made = Arrays()
        rows = ctypes.c_int64(tile_rows)
        described = made.groups(groups.spec, groups, seeds)
        return self.call("diag", chain.parameters[0], made.chain(chain), described, rows, pointer(out))

    def linear_sweep(
        self,
        chain: ChainArgs,
        groups: GroupArgs,
        seeds: list[Tensor],
        offset: Tensor,
        pull: Tensor,
        rows: Tensor,
        grads: list[Tensor],
        diag: Tensor,
        A: Tensor,
        D: Tensor,
    ) -> int:
        made = Arrays()
        described = made.groups(groups.spec, groups, seeds)
        targets = ctypes.c_void_p(made.array(ctypes.c_void_p, [address(g) for g in grads]))
        arguments = (*map(pointer, (offset, pull, rows)), targets, *map(pointer, (diag, A, D)))
        return self.call("linear_sweep", rows, made.chain(chain), described, *arguments)

    def diag_workspace(self, chain: ChainArgs, spec: list[int]) -> int:
        made = Arrays()
        return self.call("diag_workspace", chain.parameters[0], made.chain(chain), made.groups(spec))

    def factor_diag(self, chain: ChainArgs, spec: list[int], A: Tensor, D: Tensor, out: Tensor) -> int:
        made = Arrays()
        return self.call("factor_diag", A, made.chain(chain), made.groups(spec), *map(pointer, (A, D, out)))

    def vjp(self, chain: ChainArgs, spec: list[int], A: Tensor, D: Tensor, x: Tensor, grads: list[Tensor]) -> int:
        made = Arrays()
        targets = made.array(ctypes.c_void_p, [address(g) for g in grads])
        arguments = (*map(pointer, (A, D, x)), ctypes.c_void_p(targets))
        return self.call("vjp", A, made.chain(chain), made.groups(spec), *arguments)

    def jvp(self, chain: ChainArgs, spec: list[int], A: Tensor, D: Tensor, tangents: list[Tensor], out: Tensor) -> int:
        made = Arrays()
        given = made.array(ctypes.c_void_p, [address(v) for v in tangents])
        arguments = (pointer(A), pointer(D), ctypes.c_void_p(given), pointer(out))
        return self.call("jvp", A, made.chain(chain), made.groups(spec), *arguments)

    def gram(
        self,
        chain: ChainArgs,
        side: tuple[list[int], Tensor, Tensor],
        other: tuple[list[int], Tensor, Tensor],
        symmetric: bool,
        use_explicit: list[int],
        chunk: int,
        together: int,
        out: Tensor,
    ) -> int:
        made = Arrays()
        sides = [part for spec, A, D in (side, other) for part in (made.groups(spec), pointer(A), pointer(D))]
        paths = (ctypes.c_bool(symmetric), ctypes.c_void_p(made.array(ctypes.c_bool, use_explicit)))
        sizes = (ctypes.c_int64(chunk), ctypes.c_int(together))
        return self.call("gram", out, made.chain(chain), *sides, *paths, *sizes, pointer(out))
