"""The loss as an operation that PyTorch knows: autograd, autocast and torch.compile see one node.

While a graph is compiled the registered operation is used, which the compiler does not look into;
at other times the same work hangs on a plain autograd function, whose call costs less.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nextword.loss.chunked import Request, Results, compute
from nextword.loss.rows import RowOptions


def run(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    token_weights: Tensor | None,
    ignore_index: int,
    reduction: str,
    label_smoothing: float,
    z_loss: float,
    softcap: float,
    precision: torch.dtype,
    statistics: bool,
    influence: bool,
    chunk_rows: int,
) -> Results:
    """Compute everything that is asked for, ready for autograd.

    The arguments are those of `linear_cross_entropy`, flattened.
    """
    wanted = [
        torch.is_grad_enabled() and value is not None and value.requires_grad
        for value in (hidden, weight, bias)
    ]
    # Without a reduction the gradient waits for what comes back for each token.
    needs = wanted if reduction != "none" else [False] * 3
    arguments: tuple[Any, ...] = (
        hidden,
        weight,
        bias,
        targets,
        token_weights,
        ignore_index,
        reduction,
        label_smoothing,
        z_loss,
        softcap,
        precision,
        *needs,
        statistics,
        influence,
        chunk_rows,
    )
    if torch.compiler.is_compiling():
        return Results(*operation(*arguments))
    if not any(wanted):
        return _compute(*arguments)
    return Results(*_Node.apply(*arguments))  # type: ignore[no-untyped-call]


def _compute(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    token_weights: Tensor | None,
    ignore_index: int,
    reduction: str,
    label_smoothing: float,
    z_loss: float,
    softcap: float,
    precision: torch.dtype,
    need_hidden: bool,
    need_weight: bool,
    need_bias: bool,
    statistics: bool,
    influence: bool,
    chunk_rows: int,
) -> Results:
    with torch.no_grad(), torch.autocast(hidden.device.type, enabled=False):
        return compute(
            Request(
                hidden,
                weight,
                bias,
                targets,
                token_weights,
                ignore_index,
                reduction,
                RowOptions(label_smoothing, z_loss, softcap),
                precision,
                need_hidden,
                need_weight,
                need_bias,
                statistics,
                influence,
                chunk_rows,
            )
        )


def _remember(ctx: Any, inputs: tuple[Any, ...], results: Results) -> None:
    """Keep what backward takes: the gradients, or what they are computed from."""
    hidden, weight, bias, targets, token_weights = inputs[:5]
    ctx.reduction, ctx.rest = inputs[6], inputs[5:11] + inputs[16:]
    if ctx.reduction == "none":
        ctx.save_for_backward(hidden, weight, bias, targets, token_weights)
    else:
        ctx.save_for_backward(results[1], results[2], results[3])
    ctx.kinds = (hidden.dtype, weight.dtype, None if bias is None else bias.dtype)


def _gradients(ctx: Any, grad_loss: Tensor) -> list[Tensor | None]:
    """Return the gradients of hidden, weight and bias, scaled by what came back for the loss."""
    needed = ctx.needs_input_grad[:3]
    if ctx.reduction != "none":
        kept = ctx.saved_tensors
    else:
        kept = _recompute(ctx, grad_loss, needed)
        grad_loss = torch.ones((), dtype=kept[0].dtype, device=grad_loss.device)
    found: list[Tensor | None] = [None] * 3
    for place, (gradient, kind) in enumerate(zip(kept, ctx.kinds, strict=True)):
        if needed[place]:
            found[place] = (gradient * grad_loss).to(kind)
    return found


def _recompute(ctx: Any, grad_losses: Tensor, needed: list[bool]) -> tuple[Tensor, ...]:
    """Compute the gradients of Σ grad·loss: another pass, with what came back as weights."""
    hidden, weight, bias, targets, token_weights = ctx.saved_tensors
    ignore_index, _, label_smoothing, z_loss, softcap, precision, chunk_rows = ctx.rest
    weights = grad_losses if token_weights is None else grad_losses * token_weights
    arguments = (
        hidden,
        weight,
        bias,
        targets,
        weights,
        ignore_index,
        "sum",
        label_smoothing,
        z_loss,
        softcap,
        precision,
        bool(needed[0]),
        bool(needed[1]),
        bool(needed[2]),
        False,
        False,
        chunk_rows,
    )
    if torch.compiler.is_compiling() or isinstance(hidden, torch._subclasses.FakeTensor):
        results = Results(*operation(*arguments))
    else:
        results = _compute(*arguments)
    return results.grad_hidden, results.grad_weight, results.grad_bias


class _Node(torch.autograd.Function):
    """The operation outside of compiled graphs."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, ...]:
        results = _compute(*inputs)
        _remember(ctx, inputs, results)
        ctx.mark_non_differentiable(*results[1:])
        ctx.set_materialize_grads(False)
        return tuple(results)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor | None, *others: Any) -> tuple[Tensor | None, ...]:
        if grad_loss is None:
            return (None,) * 17
        return (*_gradients(ctx, grad_loss), *[None] * 14)


@torch.library.custom_op("nextword::linear_cross_entropy", mutates_args=())
def operation(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    token_weights: Tensor | None,
    ignore_index: int,
    reduction: str,
    label_smoothing: float,
    z_loss: float,
    softcap: float,
    precision: torch.dtype,
    need_hidden: bool,
    need_weight: bool,
    need_bias: bool,
    statistics: bool,
    influence: bool,
    chunk_rows: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Compute loss, gradients and statistics: what a compiler takes as one step."""
    results = _compute(
        hidden,
        weight,
        bias,
        targets,
        token_weights,
        ignore_index,
        reduction,
        label_smoothing,
        z_loss,
        softcap,
        precision,
        need_hidden,
        need_weight,
        need_bias,
        statistics,
        influence,
        chunk_rows,
    )
    return tuple(results)  # type: ignore[return-value]


@operation.register_fake
def _shapes(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    token_weights: Tensor | None,
    ignore_index: int,
    reduction: str,
    label_smoothing: float,
    z_loss: float,
    softcap: float,
    precision: torch.dtype,
    need_hidden: bool,
    need_weight: bool,
    need_bias: bool,
    statistics: bool,
    influence: bool,
    chunk_rows: int,
) -> tuple[Tensor, ...]:
    """Say which shapes and types come out."""
    exact = torch.float64 if hidden.dtype == torch.float64 else torch.float32
    tokens, entries = targets.shape[0], weight.shape[0]
    known = tokens if statistics else 0

    def wide(*size: int) -> Tensor:
        return hidden.new_empty(size, dtype=exact)

    return (
        wide(tokens) if reduction == "none" else wide(),
        torch.empty_like(hidden if need_hidden else hidden[:0]),
        wide(entries if need_weight else 0, weight.shape[1]),
        wide(entries if need_bias else 0),
        *(wide(known) for _ in range(4)),
        hidden.new_empty(known, dtype=torch.bool),
        wide(known),
    )


def _backward(ctx: Any, grad_loss: Tensor | None, *others: Any) -> tuple[Any, ...]:
    if grad_loss is None:
        return (None,) * 17
    return (*_gradients(ctx, grad_loss), *[None] * 14)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _remember(ctx, inputs, Results(*output))


operation.register_autograd(_backward, setup_context=_setup)
