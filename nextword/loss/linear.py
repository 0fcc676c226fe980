"""Fused linear cross-entropy: from hidden states to loss without materializing logits, exactly.

    loss = linear_cross_entropy(hidden, weight, targets)

is −log softmax(hidden · weightᵀ)[target], averaged over tokens, with exact gradients: what
`F.cross_entropy(F.linear(hidden, weight), targets)` computes after filling memory with N×V logits.
`kernels/loss_chunks.py` does the work; this page checks what is asked and puts it together.

Legend of shapes: N tokens, D width, V vocabulary.
"""

from typing import Literal, NamedTuple, overload

import torch
from torch import Tensor

from nextword.kernels.loss_chunks import Results
from nextword.loss.operator import run

Reduction = Literal["mean", "sum", "none"]


class TokenStatistics(NamedTuple):
    """What one pass over the logits tells of each token; shaped as the targets, not differentiable.

    Where the target is ignored all are zero.
    """

    nll: Tensor
    """−log P(target), in nats, without smoothing, weights or z-loss."""
    log_sum_exp: Tensor
    """log Σ e^z: what a logit is compared with."""
    entropy: Tensor
    """Σ −p log p, in nats: how unsure the model was."""
    top_probability: Tensor
    """Of the model's favorite."""
    won: Tensor
    """Booleans: whether the target was the favorite."""
    influence: Tensor
    """‖∂nll/∂hidden‖: how hard this token pulls at the network."""


class LossAndStatistics(NamedTuple):
    """The loss, and what is known of each token."""

    loss: Tensor
    statistics: TokenStatistics


@overload
def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = ...,
    ignore_index: int = ...,
    reduction: Reduction = ...,
    token_weights: Tensor | None = ...,
    label_smoothing: float = ...,
    z_loss: float = ...,
    softcap: float | None = ...,
    statistics: Literal[False] = ...,
    influence: bool = ...,
    precision: torch.dtype | None = ...,
    chunk_rows: int | None = ...,
) -> Tensor: ...


@overload
def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = ...,
    ignore_index: int = ...,
    reduction: Reduction = ...,
    token_weights: Tensor | None = ...,
    label_smoothing: float = ...,
    z_loss: float = ...,
    softcap: float | None = ...,
    statistics: Literal[True],
    influence: bool = ...,
    precision: torch.dtype | None = ...,
    chunk_rows: int | None = ...,
) -> LossAndStatistics: ...


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    token_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
    statistics: bool = False,
    influence: bool = True,
    precision: torch.dtype | None = None,
    chunk_rows: int | None = None,
) -> Tensor | LossAndStatistics:
    """Measure how surprised a model was by the right answers, from its last hidden states.

    With z = softcap·tanh((hidden·weightᵀ + bias)/softcap) and p = softmax(z) a token's loss is

        (1 − ε)·(−log p[target]) + ε·mean(−log p) + z_loss·(log Σ e^z)²,   ε = label_smoothing

    Args:
        hidden: (…, D), in float64, float32 or bfloat16.
        weight: (V, D), one row an entry of the vocabulary.
        targets: (…), int64 or int32: the id that really came.
        bias: (V,), added to the logits.
        ignore_index: a target that asks for nothing; such tokens have zero gradients, and cost no
            work on a CPU.
        reduction: "mean" over the tokens that ask for something (by weight where weights are
            given), "sum", or "none" for each token's loss. "none" computes the logits again for
            the gradient, a third more work; the others compute everything in one pass.
        token_weights: (…), multiplied with each token's loss; constants for the gradient.
        label_smoothing: ε: how much of each target is spread over the whole vocabulary.
        z_loss: weight of the squared log-sum-exp, which keeps logits from drifting.
        softcap: bounds the logits to ±softcap; None for no bound.
        statistics: also return what the same pass knows of each token.
        influence: false leaves that one statistic zero, which saves a product where no gradient is
            computed (2·N·D·V operations in place of 4).
        precision: of the matrix products (default: autocast's, or the inputs' own).
        chunk_rows: tokens at once (default: chosen for speed and memory).

    Returns:
        the loss in nats, float32 (float64 for float64 inputs), differentiable once; 0 with zero
        gradients where every target is ignored. With `statistics` also a TokenStatistics.

    Raises:
        ValueError: shapes or options do not fit together; the message says which.
        IndexError: a target lies outside the vocabulary; the message names it.

    Source: the order of the work is ours; the idea of chunks with gradients in the forward pass is
        Liger's (Hsu et al. 2024), z-loss is PaLM's (Chowdhery et al. 2022), smoothing Szegedy et
        al. 2016, the softcap Gemma 2's (2024).
    """
    precision = precision or _precision(hidden)
    _check(hidden, weight, targets, bias, token_weights, precision)
    _check_options(reduction, label_smoothing, softcap)
    rows = hidden.reshape(-1, hidden.shape[-1])
    results = run(
        rows,
        weight,
        bias,
        targets.reshape(-1),
        None if token_weights is None else token_weights.reshape(-1),
        ignore_index,
        reduction,
        label_smoothing,
        z_loss,
        0.0 if softcap is None else softcap,
        precision,
        statistics,
        statistics and influence,
        chunk_rows or 0,
    )
    loss = results.loss.view(targets.shape) if reduction == "none" else results.loss
    if not statistics:
        return loss
    return LossAndStatistics(loss, _statistics(results, targets.shape))


def _statistics(results: Results, shape: torch.Size) -> TokenStatistics:
    values = (
        results.nll,
        results.log_sum_exp,
        results.entropy,
        results.top_probability,
        results.won,
        results.influence,
    )
    return TokenStatistics(*(value.detach().view(shape) for value in values))


def _precision(hidden: Tensor) -> torch.dtype:
    kind = hidden.device.type
    if torch.is_autocast_enabled(kind) and hidden.dtype != torch.float64:
        return torch.get_autocast_dtype(kind)
    return hidden.dtype


def _check(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None,
    token_weights: Tensor | None,
    precision: torch.dtype,
) -> None:
    if weight.ndim != 2 or hidden.shape[-1] != weight.shape[1]:
        raise ValueError(
            f"hidden {tuple(hidden.shape)} and weight {tuple(weight.shape)} do not fit: expected "
            "(…, D) and (V, D)"
        )
    if torch.float16 in (hidden.dtype, weight.dtype, precision):
        raise ValueError(
            "float16 holds no numbers as small as a token's share of a mean's gradient: use "
            "bfloat16 or float32"
        )
    if hidden.shape[:-1] != targets.shape:
        raise ValueError(
            f"hidden {tuple(hidden.shape)} asks for targets {tuple(hidden.shape[:-1])}, got "
            f"{tuple(targets.shape)}"
        )
    if targets.is_floating_point() or targets.is_complex() or targets.dtype == torch.bool:
        raise ValueError(f"targets are {targets.dtype}: expected whole numbers, int64 or int32")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias {tuple(bias.shape)}: expected ({len(weight)},)")
    if token_weights is not None and token_weights.shape != targets.shape:
        raise ValueError(
            f"token_weights {tuple(token_weights.shape)}: expected {tuple(targets.shape)}"
        )
    if token_weights is not None and token_weights.requires_grad:
        raise ValueError("token_weights are constants here: detach() them")


def _check_options(reduction: str, label_smoothing: float, softcap: float | None) -> None:
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction {reduction!r}: expected 'mean', 'sum' or 'none'")
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing {label_smoothing}: expected a share in [0, 1)")
    if softcap is not None and softcap <= 0:
        raise ValueError(f"softcap {softcap}: expected a number above 0, or None")
