"""Fast decoding of one token at a time from a KV cache.

For a single position the arithmetic is a few matrix-vector products; what costs is calling, and
reading the weights, which several texts side by side share. This is the network of `transformer.py`
written as one short loop over its weights: the same logits (a test compares them) at half the time
a token.

Legend of shapes: B rows, D width, H heads, K head width, I inner width, V vocabulary.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from nextword.kernels.layers_cpu import packed_view
from nextword.kernels.packed import COPIED_BYTES, PackedMatrix
from nextword.model.attention import Attention, KeyValueCache
from nextword.model.inputs import check_next
from nextword.model.layers import FeedForward
from nextword.model.shape import Shape
from nextword.model.transformer import Block, Transformer

FEW_ROWS = 3
"""Up to which matrix by rows is taken for rows by matrix; from there on the matrix is packed."""
WORTH_DIVIDING = 1 << 18
"""Entries of a matrix from which on a vector's product with it is divided among threads."""


class _Matrix:
    """A matrix (outputs, inputs) that rows are multiplied by.

    A product with a single row takes as long as reading the matrix, and on a CPU one thread does
    it; as many products with parts of it, side by side, read it 1.3 to 1.8 times as fast on two.
    With a few rows the product the other way round, matrix by rows, is as much faster.
    """

    def __init__(self, weight: Tensor, *, copies: bool) -> None:
        self.whole = weight.detach().T
        outputs, inputs = weight.shape
        count = torch.get_num_threads()
        self.parts: Tensor | None = None
        divides = count > 1 and outputs % count == 0 and weight.is_contiguous()
        if divides and weight.device.type == "cpu" and weight.numel() >= WORTH_DIVIDING:
            parts = weight.detach().view(count, outputs // count, inputs).transpose(1, 2)
            # In the order in which a row's product with it reads it, a third faster.
            self.parts = parts.contiguous() if copies else parts
        self.copies = copies
        self.packed: PackedMatrix | None = None

    def _many(self, rows: Tensor) -> Tensor:
        """Return the product of many rows."""
        if not self.copies:
            return torch.mm(rows, self.whole)
        self.packed = self.packed or PackedMatrix(self.whole.T)
        return self.packed.times(rows)

    def times(self, rows: Tensor, out: Tensor) -> Tensor:
        """Return rows (B, inputs) times the matrix, (B, outputs), in `out`."""
        if len(rows) > FEW_ROWS:
            return out.copy_(self._many(rows))
        if self.parts is None:
            return torch.mm(rows, self.whole, out=out)
        if len(rows) > 1:
            return out.copy_((self.whole.T @ rows.T).T)
        count = len(self.parts)
        torch.bmm(rows.expand(count, 1, -1), self.parts, out=out.view(count, 1, -1))
        return out

    def add_times(self, x: Tensor, rows: Tensor) -> None:
        """Add rows times the matrix to x (B, outputs)."""
        if len(rows) > FEW_ROWS:
            x += self._many(rows)
        elif self.parts is None:
            torch.addmm(x, rows, self.whole, out=x)
        elif len(rows) > 1:
            x += (self.whole.T @ rows.T).T
        else:
            count = len(self.parts)
            x.view(count, 1, -1).baddbmm_(rows.expand(count, 1, -1), self.parts)


class _Weights(NamedTuple):
    """One layer's weights, joined if they read the same; norms times √D."""

    before_attention: Tensor
    projections: _Matrix
    head_norms: Tensor | None
    gather: _Matrix
    before_feed_forward: Tensor
    gate_and_up: _Matrix
    down: _Matrix


class _Buffers:
    """What one position of each row passes through, with every view of it made once.

    Making a view costs as much as using it: with these a token takes 24 operations a layer, not 36.
    """

    def __init__(self, shape: Shape, rows: int, device: torch.device, edge: float) -> None:
        width, head = shape.hidden_size, shape.head_dim
        queries, keys = shape.num_attention_heads, shape.num_key_value_heads
        self.rows = rows
        # The norm's eps as one more coordinate, so that the length alone is √(|x|² + D·eps).
        self.stream = torch.full((rows, width + 1), edge, device=device)
        self.x = self.stream[:, :width]
        self.scaled = torch.empty(rows, width, device=device)
        self.joint = torch.empty(rows, (queries + 2 * keys) * head, device=device)
        heads = self.joint.view(rows, -1, head)
        self.placed = heads[:, : queries + keys]
        self.queries = heads[:, :queries, None]
        self.keys_and_values = (
            heads[:, queries:].view(rows, 2, keys, head).transpose(0, 1)[..., None, :]
        )
        self.inner = torch.empty(rows, 2 * shape.intermediate_size, device=device)
        self.gate, self.up = self.inner.chunk(2, -1)
        self.place = torch.zeros(1, dtype=torch.long, device=device)
        self.swap = torch.arange(head, device=device).roll(head // 2)

    def normed(self, weight: Tensor) -> Tensor:
        """RMSNorm of the stream in three operations: x·(w·√D) / √(|x|² + D·eps)."""
        length = torch.linalg.vector_norm(self.stream, dim=-1, keepdim=True)
        return torch.mul(self.x, weight, out=self.scaled).div_(length)


class Decoder:
    """Reads tokens one at a time, into a cache of one row or several."""

    def __init__(self, model: Transformer) -> None:
        """Collect the weights; those that lie side by side are not copied.

        Args:
            model: in float32; its weights must not be moved afterwards.
        """
        shape = model.shape
        self.shape = shape
        copies = 4 * shape.parameters() <= COPIED_BYTES
        self.layers = [_collect(layer, copies) for layer in model.model.layers]  # type: ignore[arg-type]
        self.embeddings = model.model.embed_tokens.weight.detach()
        self.last_norm = model.model.norm.weight.detach() * math.sqrt(shape.hidden_size)
        edge, head_edge = (
            math.sqrt(size * shape.rms_norm_eps) for size in (shape.hidden_size, shape.head_dim)
        )
        self.head_edge = torch.tensor(head_edge, device=model.device)
        self.edge = edge
        self.buffers = _Buffers(shape, 1, model.device, edge)
        self.output = _Matrix(model.output_weight, copies=copies)
        self.cosine = model.model.get_buffer("cosine")
        self.sine = model.model.get_buffer("sine")

    @torch.inference_mode()
    def read(self, ids: Sequence[int], cache: KeyValueCache) -> Tensor:
        """Read one token in each row; return the logits (B, V) of what comes next.

        Args:
            ids: a token for each row of the cache.
            cache: holds the positions before, with room for one more.

        Raises:
            ModelError: there is no such entry, no room, or another number of rows.
        """
        check_next(ids, len(self.embeddings), cache, self.shape.context)
        if self.buffers.rows != len(ids):
            self.buffers = _Buffers(self.shape, len(ids), self.head_edge.device, self.edge)
        space, place = self.buffers, cache.length
        grouped = self.shape.num_attention_heads != self.shape.num_key_value_heads
        cosine, sine = self.cosine[place], self.sine[place]
        space.place.fill_(place)
        x = space.x.copy_(self.embeddings[list(ids)])
        for layer, kept in zip(self.layers, cache.layers, strict=True):
            layer.projections.times(space.normed(layer.before_attention), space.joint)
            placed = space.placed
            if layer.head_norms is not None:
                length = torch.linalg.vector_norm(placed, dim=-1, keepdim=True)
                placed = (placed * layer.head_norms).div_(torch.hypot(length, self.head_edge))
            swapped = placed.index_select(2, space.swap)
            torch.addcmul(placed * cosine, swapped, sine, out=space.placed)
            kept.both.index_copy_(3, space.place, space.keys_and_values)
            mixed = F.scaled_dot_product_attention(
                space.queries,
                kept.keys.narrow(2, 0, place + 1),
                kept.values.narrow(2, 0, place + 1),
                enable_gqa=grouped,
            )
            layer.gather.add_times(x, mixed.flatten(1))
            layer.gate_and_up.times(space.normed(layer.before_feed_forward), space.inner)
            layer.down.add_times(x, F.silu(space.gate).mul_(space.up))
        cache.length = place + 1
        logits = torch.empty(len(ids), len(self.embeddings), device=x.device)
        return self.output.times(space.normed(self.last_norm), logits)


def _collect(layer: Block, copies: bool) -> _Weights:
    attention: Attention = layer.self_attn
    swiglu: FeedForward = layer.mlp
    norms = attention.norm_weights()
    root = math.sqrt(layer.input_layernorm.weight.numel())
    return _Weights(
        layer.input_layernorm.weight.detach() * root,
        _Matrix(
            _together(attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight),
            copies=copies,
        ),
        None if norms is None else norms.detach() * math.sqrt(norms.shape[-1]),
        _Matrix(attention.o_proj.weight, copies=copies),
        layer.post_attention_layernorm.weight.detach() * root,
        _Matrix(_together(swiglu.gate_proj.weight, swiglu.up_proj.weight), copies=copies),
        _Matrix(swiglu.down_proj.weight, copies=copies),
    )


def _together(*weights: Tensor) -> Tensor:
    joint = packed_view(weights)
    return torch.cat(weights).detach() if joint is None else joint
