"""Keys and values of many texts, in pages of some positions: a text takes as many as it has filled.

Pages in use lie side by side at the front of one pool, so that attention reads them in one go,
each with the query of the text that it belongs to, however different the texts' lengths are.

Legend of shapes: B texts, S slots, P pages, M pages of the longest text, T positions, H heads of
keys, Hq of queries, K head width.
"""

import heapq
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from nextword.model.attention import LayerCache
from nextword.model.shape import Shape

PAGE = 32
"""Positions of a page."""
EMPTY, SPARE = 0, 1
"""Pages of no text: the first is read where a text has none and stays zero, in the other those rows
write that only fill up a product."""
SCATTERED = 3
"""Times as many pages as are looked at from which those are copied together first: reading, writing
and reading again are about three readings."""


class Pages:
    """The pool, and which of its pages hold what of which text."""

    def __init__(self, shape: Shape, slots: int, positions: int, device: torch.device) -> None:
        """Reserve room.

        Args:
            shape: the network's sizes.
            slots: S, texts that have room at once.
            positions: that each of them may have.
            device: where the network is.
        """
        self.count = slots * -(-positions // PAGE) + 2
        size = (2, self.count, shape.num_key_value_heads, PAGE, shape.head_dim)
        # Zero: what nobody has written counts nothing, but must be a number.
        pools = (torch.zeros(size, device=device) for _ in range(shape.num_hidden_layers))
        self.layers = [LayerCache(both, both[0], both[1]) for both in pools]
        self.device = device
        self._of: list[list[int]] = [[] for _ in range(slots)]
        self._free = list(range(SPARE + 1, self.count))  # a heap: the lowest is taken first

    def reach(self, slot: int, positions: int) -> None:
        """Let a text have pages for so many positions."""
        pages = self._of[slot]
        while len(pages) * PAGE < positions:
            pages.append(heapq.heappop(self._free))

    def cut(self, slot: int, positions: int) -> None:
        """Take a text's pages back, but those of its first positions."""
        pages, kept = self._of[slot], -(-positions // PAGE)
        for page in pages[kept:]:
            heapq.heappush(self._free, page)
        del pages[kept:]

    def clean(self, slot: int) -> None:
        """Take a text's pages back and wipe them, for they may hold what is no number."""
        for layer in self.layers:
            layer.both[:, self._of[slot]] = 0.0
        self.cut(slot, 0)

    def copy(self, source: int, slot: int, positions: int) -> None:
        """Give a text what another's pages hold of its first positions."""
        self.cut(slot, 0)
        self.reach(slot, positions)
        taken = self._of[source][: len(self._of[slot])]
        for layer in self.layers:
            layer.both[:, self._of[slot]] = layer.both[:, taken]

    def places(self, whose: Sequence[tuple[int, int]], spare: int) -> tuple[Tensor, Tensor]:
        """Return the page of each of some texts' positions, and where in it: (rows,) each.

        Args:
            whose: slot and position of each row.
            spare: rows beside these, which are nobody's.
        """
        pages = [self._of[slot][place // PAGE] for slot, place in whose]
        offsets = [place % PAGE for _, place in whose]
        return self._tensor(pages + [SPARE] * spare), self._tensor(offsets + [0] * spare)

    def text(self, kept: Tensor, slot: int, end: int) -> Tensor:
        """Collect a text's keys or values from one layer's pool: (H, T, K)."""
        found = kept[self._of[slot][: -(-end // PAGE)]]
        return found.transpose(0, 1).flatten(1, 2)[:, :end]

    def looking(self, slots: Sequence[int], places: Sequence[int]) -> "Looking":
        """Find what a step looks at.

        Args:
            slots: of the texts.
            places: the position that each of them gets.
        """
        pairs = zip(slots, places, strict=True)
        of = [self._of[slot][: place // PAGE + 1] for slot, place in pairs]
        reach, most = 1 + max(map(max, of)), max(map(len, of))
        rows: Tensor | slice = slice(0, reach)
        row_of: Sequence[int] | dict[int, int] = range(reach)
        if reach > SCATTERED * sum(map(len, of)):
            together = [EMPTY, *(page for pages in of for page in pages)]
            rows, reach = self._tensor(together), len(together)
            row_of = {page: row for row, page in enumerate(together)}
        table = [[row_of[page] for page in pages] for pages in of]
        owners, numbers = [0] * reach, [0] * reach
        for text, line in enumerate(table):
            for number, row in enumerate(line):
                owners[row], numbers[row] = text, number
        lengths = self._tensor(places)[:, None] + 1
        return Looking(
            rows,
            self._tensor(owners),
            self._tensor(numbers),
            self._tensor([line + [EMPTY] * (most - len(line)) for line in table]),
            torch.arange(most * PAGE, device=self.device) >= lengths,
        )

    def _tensor(self, values: Sequence[object]) -> Tensor:
        return torch.tensor(values, device=self.device)


class Looking(NamedTuple):
    """What a step's attention looks at."""

    rows: Tensor | slice
    """Of the pool, that are read: P of them."""
    owners: Tensor
    """(P,): whose they are; of those that are nobody's, anybody."""
    numbers: Tensor
    """(P,): which of their owner's pages."""
    table: Tensor
    """(B, M): the rows of each text, in the order of its positions."""
    beyond: Tensor
    """(B, M·PAGE): true where a text has not been."""


def attend(asked: Tensor, kept: LayerCache, looking: Looking) -> Tensor:
    """Mix values by how well keys answer queries (B, Hq, K); return (B, Hq·K).

    Each page is read by its owner's query; what comes of a text's pages is put side by side for the
    softmax, and added up in the order of its positions. A page that a text does not have adds
    nothing, exactly.
    """
    texts, _, width = asked.shape
    groups = kept.keys.shape[1]
    keys, values = kept.keys[looking.rows], kept.values[looking.rows]
    queries = (asked / math.sqrt(width)).view(texts, groups, -1, width)
    scores = torch.matmul(queries[looking.owners], keys.transpose(2, 3))  # (P, H, Hq/H, PAGE)
    beside = scores[looking.table].permute(0, 2, 3, 1, 4).flatten(3)  # (B, H, Hq/H, M·PAGE)
    beside = beside.masked_fill_(looking.beyond[:, None, None], -torch.inf).softmax(-1)
    apart = beside.view(*beside.shape[:3], -1, PAGE).permute(0, 3, 1, 2, 4)
    shares = apart[looking.owners, looking.numbers]
    shares[EMPTY] = 0.0  # not even what is no number
    mixed = torch.matmul(shares, values)[looking.table].flatten(2)  # (B, M, Hq·K)
    # One after the other: how `sum` groups them depends on how many there are.
    found = mixed[:, 0].clone()
    for number in range(1, mixed.shape[1]):
        found += mixed[:, number]
    return found
