"""Texts of different lengths side by side, each in a slot of its own: what a server reads with.

Every step reads the weights once for all texts that are being written. What a text is told must
not depend on who else is there, to the last bit, and a product's rounding depends on how many rows
it has: rows are filled up to a multiple for which it does not, found by trial when the slots are
made. Keys and values lie in pages (pages.py), of which a text has as many as it has filled.

Legend of shapes: B texts, T positions, D width, H heads, K head width, V vocabulary.
"""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from nextword.base.errors import ModelError
from nextword.kernels.layers_cpu import packed_view
from nextword.kernels.packed import COPIED_BYTES, ROWS, PackedMatrix
from nextword.model.attention import LayerCache, attention
from nextword.model.inputs import check_ids
from nextword.model.layers import apply_rotary
from nextword.model.pages import Pages, attend
from nextword.model.transformer import Block, Transformer

BLOCK = 64
"""Positions read at once from a text's beginning on."""
MULTIPLES = (1, 2, 4, 8, 16)
"""Of rows that are tried; 1 it is where products are oneDNN's, 4 where they are the BLAS'."""


EVEN = 8
"""Of which the rows are a multiple where they are many and need not be another's."""


class _Layer(NamedTuple):
    """One layer's weights as products take them; norms times √D, of heads √K."""

    before_attention: Tensor
    projections: PackedMatrix
    head_norms: Tensor | None
    gather: PackedMatrix
    before_feed_forward: Tensor
    gate_and_up: PackedMatrix
    down: PackedMatrix


class Part(NamedTuple):
    """Some ids of a text, to be read at once."""

    slot: int
    """Where the text is kept."""
    ids: Sequence[int]
    start: int
    """Positions of the text that were read before."""

    @property
    def end(self) -> int:
        """Positions that are read then."""
        return self.start + len(self.ids)

    @property
    def whose(self) -> list[tuple[int, int]]:
        """Return slot and position of each id."""
        return [(self.slot, place) for place in range(self.start, self.end)]


