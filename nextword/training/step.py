"""A step's loss and its gradient, added up over the parts of a batch."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nextword.base.signals import check_signals
from nextword.kernels.choose import kernel_for
from nextword.loss.linear import linear_cross_entropy
from nextword.model.attention import Seen
from nextword.model.documents import blocks_to_look_at, may_look, pieces_of
from nextword.model.labels import SequenceClassifier
from nextword.model.transformer import Transformer
from nextword.objectives.causal import documents_of
from nextword.training.spreading import spread_of


class LanguageModelLoss(nn.Module):
    """Network and loss as one module, which DDP, FSDP and compile can wrap; no logits leave it."""

    def __init__(
        self,
        model: Transformer,
        *,
        precision: torch.dtype,
        end_id: int | None = None,
        documents_of: Callable[[Tensor, int], Tensor] = documents_of,
        chunk_rows: int | None = None,
    ) -> None:
        """Join a network to the loss.

        Args:
            model: the network.
            precision: of the loss's matrix products.
            end_id: keep positions within documents that this token ends; None lets them look
                across.
            documents_of: (ids, end_id) → the document that each position belongs to, (B, T).
            chunk_rows: positions whose logits are there at once; None for what suits the device.
        """
        super().__init__()
        self.model = model
        self.precision = precision
        self.end_id = end_id
        self.documents_of = documents_of
        self.chunk_rows = chunk_rows

    def forward(
        self,
        inputs: Tensor,
        targets: Tensor,
        documents: Tensor | None = None,
        positions: Tensor | None = None,
        soft: Tensor | None = None,
        kept: Tensor | None = None,
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
            kept: (B, L, 2, S, D), by what what each half of a layer adds is multiplied, span by
                span of positions (dropout).
        """
        if documents is None and self.end_id is not None:
            documents = self.documents_of(inputs, self.end_id)
        spread, causal = spread_of(self.model), self.model.shape.causal
        if spread is not None:
            inputs, targets, documents = spread.fill_up(inputs, targets, documents, causal=causal)
        seen = None if documents is None else seen_within(self.model, documents)
        if spread is not None:
            inputs, targets, positions, soft, kept = spread.own(
                inputs, targets, positions, soft, kept
            )
            seen = spread.begin(seen)
        hidden = self.model.hidden(inputs, seen=seen, positions=positions, kept=kept)
        loss = linear_cross_entropy(
            hidden,
            self.model.output_weight,
            targets,
            reduction="sum",
            precision=self.precision,
            chunk_rows=self.chunk_rows,
        )
        if soft is not None:
            # −Σ m·log p is −Σ m·z, linear in the logits z, where the m of a row sum to 0.
            weight = self.model.output_weight
            kind = weight.dtype if self.precision == torch.float32 else self.precision
            pull = soft.flatten(0, 1).to(kind) @ weight.to(kind)
            more = (hidden.flatten(0, 1).float() * pull.float()).sum()
            loss = loss - (more - more.detach())
        return loss


def seen_within(model: Transformer, documents: Tensor) -> Seen:
    """Say who may look at what where positions keep to their own text, as a network wants it said.

    Args:
        model: the network.
        documents: (B, T), equal where positions belong to one text.
    """
    causal, runner = model.shape.causal, model.model.runner
    if runner is not None and runner.blocks:
        return blocks_to_look_at(documents, causal=causal)
    pieces = None
    if not (runner is not None and runner.is_compiled):
        weight = model.output_weight
        if kernel_for("attention_of_pieces", weight) is not None:
            pieces = pieces_of(documents, causal=causal)
    return pieces or may_look(documents, causal=causal)


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
    by their number undoes that. Where weights are divided gradients are added up as they are.

    Args:
        loss: a LanguageModelLoss or another that takes what a batch holds, perhaps wrapped.
        batches: this process's parts of the step: arrays, or None.
        total_tokens: targets that ask for something, of the whole step, all processes.
        device: where the network is.
        ranks: number of processes over which gradients are averaged.

    Returns:
        this process's share of the mean loss, in nats a token.

    Raises:
        Broken: a stop was asked for, and the step may be left; gradients are half added up.
    """
    return sum(map(float, add_gradients(loss, batches, total_tokens, device, ranks)), 0.0)


def add_gradients(
    loss: nn.Module,
    batches: Sequence[Iterable[Any]],
    total_tokens: float,
    device: torch.device,
    ranks: int = 1,
) -> list[Tensor]:
    """Do what `accumulate` does without waiting for a device: return each part's share, ()."""
    nats = []
    for number, batch in enumerate(batches):
        check_signals()  # of a step over much text a part may take minutes
        last = number == len(batches) - 1
        if isinstance(loss, nn.parallel.DistributedDataParallel):
            loss.require_backward_grad_sync = last  # gradients travel once a step
        total = loss(*on_device(batch, device)) / (total_tokens or 1)
        (total * ranks).backward()
        nats.append(total.detach())
    return nats


def shared_among_processes(
    loss: nn.Module, batch: Iterable[Any], device: torch.device
) -> nn.Module:
    """Wrap a loss so that its gradients are those of all processes.

    DDP lays its buckets out anew once it has seen in which order gradients come, and of three
    processes or more the order in which numbers are added depends on their place in a bucket. So it
    is shown that before the first step: else a run that goes on would add up its first otherwise.

    Args:
        loss: as `accumulate` takes it.
        batch: arrays, or None; whichever it is, its gradient is nothing.
        device: where the network is.
    """
    shared = nn.parallel.DistributedDataParallel(loss)
    (shared(*on_device(batch, device)) * 0.0).backward()
    shared.zero_grad(set_to_none=True)
    return shared


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
        total = loss(*on_device(batch, device))
    del total
    return sum(kept.values())


def on_device(batch: Iterable[Any], device: torch.device) -> list[Any]:
    """Bring a batch's arrays to a device; what lies there already, and None, stays."""
    return [
        torch.from_numpy(array).to(device, non_blocking=True)
        if isinstance(array, np.ndarray)
        else array
        for array in batch
    ]
