"""Who may look at what, where a row holds several documents: as booleans, blocks, or places.

Booleans (B, 1, T, T) are understood everywhere, but no flash kernel takes them. FlexAttention does
with blocks of 128 × 128 positions: it passes over those that nobody looks at, and asks of single
positions only in those that are looked at in part. On a CPU each document of a long row is computed
by itself.

Legend of shapes: B rows, T positions, n blocks of positions.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

BLOCK = 128
"""Positions of a block."""
LONG_ROW = 384
"""Positions from which documents by themselves are worth it on a CPU: of documents of 300 attention
takes 0.73 of a mask's time in rows of 384, 0.67 in 512, 0.26 in 2,048, and as long in 256, where
shorter ones gain a fifth and narrow heads nothing (benchmarks/documents.py)."""
LEAST_PLACE = 16
"""Positions of a document on average, below which calls would cost more than they save."""


@dataclass(frozen=True)
class Pieces:
    """Where each document stands, none of which looks at another."""

    places: tuple[tuple[int, int, int], ...]
    """Of each its row, and where in that it begins and ends; they fill all rows."""
    documents: Tensor
    """(B, T), from which that was found."""
    causal: bool
    """Whether a position looks only at itself and before."""

    def mask(self) -> Tensor:
        """Return the same as booleans (B, 1, T, T)."""
        return may_look(self.documents, causal=self.causal)


def pieces_of(documents: Tensor, *, causal: bool) -> Pieces | None:
    """Find where each document stands; None where the rows or the documents are too short for it.

    Args:
        documents: (B, T), as `may_look` takes them.
        causal: only at itself and before.
    """
    rows, length = documents.shape
    if length < LONG_ROW:
        return None
    steps = documents.diff(dim=1)
    if bool((steps < 0).any()):  # what stands apart in a row might be one document
        return None
    cuts: list[list[int]] = [[0] for _ in range(rows)]
    for row, place in steps.nonzero().tolist():
        cuts[row].append(place + 1)
    places = tuple(
        (row, start, end)
        for row, starts in enumerate(cuts)
        for start, end in pairwise((*starts, length))
    )
    return Pieces(places, documents, causal) if len(places) * LEAST_PLACE <= rows * length else None


def may_look(documents: Tensor, *, causal: bool) -> Tensor:
    """Say where each position may look: within its own document.

    Args:
        documents: (B, T), equal where positions belong to one document.
        causal: only at itself and before.

    Returns:
        booleans (B, 1, T, T): row, head, who looks, at what.
    """
    same = documents[:, None, :, None] == documents[:, None, None, :]
    return same.tril() if causal else same


def blocks_to_look_at(documents: Tensor, *, causal: bool) -> "BlockMask":
    """Say the same by blocks, found by the first and last document of each: once for all layers.

    Args:
        documents: as `may_look` takes them, and never falling along a row.
        causal: only at itself and before.
    """
    from torch.nn.attention.flex_attention import BlockMask

    rows, length = documents.shape
    short = -length % BLOCK
    # What is filled up belongs to a document of its own, at which nobody who counts may look.
    filled = torch.cat([documents, (documents[:, -1:] + 1).expand(rows, short)], dim=1)
    parts = filled.view(rows, -1, BLOCK)
    first, last = parts[:, :, 0], parts[:, :, -1]
    looks = (first[:, :, None] <= last[:, None, :]) & (last[:, :, None] >= first[:, None, :])
    alone = first == last
    full = looks & alone[:, :, None] & alone[:, None, :]
    if causal:
        looks, full = looks.tril(), full.tril(-1)
    told = (*_listed(looks & ~full), *_listed(full))

    def mask(row: Tensor, head: Tensor, who: Tensor, what: Tensor) -> Tensor:
        same = filled[row, who] == filled[row, what]
        return same & (who >= what) if causal else same

    made: Any = BlockMask.from_kv_blocks(
        *told, BLOCK_SIZE=BLOCK, mask_mod=mask, seq_lengths=(length, length)
    )
    found: BlockMask = made
    return found


def _listed(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Turn booleans (B, n, n) into how many there are, (B, 1, n), and which, those first."""
    counts = blocks.sum(dim=-1, dtype=torch.int32)
    order = blocks.int().argsort(dim=-1, descending=True, stable=True).int()
    return counts[:, None], order[:, None].contiguous()