class Slots:
    """Keys and values of many texts, and the network that reads them."""

    def __init__(self, model: Transformer, count: int, beside: int = BLOCK) -> None:
        """Reserve room for texts.

        Args:
            model: looks back only; its weights must not be moved afterwards.
            count: texts that have room at once.
            beside: ids of parts that are read at once, at most.
        """
        shape = model.shape
        self.model, self.count, self.context = model, count, shape.context
        self.pages = Pages(shape, count, shape.context, model.device)
        copies = 4 * shape.parameters() <= COPIED_BYTES
        self.layers = [_collect(layer, copies) for layer in model.model.layers]  # type: ignore[arg-type]
        self.output = PackedMatrix(model.output_weight.detach().float(), copies=copies)
        self.last_norm = model.model.norm.weight.detach().float() * math.sqrt(shape.hidden_size)
        # RMSNorm is x·(w·√D) / √(|x|² + D·eps): these are the roots of the last.
        self.edge, self.head_edge = (
            torch.tensor(math.sqrt(size * shape.rms_norm_eps), device=model.device)
            for size in (shape.hidden_size, shape.head_dim)
        )
        self.multiple, self.is_joint = 1, False
        if count > 1:
            self.multiple = self._find_multiple()
            self.is_joint = self.multiple == 1 and self._are_alike(count, beside)

    def read(self, slot: int, ids: Sequence[int], start: int) -> Tensor:
        """Read a part of one text; return its hidden states (T, D).

        Args:
            slot: where the text is kept.
            ids: of the part.
            start: positions of this text that were read before.

        Raises:
            ModelError: there is no such entry, or no room.
        """
        return self.advance((), (), (), [Part(slot, ids, start)])[1][0]

    def step(self, slots: Sequence[int], ids: Sequence[int], places: Sequence[int]) -> Tensor:
        """Read one more token of each of some texts; return the logits (B, V) after them.

        Args:
            slots: where the texts are kept, rising.
            ids: the next token of each.
            places: positions that were read of each before.

        Raises:
            ModelError: there is no such entry, or no room.
        """
        return self.logits(self.advance(slots, ids, places)[0])

    @torch.inference_mode()
    def advance(
        self,
        slots: Sequence[int],
        ids: Sequence[int],
        places: Sequence[int],
        parts: Sequence[Part] = (),
    ) -> tuple[Tensor, list[Tensor]]:
        """Read one more token of each of some texts, and parts of others, in one go.

        What comes of a text is the same bit for bit whatever else was read, as long as it is always
        cut at the same places.

        Args:
            slots: where the texts are kept, rising.
            ids: the next token of each.
            places: positions that were read of each before.
            parts: of other texts; those of the same text in their order.

        Returns:
            hidden states (B, D) of the texts, and of each part (T, D).

        Raises:
            ModelError: there is no such entry, or no room.
        """
        for end in (*(place + 1 for place in places), *(part.end for part in parts)):
            if end > self.context:
                raise ModelError(f"position {end - 1}: the context ends at {self.context}")
        if self.is_joint:
            return self._pass(slots, ids, places, parts)
        read = [self._pass((), (), (), [part])[1][0] for part in parts]
        return self._pass(slots, ids, places, ())[0], read

    def _pass(
        self,
        slots: Sequence[int],
        ids: Sequence[int],
        places: Sequence[int],
        parts: Sequence[Part],
    ) -> tuple[Tensor, list[Tensor]]:
        """Do so in one product for all rows: of the texts first, then of the parts."""
        texts, body = len(slots), self.model.model
        whose = [*zip(slots, places, strict=True), *(one for part in parts for one in part.whose)]
        read = torch.tensor([*ids, *(id_ for part in parts for id_ in part.ids)])
        rows = len(whose)
        if not rows:
            return torch.empty(0, self.model.shape.hidden_size, device=self.model.device), []
        check_ids(read[None], self.model.shape.vocab_size)
        for part in parts:
            self.pages.cut(part.slot, part.start)
        for slot, place in whose:
            self.pages.reach(slot, place + 1)
        # Rows that only fill up stand where nobody reads. Alone a part has the same rows each time.
        spare = self._spare(rows) if texts or self.is_joint else 0
        pages, offsets = self.pages.places(whose, spare)
        looking = self.pages.looking(slots, places) if texts else None
        at = torch.tensor([place for _, place in whose] + [0] * spare, device=self.model.device)
        x = body.embed_tokens.weight.detach()[read.to(self.model.device)].float()
        x = F.pad(x, (0, 0, 0, spare)) if spare else x
        cosine, sine = body.get_buffer("cosine")[at], body.get_buffer("sine")[at]
        ends = itertools.accumulate((len(part.ids) for part in parts), initial=texts)
        spans = [slice(*pair) for pair in itertools.pairwise(ends)]
        for layer, kept in zip(self.layers, self.pages.layers, strict=True):
            asked, keys, values = self._project(layer, x, cosine, sine)
            kept.keys[pages, :, offsets], kept.values[pages, :, offsets] = keys, values
            mixed = [] if looking is None else [attend(asked[:texts], kept, looking)]
            for part, span in zip(parts, spans, strict=True):
                mixed.append(self._look_back(part, kept, asked[span], keys[span], values[span]))
            if spare:
                mixed.append(mixed[0].new_zeros(spare, mixed[0].shape[1]))
            x = self._feed_forward(layer, x, torch.cat(mixed) if mixed[1:] else mixed[0])
        x = _normed(x, self.last_norm, self.edge)
        return x[:texts], [x[span] for span in spans]

    def _look_back(
        self, part: Part, kept: LayerCache, asked: Tensor, keys: Tensor, values: Tensor
    ) -> Tensor:
        """Mix a part's own values (T, H, K) and those before it, for queries (T, Hq, K)."""
        heads = [one.transpose(0, 1) for one in (asked, keys, values)]
        if part.start:
            heads[1:] = [self.pages.text(pool, part.slot, part.end) for pool in kept[1:]]
        mixed = attention(*(one[None] for one in heads), causal=True)
        return mixed[0].transpose(0, 1).flatten(1)

    def copy(self, source: int, slot: int, positions: int) -> None:
        """Take over what was read of a text that begins alike."""
        self.pages.copy(source, slot, positions)

    def leave(self, slot: int, kept: int = 0) -> None:
        """Give back what a text's room holds, but its first positions."""
        self.pages.cut(slot, kept)

    def clean(self, slot: int) -> None:
        """Wipe what is kept of a text whose scores are no numbers: others read beside it."""
        self.pages.clean(slot)

    def logits(self, hidden: Tensor) -> Tensor:
        """Map hidden states (N, D) to logits (N, V)."""
        return self._times(hidden.float(), self.output)

    def _project(
        self, layer: _Layer, x: Tensor, cosine: Tensor, sine: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries (N, Hq, K), keys and values (N, Hk, K), normalized and turned."""
        shape = self.model.shape
        queries, keys = shape.num_attention_heads, shape.num_key_value_heads
        joint = layer.projections.times(_normed(x, layer.before_attention, self.edge))
        heads = joint.view(len(x), -1, shape.head_dim)
        placed = heads[:, : queries + keys]
        if layer.head_norms is not None:
            placed = _normed(placed, layer.head_norms, self.head_edge)
        placed = apply_rotary(placed, cosine, sine)
        return placed[:, :queries], placed[:, queries:], heads[:, queries + keys :]

    def _feed_forward(self, layer: _Layer, x: Tensor, mixed: Tensor) -> Tensor:
        """Add what attention mixed (N, Hq·K), and what the feed-forward part makes of it."""
        x = layer.gather.times(mixed).add_(x)
        both = layer.gate_and_up.times(_normed(x, layer.before_feed_forward, self.edge))
        gate, up = both.chunk(2, -1)
        return layer.down.times(F.silu(gate).mul_(up)).add_(x)

    def _spare(self, rows: int) -> int:
        """Return how many rows to add to some, so that none depends on how many there are.

        For each number of rows oneDNN makes and keeps a product of its own, of some 300 kB: of
        many, only every eighth number is asked for.
        """
        if self.multiple == 1 and rows > ROWS:
            return -rows % EVEN
        return -rows % self.multiple

    def _times(self, rows: Tensor, weight: PackedMatrix) -> Tensor:
        """Multiply rows by a matrix, so that none depends on how many there are."""
        spare = self._spare(len(rows))
        if not spare:
            return weight.times(rows)
        return weight.times(F.pad(rows, (0, 0, 0, spare)))[: len(rows)]

    def _are_alike(self, count: int, beside: int) -> bool:
        """Say whether a row's products are the same beside as many as there can be."""
        source, most = torch.Generator().manual_seed(0), count + beside
        sizes = {
            min(count + beside * eighth // 8 + odd, most) for eighth in range(9) for odd in (0, 1)
        }
        first = self.layers[0]
        for matrix in (*(one for one in first if isinstance(one, PackedMatrix)), self.output):
            rows = torch.randn(most, matrix.weight.shape[1], generator=source)
            rows = rows.to(self.model.device)
            whole = matrix.times(rows)
            for size in sizes:
                if not torch.equal(matrix.times(rows[most - size :]), whole[most - size :]):
                    return False
        return True

    def _find_multiple(self) -> int:
        """Find how many rows a step must be filled up to for each to be the same in all of them."""
        source = torch.Generator().manual_seed(0)
        ids = torch.randint(self.model.shape.vocab_size, (self.count,), generator=source).tolist()
        places = [slot % min(BLOCK, self.context) for slot in range(self.count)]
        for multiple in MULTIPLES:
            self.multiple = multiple
            whole = self.step(range(self.count), ids, places)
            sizes = range(multiple, self.count, multiple)
            parts = (range(self.count - size, self.count) for size in sizes)
            if all(
                torch.equal(self.step(part, ids[part[0] :], places[part[0] :]), whole[part[0] :])
                for part in parts
            ):
                break
        else:
            self.multiple = self.count
        for slot in range(self.count):
            self.pages.cut(slot, 0)
        return self.multiple


def _normed(x: Tensor, weight: Tensor, edge: Tensor) -> Tensor:
    """Normalize the last dimension, by a weight times the root of its size."""
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return (x * weight).div_(torch.hypot(length, edge))


def _collect(layer: Block, copies: bool) -> _Layer:
    attention, swiglu = layer.self_attn, layer.mlp
    norms, root = attention.norm_weights(), math.sqrt(layer.input_layernorm.weight.numel())
    qkv = (attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight)
    inner = (swiglu.gate_proj.weight, swiglu.up_proj.weight)
    return _Layer(
        layer.input_layernorm.weight.detach().float() * root,
        _together(*qkv, copies=copies),
        None if norms is None else norms.detach().float() * math.sqrt(norms.shape[-1]),
        PackedMatrix(attention.o_proj.weight.detach().float(), copies=copies),
        layer.post_attention_layernorm.weight.detach().float() * root,
        _together(*inner, copies=copies),
        PackedMatrix(swiglu.down_proj.weight.detach().float(), copies=copies),
    )


def _together(*weights: Tensor, copies: bool) -> PackedMatrix:
    joint = packed_view(weights)
    whole = (torch.cat(weights).detach() if joint is None else joint).float()
    return PackedMatrix(whole, copies=copies)
