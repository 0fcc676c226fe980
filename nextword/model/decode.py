"""Read one token after those in the cache, with as few operations as there can be.

For a single position the arithmetic is a few matrix-vector products; what costs is calling. This is
the network of `transformer.py` written as one short loop over its weights: the same logits (a test
compares them) at half the time a token.

Legend of shapes: D width, H heads, K head width, I inner width, V vocabulary.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from nextword.model.attention import Attention, KeyValueCache
from nextword.model.fused import joined
from nextword.model.layers import FeedForward
from nextword.model.transformer import Layer, Transformer


class _Weights(NamedTuple):
    """One layer's weights: those that read the same input joined, norms times √D."""

    before_attention: Tensor
    projections: Tensor
    head_norms: Tensor | None
    gather: Tensor
    before_feed_forward: Tensor
    gate_and_up: Tensor
    down: Tensor


class Decoder:
    """Reads single tokens into a cache of one row."""

    def __init__(self, model: Transformer) -> None:
        """Collect the weights; those that lie side by side are not copied.

        Args:
            model: in float32; its weights must not be moved afterwards.
        """
        shape = model.shape
        self.shape = shape
        self.heads = shape.num_attention_heads + shape.num_key_value_heads
        self.width = self.heads * shape.head_dim
        self.layers = [_collect(layer) for layer in model.model.layers]  # type: ignore[arg-type]
        self.embeddings = model.model.embed_tokens.weight.detach()
        self.last_norm = model.model.norm.weight.detach() * math.sqrt(shape.hidden_size)
        self.edge, self.head_edge = (
            torch.tensor(math.sqrt(size * shape.rms_norm_eps), device=model.device)
            for size in (shape.hidden_size, shape.head_dim)
        )
        self.output = model.output_weight.detach()
        self.cosine = model.model.get_buffer("cosine")
        self.sine = model.model.get_buffer("sine")

    @torch.inference_mode()
    def read(self, id_: int, cache: KeyValueCache) -> Tensor:
        """Read one token; return the logits (V,) of what comes next.

        Args:
            id_: the token.
            cache: holds the positions before, with room for one more.
        """
        shape, place = self.shape, cache.length
        head_dim, queries = shape.head_dim, shape.num_attention_heads
        grouped = queries != shape.num_key_value_heads
        swap = head_dim // 2
        cosine, sine = self.cosine[place], self.sine[place]
        x = self.embeddings[id_ : id_ + 1]
        for number, layer in enumerate(self.layers):
            joint = F.linear(_normed(x, layer.before_attention, self.edge), layer.projections)
            placed = joint[:, : self.width].view(-1, head_dim)
            if layer.head_norms is not None:
                placed = _normed(placed, layer.head_norms, self.head_edge)
            turned = (placed * cosine).addcmul_(placed.roll(swap, -1), sine)
            keys, values = cache.keys[number], cache.values[number]
            keys[0, :, place] = turned[queries:]
            values[0, :, place] = joint[0, self.width :].view(-1, head_dim)
            mixed = F.scaled_dot_product_attention(
                turned[:queries].view(1, queries, 1, head_dim),
                keys[:, :, : place + 1],
                values[:, :, : place + 1],
                enable_gqa=grouped,
            )
            x = torch.addmm(x, mixed.view(1, -1), layer.gather)
            joint = F.linear(_normed(x, layer.before_feed_forward, self.edge), layer.gate_and_up)
            gate, up = joint.chunk(2, -1)
            x = torch.addmm(x, F.silu(gate).mul_(up), layer.down)
        cache.length = place + 1
        return F.linear(_normed(x, self.last_norm, self.edge), self.output)[0]


def _collect(layer: Layer) -> _Weights:
    attention: Attention = layer.self_attn
    feed_forward: FeedForward = layer.mlp
    norms = attention.norm_weights()
    root = math.sqrt(layer.input_layernorm.weight.numel())
    return _Weights(
        layer.input_layernorm.weight.detach() * root,
        _together(attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight),
        None if norms is None else norms.detach() * math.sqrt(norms.shape[-1]),
        attention.o_proj.weight.detach().T,
        layer.post_attention_layernorm.weight.detach() * root,
        _together(feed_forward.gate_proj.weight, feed_forward.up_proj.weight),
        feed_forward.down_proj.weight.detach().T,
    )


def _normed(x: Tensor, weight: Tensor, edge: Tensor) -> Tensor:
    """RMSNorm in four operations: x·(w·√D) / √(|x|² + D·eps), where the edge is √(D·eps)."""
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return (x * weight).div_(torch.hypot(length, edge))


def _together(*weights: Tensor) -> Tensor:
    joint = joined(weights)
    return torch.cat(weights).detach() if joint is None else joint
