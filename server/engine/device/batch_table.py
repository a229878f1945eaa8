"""A batch as the kernels read it: groups of rows with the same members, in memory whose address is fixed.

All numbers of a batch are in one int32 tensor, and the weights in a float32 tensor. Both are written on the
host and copied in one piece each. CUDA graphs read them at the same place in every replay.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from lora_compose.server.engine.device.kernels import TILE_FIELDS

Members = Mapping[str, float]
"""A request's adapters with their weights."""
SMALL_TILE, LARGE_TILE = 16, 64
"""Rows of a tile, in the kernels for at most `SMALL_BATCH` rows and in those for more."""
SMALL_BATCH = 64


@dataclass(frozen=True)
class Limits:
    """The largest batch. A row for each of `max_rows` tokens, one composition for each request."""

    max_rows: int
    max_requests: int
    max_ranks: int
    """Ranks of one composition, with the fused one that it subtracts."""


@dataclass(frozen=True, eq=False)
class Tiles:
    """For one size of tiles: their number, `(1,)`, and `(n, 3)` fields. Views of the table."""

    height: int
    count: torch.Tensor
    fields: torch.Tensor


class BatchTable:
    """The tensors on the device, and `set`, which writes a batch into them."""

    def __init__(self, limits: Limits, device: torch.device | str) -> None:
        self.limits = limits
        requests, rows = limits.max_requests, limits.max_rows
        sizes = {
            "small_count": 1,
            "large_count": 1,
            "small": TILE_FIELDS * _most_tiles(min(rows, SMALL_BATCH), requests, SMALL_TILE),
            "large": TILE_FIELDS * _most_tiles(rows, requests, LARGE_TILE),
            "rows": rows,
            "compositions": rows,
            "counts": requests,
            "entries": requests * limits.max_ranks,
        }
        ends = np.cumsum([*sizes.values()])
        self._places = {
            name: slice(end - size, end) for (name, size), end in zip(sizes.items(), ends, strict=True)
        }
        self._numbers = torch.zeros(int(ends[-1]), dtype=torch.int32, device=device)
        self.weights = torch.zeros((requests, limits.max_ranks), dtype=torch.float32, device=device)
        self.small = Tiles(SMALL_TILE, self._view("small_count"), self._view("small"))
        self.large = Tiles(LARGE_TILE, self._view("large_count"), self._view("large"))
        self.rows, self.compositions = self._view("rows"), self._view("compositions")
        self.counts, self.entries = self._view("counts"), self._view("entries")

    def _view(self, name: str) -> torch.Tensor:
        return self._numbers[self._places[name]]

    def tiles(self, rows: int) -> Tiles:
        """Those of the kernels for a batch of `rows` rows, with the rows that vLLM adds."""
        return self.small if rows <= SMALL_BATCH else self.large

    def clear(self) -> None:
        """No row has an adapter."""
        self._copy(np.zeros(len(self._numbers), np.int32), self._numbers)

    def set(
        self,
        wanted: Sequence[Members],
        token_counts: Sequence[int],
        pool_rows: Callable[[str], Sequence[int]],
    ) -> None:
        """Write a batch in which request i has `token_counts[i]` rows, one request after another.

        `pool_rows` returns the rows of an adapter in the pools. Members are in the order of their names, so
        that the sum for a row does not depend on other rows."""
        numbers = np.zeros(len(self._numbers), np.int32)
        parts = {name: numbers[place] for name, place in self._places.items()}
        weights = np.zeros(self.weights.shape, np.float32)
        starts = np.concatenate([[0], np.cumsum(token_counts)])
        first = 0
        small, large = [], []
        for group, requests in enumerate(_groups(wanted, token_counts)):
            names = sorted(wanted[requests[0]])
            found = [pool_rows(name) for name in names]
            ranks = [len(rows) for rows in found]
            entries = np.concatenate(found)
            self._check_rank(len(entries))
            parts["counts"][group] = len(entries)
            at = group * self.limits.max_ranks
            parts["entries"][at : at + len(entries)] = entries
            begin = first
            for request in requests:
                end = first + token_counts[request]
                parts["rows"][first:end] = np.arange(starts[request], starts[request + 1])
                parts["compositions"][first:end] = request
                own = [wanted[request][name] for name in names]
                weights[request, : len(entries)] = np.repeat(np.array(own, np.float32), ranks)
                first = end
            small += _tiles(group, begin, first, SMALL_TILE)
            large += _tiles(group, begin, first, LARGE_TILE)
        if starts[-1] <= SMALL_BATCH:
            _write_tiles(small, parts["small_count"], parts["small"])
        _write_tiles(large, parts["large_count"], parts["large"])
        self._copy(numbers, self._numbers)
        self._copy(weights, self.weights)

    def _check_rank(self, rank: int) -> None:
        if rank > self.limits.max_ranks:
            raise RuntimeError(f"a composition has rank {rank}; at most {self.limits.max_ranks} fit")

    def _copy(self, values: np.ndarray, target: torch.Tensor) -> None:
        source = torch.from_numpy(values)
        if target.device.type == "cuda":
            source = source.pin_memory()
        target.copy_(source, non_blocking=True)


def _most_tiles(rows: int, requests: int, height: int) -> int:
    """Each group has at most one tile that is not full."""
    return rows // height + min(rows, requests)


def _groups(wanted: Sequence[Members], token_counts: Sequence[int]) -> list[list[int]]:
    """The requests with rows and members, by their members."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for request, members in enumerate(wanted):
        if members and token_counts[request]:
            groups.setdefault(tuple(sorted(members)), []).append(request)
    return list(groups.values())


def _tiles(group: int, begin: int, end: int, height: int) -> list[tuple[int, int, int]]:
    return [(group, first, min(height, end - first)) for first in range(begin, end, height)]


def _write_tiles(tiles: Sequence[tuple[int, int, int]], count: np.ndarray, fields: np.ndarray) -> None:
    count[0] = len(tiles)
    fields[: len(tiles) * TILE_FIELDS] = np.array(tiles, np.int32).reshape(-1)
