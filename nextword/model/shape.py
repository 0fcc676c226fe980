"""Model configuration: sizes from one dial (depth) or each by name; parameters and FLOPs."""

import dataclasses
from dataclasses import dataclass

from nextword.base.errors import SettingsError
from nextword.base.options import check_options, option
from nextword.base.records import Base, Share, Size

DEPTH = 2
"""Layers when nothing is said, here or by the text."""
HEAD_WIDTH = 64
"""Width of one attention head when nothing else is said."""
INNER = 64
"""Of which the inner width is a multiple: what GPUs take whole, and q8_0's blocks of 32."""


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """The network's sizes; what is not said is derived from the depth."""

    depth: int | None = option(
        None,
        "layers; one dial from which every other size follows",
        minimum=1,
        maximum=10_000,
        rule="2; for a text of one's own up to 150,000 tokens 3, where no size is said",
        of=("the text",),
    )
    hidden_size: int | None = option(
        None, "width", minimum=2, maximum=1 << 20, rule="64 × depth", of=("model.depth",)
    )
    intermediate_size: int | None = option(
        None,
        "inner width of the feed-forward part",
        minimum=1,
        maximum=1 << 22,
        rule="8/3 × width, to a multiple of 64",
        of=("model.hidden_size",),
    )
    num_attention_heads: int | None = option(
        None,
        "query heads",
        minimum=1,
        maximum=1 << 14,
        rule="width / 64",
        of=("model.hidden_size",),
    )
    num_key_value_heads: int | None = option(
        None,
        "key and value heads",
        minimum=1,
        maximum=1 << 14,
        rule="as many as query heads",
        of=("model.num_attention_heads",),
    )
    head_dim: int | None = option(
        None,
        "width of a head",
        minimum=2,
        maximum=1 << 14,
        rule="width / heads",
        of=("model.hidden_size", "model.num_attention_heads"),
    )
    context: int | None = option(
        None,
        "the most tokens the model looks back on",
        minimum=2,
        maximum=1 << 24,
        unit="tokens",
        rule="512 for a text of one's own, 256 for stories and masked models, from depth 10 or 6 "
        "on 64 × depth, up to 2,048; at most a sixteenth of the text",
        of=("the text", "model.depth"),
    )
    rope_theta: float = option(10_000.0, "base of the rotary position's wavelengths", above=0)
    rms_norm_eps: float = option(1e-6, "added under the root of the norm", above=0)
    qk_norm: bool | None = option(
        None,
        "normalize queries and keys, as Qwen3 does; Llama and EuroBERT do not",
        rule="yes, but for masked models",
        of=("objective.name",),
    )
    tie_word_embeddings: bool | None = option(
        None,
        "one matrix for reading and predicting tokens",
        rule="yes, but where training begins with the odds of pairs",
        of=("training.initialization",),
    )


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Every size of a network, resolved.

    Legend of shapes: B rows, T positions, D width, H heads, K head width, V vocabulary.
    """

    vocab_size: Size
    hidden_size: Size
    intermediate_size: Size
    num_hidden_layers: Size
    num_attention_heads: Size
    num_key_value_heads: Size
    head_dim: Size
    context: Size
    rope_theta: Base = 10_000.0
    rms_norm_eps: Share = 1e-6
    qk_norm: bool = True
    tie_word_embeddings: bool = True
    causal: bool = True
    """Whether a position sees only what stands before it (GPT), or both sides (BERT)."""

    def __post_init__(self) -> None:
        """Refuse sizes that cannot be built."""
        if self.num_attention_heads % self.num_key_value_heads:
            raise SettingsError(
                f"model.num_attention_heads = {self.num_attention_heads} is not a multiple of "
                f"model.num_key_value_heads = {self.num_key_value_heads}: each key head serves a "
                "whole number of queries"
            )
        if self.head_dim % 2:
            raise SettingsError(
                f"model.head_dim = {self.head_dim}: must be even, as rotary positions turn pairs"
            )

        if not self.causal and self.qk_norm:
            raise SettingsError(
                "model.qk_norm = true: masked models are written in EuroBERT's layout, which has "
                "no norm of queries and keys; leave it out"
            )
        if not self.causal and self.hidden_size % self.num_attention_heads:
            raise SettingsError(
                f"model.hidden_size = {self.hidden_size} is not a multiple of "
                f"model.num_attention_heads = {self.num_attention_heads}, as EuroBERT's layout asks"
            )

    def matrix_parameters(self) -> int:
        """Count the weights that every token is multiplied by, the output layer included."""
        attention = (
            self.hidden_size
            * self.head_dim
            * 2
            * (self.num_attention_heads + self.num_key_value_heads)
        )
        swiglu = 3 * self.hidden_size * self.intermediate_size
        return self.num_hidden_layers * (attention + swiglu) + self.vocab_size * self.hidden_size

    def parameters(self) -> int:
        """Count every number that training can change, a tied matrix once."""
        norms = (
            self.num_hidden_layers * (2 * self.hidden_size + 2 * self.head_dim * self.qk_norm)
            + self.hidden_size
        )
        untied = 0 if self.tie_word_embeddings else self.vocab_size * self.hidden_size
        return self.matrix_parameters() + norms + untied

    def flops_per_token(self) -> int:
        """Count the floating-point operations of training on one token at full context.

        Six a weight (two forward, four backward), and for attention 12·H·K·T a layer, halved
        where no token looks ahead. Source: the counting of Chowdhery et al. 2022 (PaLM), appendix
        B, with the causal half.
        """
        looks = 6 if self.causal else 12
        attention = (
            looks * self.num_hidden_layers * self.num_attention_heads * self.head_dim * self.context
        )
        return 6 * self.matrix_parameters() + attention


def resolve_shape(
    settings: ModelSettings, vocab_size: int, context: int, *, causal: bool = True
) -> Shape:
    """Derive every size that was not said.

    Args:
        settings: what was said.
        vocab_size: entries of the vocabulary.
        context: the context to take when the settings name none, in tokens.
        causal: whether a position sees only what stands before it.

    Raises:
        SettingsError: a size is out of range or the sizes do not fit together.
    """
    check_options(settings, "model")
    depth = settings.depth or DEPTH
    width = settings.hidden_size or 64 * depth
    heads = settings.num_attention_heads
    if heads is None:
        heads = width // settings.head_dim if settings.head_dim else max(width // HEAD_WIDTH, 1)
    if settings.head_dim is None and width % heads:
        raise SettingsError(
            f"model.hidden_size = {width} does not divide into {heads} heads; set model.head_dim"
        )
    inner = settings.intermediate_size or max(round(width * 8 / 3 / INNER) * INNER, INNER)
    return Shape(
        vocab_size=vocab_size,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        num_key_value_heads=settings.num_key_value_heads or heads,
        head_dim=settings.head_dim or width // heads,
        context=settings.context or context,
        rope_theta=settings.rope_theta,
        rms_norm_eps=settings.rms_norm_eps,
        qk_norm=causal if settings.qk_norm is None else settings.qk_norm,
        tie_word_embeddings=settings.tie_word_embeddings is not False,
        causal=causal,
    )


def as_dict(shape: Shape) -> dict[str, object]:
    """Return the shape as plain values."""
    return dataclasses.asdict(shape)
