"""One optimizer step: gradient accumulation, clipping, update."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nextword.base.errors import DivergedError
from nextword.base.signals import check_signals
from nextword.loss.linear import linear_cross_entropy
from nextword.model.labels import SequenceClassifier
from nextword.model.transformer import Transformer
from nextword.objectives.causal import visible_positions
from nextword.training.eager_optimizer import EagerOptimizer


class LanguageModelLoss(nn.Module):
    """Network and loss as one module, which DDP, FSDP and compile can wrap; no logits leave it."""

    def __init__(
        self,
        model: Transformer,
        *,
        precision: torch.dtype,
        end_id: int | None = None,
        sees: Callable[[Tensor, int], Tensor] = visible_positions,
    ) -> None:
        """Join a network to the loss.

        Args:
            model: the network.
            precision: of the loss's matrix products.
            end_id: keep positions within documents that this token ends; None lets them look
                across.
            sees: (ids, end_id) → who looks at what, (B, 1, T, T).
        """
        super().__init__()
        self.model = model
        self.precision = precision
        self.end_id = end_id
        self.sees = sees

    def forward(
        self,
        inputs: Tensor,
        targets: Tensor,
        documents: Tensor | None = None,
        positions: Tensor | None = None,
        soft: Tensor | None = None,
    ) -> Tensor:
        """Return the summed loss in nats of targets (B, T) at inputs (B, T).

        Args:
            inputs: ids.
            targets: the right ids; IGNORED asks for nothing.
            documents: (B, T), equal where positions belong to one text; what stands later is not
                seen. None where the ids themselves say so.
            positions: (B, T), each token's place in its own text.
            soft: (B, T, V), what is added to the ones at the right tokens. Only the gradient takes
                part in it: the loss that is returned is that of the right tokens.
        """
        if documents is not None:
            seen: Tensor | None = (
                documents[:, None, :, None] == documents[:, None, None, :]
            ).tril()
        else:
            one_text = self.end_id is None
            seen = None if one_text else self.sees(inputs, self.end_id)  # type: ignore[arg-type]
        hidden = self.model.hidden(inputs, seen=seen, positions=positions)
        loss = linear_cross_entropy(
            hidden,
            self.model.output_weight,
            targets,
            reduction="sum",
            precision=self.precision,
        )
        if soft is not None:
            # −Σ m·log p is −Σ m·z, linear in the logits z, where the m of a row sum to 0.
            weight = self.model.output_weight
            kind = weight.dtype if self.precision == torch.float32 else self.precision
            pull = soft.flatten(0, 1).to(kind) @ weight.to(kind)
            more = (hidden.flatten(0, 1).float() * pull.float()).sum()
            loss = loss - (more - more.detach())
        return loss


class LabelLoss(nn.Module):
    """A network with labels and its loss.

    Cross-entropy of classes; squared error of numbers; where a text may have several labels, the
    cross-entropy of yes or no, averaged over the labels.
    """

    def __init__(self, model: SequenceClassifier, *, spread: float = 1.0) -> None:
        """Join them.

        Args:
            model: the network.
            spread: of the numbers, by which errors are divided before they are squared, so that
                the same rates suit temperatures and prices.
        """
        super().__init__()
        self.model = model
        self.spread = spread

    def forward(self, inputs: Tensor, lengths: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        """Return the loss of texts (B, T) with labels, each times its weight (B,), summed.

        Labels are (B,), or (B, C) with 1 for each that a text has.
        """
        logits = self.model.logits(inputs, lengths)
        if self.model.labels.is_number:
            losses = ((logits[:, 0] - labels) / self.spread).square()
        elif self.model.labels.several:
            odds = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
            losses = odds.mean(dim=1)
        else:
            losses = F.cross_entropy(logits, labels, reduction="none")
        return (losses * weights).sum()


def accumulate(
    loss: nn.Module,
    batches: Sequence[Iterable[Any]],
    total_tokens: float,
    device: torch.device,
    ranks: int = 1,
) -> float:
    """Add up the gradients of a step's mean loss over its batches.

    Each part is divided by the tokens of the whole step, over all batches and processes, so the
    mean is over tokens however they are divided. DDP averages gradients over processes; multiplying
    by their number undoes that.

    Args:
        loss: a LanguageModelLoss or another that takes what a batch holds, perhaps wrapped.
        batches: this process's parts of the step: arrays, or None.
        total_tokens: targets that ask for something, of the whole step, all processes.
        device: where the network is.
        ranks: number of processes.

    Returns:
        this process's share of the mean loss, in nats a token.

    Raises:
        Broken: a stop was asked for, and the step may be left; gradients are half added up.
    """
    nats = 0.0
    for number, batch in enumerate(batches):
        check_signals()  # of a step over much text a part may take minutes
        last = number == len(batches) - 1
        if isinstance(loss, nn.parallel.DistributedDataParallel):
            loss.require_backward_grad_sync = last  # gradients travel once a step
        total = loss(*_on(batch, device)) / (total_tokens or 1)
        (total * ranks).backward()
        nats += float(total.detach())
    return nats


def kept_bytes(loss: nn.Module, batch: Iterable[Any], device: torch.device) -> int:
    """Measure what a batch's forward pass keeps for its gradient, weights not counted.

    Args:
        loss: as `accumulate` takes it, not wrapped.
        batch: arrays, or None; small, for what is kept grows with its rows.
        device: where the network is.
    """
    weights = {weight.untyped_storage().data_ptr() for weight in loss.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        total = loss(*_on(batch, device))
    del total
    return sum(kept.values())


def _on(batch: Iterable[Any], device: torch.device) -> list[Any]:
    return [
        None if array is None else torch.from_numpy(array).to(device, non_blocking=True)
        for array in batch
    ]


@torch.no_grad()
def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float) -> float:
    """Shorten all gradients together so that their length is at most `max_norm`.

    Args:
        parameters: those without a gradient are passed over.
        max_norm: longest gradient let through; 0 for any.

    Returns:
        the length (L2 norm) of all gradients before.

    Raises:
        DivergedError: it is not a number; no gradient has been touched.
    """
    return _shorten([weight.grad for weight in parameters if weight.grad is not None], max_norm)


def _shorten(gradients: list[Tensor], max_norm: float) -> float:
    norm = float(nn.utils.get_total_norm(gradients))
    if norm != norm or norm == float("inf"):
        raise DivergedError(f"the gradient's length is {norm}")
    if 0 < max_norm < norm:
        torch._foreach_mul_(gradients, max_norm / (norm + 1e-6))
    return norm


@dataclass
class Parts:
    """Lengths of a gradient's parts, noted where the whole is longer than some length."""

    above: float
    lengths: dict[str, float] = field(default_factory=dict)


