"""Multi-head and grouped-query attention with QK-norm, RoPE and a KV cache.

Legend of shapes: B rows, T positions, D width, H heads, K head width.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nextword.kernels.layers_cpu import packed_linear, qkv_norm_rope
from nextword.model.layers import Linear, RMSNorm
from nextword.model.shape import Shape


class LayerCache(NamedTuple):
    """One layer's keys and values, (2, B, H, T, K), and each of them alone."""

    both: Tensor
    keys: Tensor
    values: Tensor


class KeyValueCache:
    """Keys and values of all positions read so far: a new token costs one position's work."""

    def __init__(
        self, shape: Shape, rows: int, device: torch.device, positions: int | None = None
    ) -> None:
        """Reserve room.

        Args:
            shape: the network's sizes.
            rows: B, texts generated side by side.
            device: where the network is.
            positions: how many there is room for; default: a whole context.
        """
        room = positions or shape.context
        size = (2, rows, shape.num_key_value_heads, room, shape.head_dim)
        # Keys and values of a layer side by side: one operation can write both.
        self.layers = [
            LayerCache(both, both[0], both[1])
            for both in (torch.empty(size, device=device) for _ in range(shape.num_hidden_layers))
        ]
        self.length = 0
        self.rows, self.room = rows, room

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Append (B, H, T, K) keys and values of one layer; return all so far.

        The network moves `length` on.
        """
        end = self.length + keys.shape[2]
        kept = self.layers[layer]
        kept.keys[:, :, self.length : end] = keys
        kept.values[:, :, self.length : end] = values
        return kept.keys[:, :, :end], kept.values[:, :, :end]


def cache_bytes(shape: Shape, positions: int) -> int:
    """Count the bytes in which a cache keeps one text's keys and values, in float32."""
    numbers = 2 * shape.num_hidden_layers * shape.num_key_value_heads * shape.head_dim
    return 4 * numbers * positions


class Attention(nn.Module):
    """Grouped-query attention to one side or both; rotary positions and, if asked, QK-norm."""

    def __init__(self, shape: Shape, layer: int) -> None:
        """Build the projections.

        Args:
            shape: the network's sizes.
            layer: which layer this is, counted from 0: its place in the cache.
        """
        super().__init__()
        self.layer = layer
        self.head_dim = shape.head_dim
        queries, keys = (
            shape.num_attention_heads * shape.head_dim,
            shape.num_key_value_heads * shape.head_dim,
        )
        self.grouped = shape.num_attention_heads != shape.num_key_value_heads
        self.q_proj = Linear(shape.hidden_size, queries)
        self.k_proj = Linear(shape.hidden_size, keys)
        self.v_proj = Linear(shape.hidden_size, keys)
        self.o_proj = Linear(queries, shape.hidden_size)
        self.eps = shape.rms_norm_eps
        self.causal = shape.causal
        self.heads = (shape.num_attention_heads, shape.num_key_value_heads)
        self.q_norm: nn.Module = (
            RMSNorm(shape.head_dim, shape.rms_norm_eps) if shape.qk_norm else nn.Identity()
        )
        self.k_norm: nn.Module = (
            RMSNorm(shape.head_dim, shape.rms_norm_eps) if shape.qk_norm else nn.Identity()
        )

    def forward(
        self,
        x: Tensor,
        cosine: Tensor,
        sine: Tensor,
        cache: KeyValueCache | None = None,
        seen: Tensor | None = None,
    ) -> Tensor:
        """Map (B, T, D) to (B, T, D).

        Args:
            x: the stream, (B, T, D).
            cosine: (T, 1, K) for these positions.
            sine: the same of the sine.
            cache: keys and values of earlier positions, to read and to extend.
            seen: (B, 1, T, T), true where a position may look; default: at itself and all before.
        """
        weights = (self.q_proj.weight, self.k_proj.weight, self.v_proj.weight)
        joint = packed_linear(x, weights, self.o_proj.precision)
        queries, keys, values = qkv_norm_rope(
            joint, self.norm_weights(), cosine, sine, self.heads, self.eps
        )
        start = 0
        if cache is not None:
            start = cache.length
            keys, values = cache.extend(self.layer, keys, values)
        visible = (
            {"attn_mask": seen}
            if seen is not None
            else _what_is_seen(queries.shape[2], start, x.device)
            if self.causal
            else {}
        )
        mixed = F.scaled_dot_product_attention(
            queries, keys, values, **visible, enable_gqa=self.grouped
        )
        gathered: Tensor = self.o_proj(mixed.transpose(1, 2).flatten(2))
        return gathered

    def norm_weights(self) -> Tensor | None:
        """Return the norms' weights for every head of queries and keys, (Hq + Hk, K)."""
        if not isinstance(self.q_norm, RMSNorm) or not isinstance(self.k_norm, RMSNorm):
            return None
        queries, keys = self.heads
        return torch.cat(
            (self.q_norm.weight.expand(queries, -1), self.k_norm.weight.expand(keys, -1))
        )


def _what_is_seen(new: int, start: int, device: torch.device) -> dict[str, Any]:
    """Say which keys `new` positions after `start` cached ones may look at.

    Themselves and all before.
    """
    if new == 1:
        return {}
    if start == 0:
        return {"is_causal": True}
    return {"attn_mask": torch.ones(new, start + new, dtype=torch.bool, device=device).tril(start)}
