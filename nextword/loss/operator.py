"""Linear cross-entropy as a PyTorch operator: autograd, autocast, torch.compile.

While a graph is compiled the registered operation is used, which the compiler does not look into;
at other times the same work hangs on a plain autograd function, whose call costs less.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nextword.kernels.loss_chunks import Request, Results, compute
from nextword.kernels.loss_options import RowOptions


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
    loss, *others = _Node.apply(*arguments)  # type: ignore[no-untyped-call]
    inside = hidden.new_empty(0)
    return Results(loss, inside, inside, inside, *others)


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


def _remember(ctx: Any, inputs: tuple[Any, ...]) -> None:
    """Keep what the gradients can be computed from again."""
    hidden, weight, bias, targets, token_weights = inputs[:5]
    ctx.reduction, ctx.rest = inputs[6], inputs[5:11] + inputs[16:]
    ctx.save_for_backward(hidden, weight, bias, targets, token_weights)
    ctx.kinds = (hidden.dtype, weight.dtype, None if bias is None else bias.dtype)


def _scaled(
    ctx: Any, gradients: Sequence[Tensor], grad_loss: Tensor | None, *, in_place: bool
) -> list[Tensor | None]:
    """Return the gradients of hidden, weight and bias, times what came back for the loss."""
    found: list[Tensor | None] = [None] * 3
    for place, (gradient, kind) in enumerate(zip(gradients, ctx.kinds, strict=True)):
        if ctx.needs_input_grad[place]:
            if grad_loss is not None:
                gradient = gradient.mul_(grad_loss) if in_place else gradient * grad_loss
            found[place] = gradient.to(kind)
    return found


def _recompute(ctx: Any, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradients of Σ weight·loss: another pass over the logits."""
    hidden, weight, bias, targets, token_weights = ctx.saved_tensors
    ignore_index, _, label_smoothing, z_loss, softcap, precision, chunk_rows = ctx.rest
    arguments: tuple[Any, ...] = (
        hidden,
        weight,
        bias,
        targets,
        weights if token_weights is None else weights * token_weights,
        ignore_index,
        "sum",
        label_smoothing,
        z_loss,
        softcap,
        precision,
        *(bool(needed) for needed in ctx.needs_input_grad[:3]),
        False,
        False,
        chunk_rows,
    )
    compiling = torch.compiler.is_compiling() or isinstance(hidden, torch._subclasses.FakeTensor)
    results = Results(*operation(*arguments)) if compiling else _compute(*arguments)
    return results.grad_hidden, results.grad_weight, results.grad_bias


class _Node(torch.autograd.Function):
    """The operation outside of compiled graphs."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, ...]:
        results = _compute(*inputs)
        _remember(ctx, inputs)
        ctx.gradients = None if inputs[6] == "none" else results[1:4]
        ctx.mark_non_differentiable(*results[1:])
        ctx.set_materialize_grads(False)
        # The gradients stay inside: backward gives them away.
        return (results[0], *results[4:])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor | None, *others: Any) -> tuple[Tensor | None, ...]:
        if grad_loss is None:
            return (None,) * 17
        if ctx.reduction == "none":
            return (*_scaled(ctx, _recompute(ctx, grad_loss), None, in_place=False), *[None] * 14)
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            # They were given away, and whoever has them may have changed them: once more.
            gradients = _again(ctx)
        # Asking whether there is anything to scale waits for a GPU, so it is asked on a CPU only.
        is_one = grad_loss.device.type == "cpu" and float(grad_loss) == 1.0
        scale = None if is_one else grad_loss
        return (*_scaled(ctx, gradients, scale, in_place=True), *[None] * 14)


def _again(ctx: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradients of a reduced loss a second time, for a second backward."""
    hidden, weight, bias, targets, token_weights = ctx.saved_tensors
    *rest, chunk_rows = ctx.rest
    needs = [bool(needed) for needed in ctx.needs_input_grad[:3]]
    arguments: tuple[Any, ...] = (
        *(hidden, weight, bias, targets, token_weights),
        *rest,
        *needs,
        *(False, False, chunk_rows),
    )
    results = _compute(*arguments)
    return results.grad_hidden, results.grad_weight, results.grad_bias


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
        torch.empty_like(weight if need_weight else weight[:0]),
        wide(entries if need_bias else 0),
        *(wide(known) for _ in range(4)),
        hidden.new_empty(known, dtype=torch.bool),
        wide(known),
    )


def _backward(ctx: Any, grad_loss: Tensor | None, *others: Any) -> tuple[Any, ...]:
    if grad_loss is None:
        return (None,) * 17
    if ctx.reduction == "none":
        return (*_scaled(ctx, _recompute(ctx, grad_loss), None, in_place=False), *[None] * 14)
    return (*_scaled(ctx, ctx.saved_tensors, grad_loss, in_place=False), *[None] * 14)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _remember(ctx, inputs)
    if ctx.reduction != "none":
        ctx.save_for_backward(*output[1:4])


operation.register_autograd(_backward, setup_context=_setup)