@torch.no_grad()
def lengths_by_part(model: nn.Module) -> dict[str, float]:
    """Return the lengths of the gradients of embedding, each layer, last norm and head."""
    squares: dict[str, float] = {}
    for name, weight in model.named_parameters():
        if weight.grad is not None:
            part = _part(name)
            squares[part] = squares.get(part, 0.0) + float(weight.grad.double().square().sum())
    return {part: square**0.5 for part, square in squares.items()}


def _part(name: str) -> str:
    words = name.split(".")
    if "layers" in words:
        return f"layer {int(words[words.index('layers') + 1]) + 1}"
    return {"embed_tokens": "embedding", "norm": "last norm"}.get(words[-2], "head")


@torch.no_grad()
def update(
    model: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    factor: float,
    clip_norm: float,
    longest: float | None = None,
    parts: Parts | None = None,
) -> float:
    """Move the weights against the gradient, and forget it.

    Args:
        model: whose gradients are ready.
        optimizers: each takes its own parameters.
        factor: of the peak learning rate.
        clip_norm: longest gradient let through; 0 for any.
        longest: with a gradient longer than this no weight is moved, and it is forgotten.
        parts: takes the lengths of its parts, where it is longer than that says.

    Returns:
        the length of the gradient before clipping.

    Raises:
        DivergedError: the gradient is not a number; no weight has been touched.
    """
    gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
    for optimizer in optimizers:
        if isinstance(optimizer, EagerOptimizer):
            gradients += optimizer.own_gradients()
    norm = _shorten(gradients, clip_norm)
    if parts is not None and norm > parts.above:
        shorter = clip_norm / (norm + 1e-6) if 0 < clip_norm < norm else 1.0
        found = lengths_by_part(model)
        parts.lengths = {part: length / shorter for part, length in found.items()}
    if longest is not None and norm > longest:
        forget_gradients(model, optimizers)
        return norm
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return norm


def forget_gradients(model: nn.Module, optimizers: Sequence[torch.optim.Optimizer]) -> None:
    """Let go what a step has gathered."""
    model.zero_grad(set_to_none=True)
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)
