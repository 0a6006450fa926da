"""Streaming sweeps: tiles of points through all layers and back; neither the Jacobian nor the factors are kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from . import _ops
from .chain import Chain
from .memory import parse_memory, streaming_plan
from .sweep import ChainArgs, GroupArgs, lone, part_of


def by_block(chain: Chain, args: ChainArgs, layers: Tensor, per_block: bool) -> Any:
    """Sum (layers, …) in float64 over layers, or name them; frozen layers and inserted identities are left out."""
    if not per_block:
        return layers.sum(0).to(chain.dtype)
    kept = [i for i in range(len(chain.layers)) if any(args.active(i))]
    return {chain.layers[i].name: layers[i].to(chain.dtype, copy=True) for i in kept}


def layer_sums(rows: Tensor) -> Tensor:
    """Sum (layers, N) over N, the same bits whatever the number of threads: torch would cut a lone sum for them."""
    return rows.sum(1) if len(rows) > 1 else rows.expand(2, -1).sum(1)[:1]


def streaming_diag(
    chain: Chain, args: ChainArgs, groups: GroupArgs, memory: int | str | None, per_block: bool, dtype: torch.dtype
) -> Tensor:
    """The diagonal by layers, (layers, N), or summed over them in float64, (1, N)."""
    budget = parse_memory(memory)
    tile_rows, at_once = streaming_plan(chain, groups, budget)
    layers = len(chain.layers)
    result = torch.empty(layers if per_block else 1, groups.residual_rows, dtype=dtype, device=chain.device)
    for start, part, seeds in chunks(chain, args, groups, at_once):
        piece = torch.empty(layers, part.residual_rows, dtype=torch.float64, device=chain.device)
        _ops.diag(args, part, seeds, tile_rows, piece)
        result[:, start : start + part.residual_rows] = piece if per_block else piece.sum(0)
    return result


def streaming_trace(chain: Chain, args: ChainArgs, groups: GroupArgs, memory: int | str | None) -> dict[str, Tensor]:
    """The trace by layers, (layers,) in float64 for each group; O(1) memory beside a chunk of points."""
    budget = parse_memory(memory)
    tile_rows, at_once = streaming_plan(chain, groups, budget)
    slices, sums = groups.slices, {}
    for _, part, seeds in chunks(chain, args, groups, at_once):
        piece = torch.empty(len(chain.layers), part.residual_rows, dtype=torch.float64, device=chain.device)
        _ops.diag(args, part, seeds, tile_rows, piece)
        for name in part.names:
            own = layer_sums(piece[:, slices[name]] if len(part.names) > 1 else piece)
            sums[name] = sums[name] + own if name in sums else own
    for name in groups.names:
        if name not in sums:  # it has no points
            sums[name] = torch.zeros(len(chain.layers), dtype=torch.float64, device=chain.device)
    return {name: sums[name] for name in groups.names}


def chunks(
    chain: Chain, args: ChainArgs, groups: GroupArgs, at_once: int, joined: bool = True
) -> Iterator[tuple[int, GroupArgs, list[Tensor]]]:
    """Yield (first residual row, groups, seeds) for pieces of at most `at_once` points; one piece if all fit.

    Args:
        chain: the network.
        args: its native form.
        groups: points and recordings.
        at_once: the most points of a piece.
        joined: whether groups that fit together are one piece, or each is one of its own.
    """
    if joined and sum(groups.sizes) <= at_once:
        seeds = []
        for i, recording in enumerate(groups.recordings):
            seeds += recording.seeds() if recording.linear else known_seeds(chain, args, lone(groups, i))
        yield 0, groups, seeds
        return
    row = 0
    for i, (n, recording) in enumerate(zip(groups.sizes, groups.recordings, strict=True)):
        group, k = lone(groups, i), recording.n_components
        whole = recording.seeds() if recording.linear else []
        for start in range(0, n, at_once):
            stop = min(start + at_once, n)
            piece = part_of(group, start, stop)
            if recording.linear:
                yield row + start * k, piece, [s[:, start:stop] for s in whole]
            else:
                alone = replace(piece, recordings=(recording.part(start, stop),))
                yield row + start * k, piece, known_seeds(chain, args, alone)
        row += n * k


def known_seeds(chain: Chain, args: ChainArgs, group: GroupArgs) -> list[Tensor]:
    """Seeds of a lone group whose residual is not linear: it needs the output channels, by a sweep of its own."""
    return group.recordings[0].seeds(output_channels(chain, args, group)[0])


def output_channels(chain: Chain, args: ChainArgs, groups: GroupArgs) -> list[Tensor]:
    """The channels of the outputs, (C, n, o) for each group, by a forward sweep that stores nothing else."""
    out = args.parameters[0].new_empty(groups.rows * chain.out_features)
    if groups.rows:
        nothing = out.new_empty(0)
        _ops.jet_forward(args, groups, out, nothing, nothing)
    return groups.outputs(out, chain.out_features)
