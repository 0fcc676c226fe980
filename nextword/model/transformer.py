"""The decoder-only transformer: token ids → hidden states → logits, with Qwen3's parameter names.

Legend of shapes: B rows, T positions, D width, V vocabulary.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nextword.kernels.layers_cpu import pack_weights
from nextword.model.attention import Attention, KeyValueCache, Seen
from nextword.model.inputs import check_companions, check_ids, check_room
from nextword.model.layers import FeedForward, Linear, RMSNorm, rotary_tables, without
from nextword.model.runner import LayerRunner
from nextword.model.shape import Shape


class Block(nn.Module):
    """Attention, then feed-forward, each added to the stream it reads (pre-norm)."""

    def __init__(self, shape: Shape, layer: int) -> None:
        """Build both halves.

        Args:
            shape: the network's sizes.
            layer: which layer this is, counted from 0.
        """
        super().__init__()
        self.input_layernorm = RMSNorm(shape.hidden_size, shape.rms_norm_eps)
        self.self_attn = Attention(
            shape.hidden_size,
            shape.num_attention_heads,
            shape.num_key_value_heads,
            shape.head_dim,
            qk_norm=shape.qk_norm,
            eps=shape.rms_norm_eps,
            causal=shape.causal,
            layer=layer,
        )
        self.post_attention_layernorm = RMSNorm(shape.hidden_size, shape.rms_norm_eps)
        self.mlp = FeedForward(shape.hidden_size, shape.intermediate_size)

    def forward(
        self,
        x: Tensor,
        cosine: Tensor,
        sine: Tensor,
        cache: KeyValueCache | None = None,
        seen: "Seen | None" = None,
        kept: Tensor | None = None,
    ) -> Tensor:
        """Map (B, T, D) to (B, T, D); `kept` (B, 2, S, D) is what is left of its halves."""
        first, second = (None, None) if kept is None else (kept[:, 0], kept[:, 1])
        looked = self.self_attn(self.input_layernorm(x), cosine, sine, cache, seen)
        x = x + without(looked, first)
        after: Tensor = x + without(self.mlp(self.post_attention_layernorm(x)), second)
        return after


class Backbone(nn.Module):
    """Everything up to the last hidden state."""

    def __init__(self, shape: Shape) -> None:
        """Build the embedding, the layers and the last norm.

        Args:
            shape: the network's sizes.
        """
        super().__init__()
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.layers = nn.ModuleList(Block(shape, layer) for layer in range(shape.num_hidden_layers))
        self.norm = RMSNorm(shape.hidden_size, shape.rms_norm_eps)
        self.runner: LayerRunner | None = None
        """What computes the layers where a gradient is wanted; None for them themselves."""
        self.shape = shape
        self.lay_angles()

    def lay_angles(self, device: torch.device | None = None, room: int | None = None) -> None:
        """Compute the angles of rotation, which no folder holds.

        Args:
            device: where they are to lie; default: where a new tensor does.
            room: positions that are read at most; default: a context.
        """
        shape = self.shape
        cosine, sine = rotary_tables(room or shape.context, shape.head_dim, shape.rope_theta)
        for name, table in ("cosine", cosine), ("sine", sine):
            self.register_buffer(name, table[:, None].to(device or table.device), persistent=False)

    def forward(
        self,
        ids: Tensor,
        cache: KeyValueCache | None = None,
        seen: "Seen | None" = None,
        positions: Tensor | None = None,
        kept: Tensor | None = None,
    ) -> Tensor:
        """Map ids (B, T) to hidden states (B, T, D).

        Raises:
            ModelError: they are no such ids, or more than there is room for.
        """
        start = 0 if cache is None else cache.length
        room = len(self.get_buffer("cosine"))
        check_ids(ids, self.embed_tokens.num_embeddings)
        check_room(ids, start, room if cache is None else min(room, cache.room), cache)
        check_companions(ids, seen, positions)
        end = start + ids.shape[1]
        where = slice(start, end) if positions is None else positions
        cosine, sine = self.get_buffer("cosine")[where], self.get_buffer("sine")[where]
        x = self.embed_tokens(ids)
        learns = cache is None and torch.is_grad_enabled()
        for number, layer in enumerate(self.layers):
            here = None if kept is None else kept[:, number]
            if learns and self.runner is not None:
                x = self.runner(layer, x, cosine, sine, seen, here)
            else:
                x = layer(x, cosine, sine, cache, seen, here)
        if cache is not None:
            cache.length = end
        hidden: Tensor = self.norm(x)
        return hidden


class Transformer(nn.Module):
    """A language model: at each position, a logit for every entry of the vocabulary."""

    def __init__(self, shape: Shape) -> None:
        """Build the network; `initialize` gives it its first weights.

        Args:
            shape: its sizes.
        """
        super().__init__()
        self.shape = shape
        self.precision = torch.float32
        self.model = Backbone(shape)
        if not shape.tie_word_embeddings:
            self.lm_head = Linear(shape.hidden_size, shape.vocab_size)
        self.pack_projections()

    def pack_projections(self) -> None:
        """Lay matrices that read the same input side by side, so that one product serves them."""
        for part in self.modules():
            if isinstance(part, Attention):
                pack_weights([part.q_proj.weight, part.k_proj.weight, part.v_proj.weight])
            elif isinstance(part, FeedForward):
                pack_weights([part.gate_proj.weight, part.up_proj.weight])

    @property
    def output_weight(self) -> Tensor:
        """The (V, D) matrix whose rows are compared with a hidden state to give the logits."""
        return (
            self.model.embed_tokens.weight
            if self.shape.tie_word_embeddings
            else self.lm_head.weight
        )

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.embed_tokens.weight.device

    def hidden(
        self,
        ids: Tensor,
        cache: KeyValueCache | None = None,
        seen: "Seen | None" = None,
        positions: Tensor | None = None,
        kept: Tensor | None = None,
    ) -> Tensor:
        """Map ids (B, T) to the last hidden states (B, T, D).

        `seen` (B, 1, T, T), or blocks of it, says who may look where; `positions` (B, T), where
        each token stands in its own text, if that is not its place in the row; `kept`
        (B, L, 2, S, D), by what what each half of each of the L layers adds is multiplied, span by
        span of positions (dropout).
        """
        states: Tensor = self.model(ids, cache, seen, positions, kept)
        return states

    def forward(self, ids: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        """Map ids (B, T) to logits (B, T, V), in float32 at least."""
        hidden, weight = self.hidden(ids, cache), self.output_weight
        exact = torch.promote_types(weight.dtype, torch.float32)
        return F.linear(hidden.to(exact), weight.to(exact))

    def set_precision(self, precision: torch.dtype) -> None:
        """Compute the layers' matrix products in this precision; weights stay as they are."""
        self.precision = precision
        for module in self.modules():
            if isinstance(module, Linear):
                module.precision = precision
