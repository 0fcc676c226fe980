"""Texts of different lengths side by side, each in a slot of its own: what a server reads with.

Every step reads the weights once for all texts that are being written. What a text is told must
not depend on who else is there, to the last bit, and a product's rounding depends on how many rows
it has: rows are filled up to a multiple for which it does not, found by trial when the slots are
made. Keys and values lie in pages (pages.py), of which a text has as many as it has filled.

Legend of shapes: B texts, T positions, D width, H heads, K head width, V vocabulary.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from nextword.base.errors import ModelError
from nextword.kernels.layers_cpu import packed_view
from nextword.kernels.packed import COPIED_BYTES, PackedMatrix
from nextword.model.attention import attention
from nextword.model.inputs import check_ids, check_room
from nextword.model.layers import apply_rotary
from nextword.model.pages import Looking, Pages, attend
from nextword.model.transformer import Block, Transformer

BLOCK = 64
"""Positions read at once from a text's beginning on."""
MULTIPLES = (1, 2, 4, 8, 16)
"""Of rows that are tried; 1 it is where products are oneDNN's, 4 where they are the BLAS'."""


class _Layer(NamedTuple):
    """One layer's weights as products take them; norms times √D, of heads √K."""

    before_attention: Tensor
    projections: PackedMatrix
    head_norms: Tensor | None
    gather: PackedMatrix
    before_feed_forward: Tensor
    gate_and_up: PackedMatrix
    down: PackedMatrix


class Slots:
    """Keys and values of many texts, and the network that reads them."""

    def __init__(self, model: Transformer, count: int) -> None:
        """Reserve room for texts.

        Args:
            model: looks back only; its weights must not be moved afterwards.
            count: texts that have room at once.
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
        self.multiple = 1
        if count > 1:
            self.multiple = self._find_multiple()

    @torch.inference_mode()
    def read(self, slot: int, ids: Sequence[int], start: int) -> Tensor:
        """Read a part of one text; return its hidden states (T, D).

        The result is the same bit for bit whatever else was read, as long as a text is always cut
        at the same places.

        Args:
            slot: where the text is kept.
            ids: of the part.
            start: positions of this text that were read before.

        Raises:
            ModelError: there is no such entry, or no room.
        """
        read = torch.tensor([list(ids)], device=self.model.device)
        check_ids(read, self.model.shape.vocab_size)
        check_room(read, start, self.context, None)
        body, end = self.model.model, start + len(ids)
        x = body.embed_tokens.weight.detach()[read[0]].float()
        cosine = body.get_buffer("cosine")[start:end]
        sine = body.get_buffer("sine")[start:end]
        self.pages.cut(slot, start)
        self.pages.reach(slot, end)
        pages, offsets = self.pages.places(slot, start, end)
        for layer, kept in zip(self.layers, self.pages.layers, strict=True):
            asked, keys, values = self._project(layer, x, cosine, sine)
            kept.keys[pages, :, offsets], kept.values[pages, :, offsets] = keys, values
            heads = [one.transpose(0, 1) for one in (asked, keys, values)]
            if start:  # otherwise these are all that there are
                heads[1:] = [self.pages.text(all_, slot, end) for all_ in (kept.keys, kept.values)]
            mixed = attention(*(one[None] for one in heads), causal=True)
            x = self._feed_forward(layer, x, mixed[0].transpose(0, 1).flatten(1))
        return _normed(x, self.last_norm, self.edge)

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

    @torch.inference_mode()
    def step(self, slots: Sequence[int], ids: Sequence[int], places: Sequence[int]) -> Tensor:
        """Read one more token of each of some texts; return the logits (B, V) after them.

        Args:
            slots: where the texts are kept, rising.
            ids: the next token of each.
            places: positions that were read of each before.

        Raises:
            ModelError: there is no such entry, or no room.
        """
        device = self.model.device
        check_ids(torch.tensor([list(ids)]), self.model.shape.vocab_size)
        if max(places) >= self.context:
            raise ModelError(f"position {max(places)}: the context ends at {self.context}")
        spare = -len(slots) % self.multiple
        for slot, place in zip(slots, places, strict=True):
            self.pages.reach(slot, place + 1)
        looking = self.pages.looking(slots, places, spare)
        at = torch.tensor([*places, *[0] * spare], device=device)
        x = self.model.model.embed_tokens.weight.detach()[
            torch.tensor([*ids, *[0] * spare], device=device)
        ]
        hidden = self._layers(x.float(), at, looking)
        return self._times(_normed(hidden, self.last_norm, self.edge), self.output)[: len(slots)]

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

    def _layers(self, x: Tensor, at: Tensor, looking: Looking) -> Tensor:
        cosine = self.model.model.get_buffer("cosine")[at]
        sine = self.model.model.get_buffer("sine")[at]
        pages, offsets = looking.pages, looking.offsets
        for layer, kept in zip(self.layers, self.pages.layers, strict=True):
            asked, keys, values = self._project(layer, x, cosine, sine)
            kept.keys[pages, :, offsets], kept.values[pages, :, offsets] = keys, values
            x = self._feed_forward(layer, x, attend(asked, kept, looking))
        return x

    def _times(self, rows: Tensor, weight: PackedMatrix) -> Tensor:
        """Multiply rows by a matrix, so that none depends on how many there are."""
        spare = -len(rows) % self.multiple
        if not spare:
            return weight.times(rows)
        return weight.times(F.pad(rows, (0, 0, 0, spare)))[: len(rows)]

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
