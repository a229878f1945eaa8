"""The plan of a batch's LoRA work in an embedding.

The delta of token t's embedding is `B[t] A`: row t of `(V, r)` times `(r, d)`. It is one row of B and one
small product, so it costs about as much as half of a linear layer's delta.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch.nn import functional

from lora_compose.server.engine.cpu.batch import Batch, Share
from lora_compose.server.engine.cpu.packed_factors import EmbeddingPack

# Shares of up to this many multiplications use our kernel, on the calling thread.
SMALL_SHARE = 1 << 19

EmbeddingKernel = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray], None]
"""`kernel.add_embedding_deltas`."""


class EmbeddingPlan:
    """`y[row] += Σ w B[token of the row] A` over each row's members, in place.

    `packs` has each member's factors; None if it has none for the embedding.
    """

    def __init__(
        self,
        batch: Batch,
        packs: Mapping[str, EmbeddingPack | None],
        dtype: torch.dtype,
        kernel: EmbeddingKernel,
    ) -> None:
        self._batch = batch
        self._kernel = kernel
        self._packs = packs  # keeps their memory alive: the table holds only addresses
        self._large: list[tuple[torch.Tensor, torch.Tensor, EmbeddingPack]] = []
        lines: list[tuple[int, ...]] = []
        for share in batch.shares:
            pack = packs[share.member]
            if pack is None:
                continue
            if _is_small(share, pack, dtype):
                lines.append(_line(share, pack))
            else:
                rows, weights = batch.rows[share.start : share.end], batch.weights[share.start : share.end]
                column = torch.from_numpy(weights).to(dtype)[:, None]
                self._large.append((torch.from_numpy(rows), column, pack))
        self._table = np.array(lines, dtype=np.int64)

    def add_deltas(self, y: torch.Tensor, tokens: torch.Tensor) -> None:
        """tokens is `(rows,)`, y `(rows, d)` and contiguous."""
        batch = self._batch
        if batch.height > len(y):
            raise IndexError(f"row {batch.height - 1} is out of range: there are {len(y)} rows")
        ids = tokens.long()
        if len(self._table):
            self._kernel(y.numpy(), ids.numpy(), batch.rows, batch.weights, self._table)
        for rows, weights, pack in self._large:
            factors = functional.embedding(ids[rows], pack.lora_b) * weights
            y.index_add_(0, rows, factors @ pack.lora_a)


def _is_small(share: Share, pack: EmbeddingPack, dtype: torch.dtype) -> bool:
    return dtype == torch.float32 and (share.end - share.start) * pack.lora_a.numel() <= SMALL_SHARE


def _line(share: Share, pack: EmbeddingPack) -> tuple[int, ...]:
    vocabulary, rank = pack.lora_b.shape
    return share.start, share.end, pack.lora_b.data_ptr(), pack.lora_a.data_ptr(), rank, vocabulary
