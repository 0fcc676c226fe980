"""Multi-head and grouped-query attention with QK-norm, RoPE and a KV cache.

Legend of shapes: B rows, T positions, S positions that are looked at, D width, H heads, K head
width.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nextword.kernels.choose import kernel_for
from nextword.model.documents import Pieces
from nextword.model.layers import Linear, RMSNorm, apply_rotary
from nextword.model.shape import Shape

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

Seen: TypeAlias = "Tensor | BlockMask | Pieces"
"""Who may look at what: booleans (B, 1, T, T), blocks of them, or where each text stands."""


def attention(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: "Seen | None" = None,
    *,
    causal: bool = False,
) -> Tensor:
    """Mix values by how well keys answer queries: softmax(Q·Kᵀ/√K)·V. Source: Vaswani et al. 2017.

    Args:
        queries: (…, Hq, T, K).
        keys: (…, Hk, S, K); each serves Hq / Hk heads of queries.
        values: (…, Hk, S, K).
        mask: booleans that broadcast to (…, Hq, T, S), true where a position may look; or numbers
            that are added to the scores; or blocks of positions, for FlexAttention; or where each
            of several texts stands.
        causal: without a mask, look only at positions up to one's own, where S is T; where S is
            longer, as with a cache, the queries are the last T of the S positions.

    Returns:
        (…, Hq, T, K).
    """
    if isinstance(mask, Pieces):
        if kernel := kernel_for("attention_of_pieces", queries):
            apart: Tensor = kernel(queries, keys, values, mask.places, mask.causal)
            return apart
        mask = mask.mask()
    grouped = queries.shape[-3] != keys.shape[-3]
    if mask is not None and not isinstance(mask, Tensor):
        from torch.nn.attention.flex_attention import flex_attention

        mixed = flex_attention(queries, keys, values, block_mask=mask, enable_gqa=grouped)
        assert isinstance(mixed, Tensor)  # nothing beside it was asked for
        return mixed
    new, seen = queries.shape[-2], keys.shape[-2]
    if mask is not None or new == 1:
        causal = False
    if causal and seen > new:
        causal = False
        mask = torch.ones(new, seen, dtype=torch.bool, device=queries.device).tril(seen - new)
    return F.scaled_dot_product_attention(
        queries,
        keys,
        values,
        attn_mask=mask,
        is_causal=causal,
        enable_gqa=grouped,
    )


class Mix(nn.Module):
    """The part of attention that looks at other positions; it has no weights."""

    def __init__(self, *, causal: bool) -> None:
        """Take whether positions look only at what stands before."""
        super().__init__()
        self.causal = causal

    def forward(
        self, queries: Tensor, keys: Tensor, values: Tensor, seen: "Seen | None" = None
    ) -> Tensor:
        """Map (B, Hq, T, K), twice (B, Hk, S, K), and who may look at what, to (B, Hq, T, K)."""
        return attention(queries, keys, values, seen, causal=self.causal)


class Attention(nn.Module):
    """Grouped-query attention to one side or both; rotary positions and, if asked, QK-norm."""

    def __init__(
        self,
        width: int,
        heads: int,
        key_value_heads: int | None = None,
        head_dim: int | None = None,
        *,
        qk_norm: bool = True,
        eps: float = 1e-6,
        causal: bool = True,
        layer: int = 0,
    ) -> None:
        """Build the projections.

        Args:
            width: D.
            heads: Hq, of queries.
            key_value_heads: Hk; default: as many as of queries.
            head_dim: K; default: D / Hq.
            qk_norm: normalize queries and keys, as Qwen3 does.
            eps: of the norms.
            causal: look only at what stands before.
            layer: which layer this is, counted from 0: its place in the cache.
        """
        super().__init__()
        self.layer, self.causal, self.eps = layer, causal, eps
        self.head_dim = head_dim or width // heads
        self.heads = (heads, key_value_heads or heads)
        queries, keys = (count * self.head_dim for count in self.heads)
        self.q_proj = Linear(width, queries)
        self.k_proj = Linear(width, keys)
        self.v_proj = Linear(width, keys)
        self.o_proj = Linear(queries, width)
        self.mix = Mix(causal=causal)
        self.q_norm: nn.Module = RMSNorm(self.head_dim, eps) if qk_norm else nn.Identity()
        self.k_norm: nn.Module = RMSNorm(self.head_dim, eps) if qk_norm else nn.Identity()

    def forward(
        self,
        x: Tensor,
        cosine: Tensor,
        sine: Tensor,
        cache: "KeyValueCache | None" = None,
        seen: "Seen | None" = None,
    ) -> Tensor:
        """Map (…, T, D) to (…, T, D).

        Args:
            x: the stream, (B, T, D); with a cache or a mask of exactly this shape.
            cosine: (T, 1, K) for these positions, or (B, T, 1, K).
            sine: the same of the sine.
            cache: keys and values of earlier positions, to read and to extend.
            seen: (B, 1, T, T), true where a position may look; default: at itself and all before.
        """
        if x.ndim != 3:
            rows: Tensor = self(x.reshape(-1, *x.shape[-2:]), cosine, sine, cache, seen)
            return rows.reshape(x.shape)
        queries, keys, values = self.project(x, cosine, sine)
        if cache is not None:
            keys, values = cache.extend(self.layer, keys, values)
        mixed: Tensor = self.mix(queries, keys, values, seen)
        gathered: Tensor = self.o_proj(mixed.transpose(1, 2).flatten(2))
        return gathered

    def project(self, x: Tensor, cosine: Tensor, sine: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries (B, Hq, T, K), keys and values (B, Hk, T, K), normalized and turned."""
        if kernel := kernel_for("qkv_projection", x):
            weights = (self.q_proj.weight, self.k_proj.weight, self.v_proj.weight)
            norms, precision = self.norm_weights(), self.o_proj.precision
            placed: tuple[Tensor, Tensor, Tensor] = kernel(
                x, weights, norms, cosine, sine, self.heads, self.eps, precision
            )
            return placed
        split = (-1, self.head_dim)
        queries = self.q_norm(self.q_proj(x).unflatten(-1, split))
        keys = self.k_norm(self.k_proj(x).unflatten(-1, split))
        values = self.v_proj(x).unflatten(-1, split)
        # Angles in float32 make products in float32; attention is to run in the values' type.
        queries = apply_rotary(queries, cosine, sine).to(values.dtype)
        keys = apply_rotary(keys, cosine, sine).to(values.dtype)
        return queries.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2)

    def norm_weights(self) -> Tensor | None:
        """Return the norms' weights for every head of queries and keys, (Hq + Hk, K)."""
        if not isinstance(self.q_norm, RMSNorm) or not isinstance(self.k_norm, RMSNorm):
            return None
        queries, keys = self.heads
        return torch.cat(
            (self.q_norm.weight.expand(queries, -1), self.k_norm.weight.expand(keys, -1))
        )


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
        found = (kept.keys[:, :, :end], kept.values[:, :, :end])
        return found[0].to(keys.dtype), found[1].to(values.dtype)

    def select(self, rows: Sequence[int]) -> None:
        """Keep only these rows, in this order; one that is named twice goes on as two."""
        chosen = torch.tensor(rows, device=self.layers[0].both.device)
        kept = (layer.both.index_select(1, chosen) for layer in self.layers)
        self.layers = [LayerCache(both, both[0], both[1]) for both in kept]
        self.rows = len(rows)


def cache_bytes(shape: Shape, positions: int) -> int:
    """Count the bytes in which a cache keeps one text's keys and values, in float32."""
    numbers = 2 * shape.num_hidden_layers * shape.num_key_value_heads * shape.head_dim
    return 4 * numbers * positions
