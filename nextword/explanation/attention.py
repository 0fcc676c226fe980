"""Attention maps: where each head of each layer looks, at each piece of a text.

The default path computes no such map: attention is one fused product there. Here the same queries
and keys are taken out of one pass, and their softmax written down.

Legend of shapes: L layers, H heads, T positions, K head width.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nextword.base.display import Displayable
from nextword.base.errors import EvaluationError
from nextword.model.attention import Attention
from nextword.prediction.loading import Opened

MOST_NUMBERS = 4_000_000
"""Of all maps together; a page holds them all."""
BESIDE_OTHERS = 64
"""Pieces of a text whose maps are one part among others of a page, drawn anew as somebody types."""


class Head(NamedTuple):
    """Where one head looks, on average over the pieces of a text."""

    layer: int
    """From 1."""
    head: int
    before: float
    """At the piece before; the first has none, and is not counted."""
    itself: float
    first: float
    """At the beginning of the text, from the third piece on."""
    bits: float
    """Entropy: 0 where it looks at one piece, 1 where at two alike, …"""
    strongest: tuple[int, int, float]
    """(from, to, how much): neither the beginning nor the piece itself; (0, 0, 0) where none is."""


@dataclass(frozen=True)
class AttentionMaps(Displayable):
    """All heads' maps of one text."""

    model: str
    pieces: tuple[str, ...]
    """The first stands for the beginning of the text."""
    weights: NDArray[np.float32]
    """(L, H, T, T): row t is where position t looks; it adds up to 1."""
    causal: bool
    """Whether a position looks at what stands before it only."""
    text: str = ""
    """That was read."""

    def heads(self) -> list[Head]:
        """Sum up each head."""
        layers, heads = self.weights.shape[:2]
        return [self._head(layer, head) for layer in range(layers) for head in range(heads)]

    def _head(self, layer: int, head: int) -> Head:
        rows = self.weights[layer, head].astype(np.float64)
        places = len(rows)
        with np.errstate(divide="ignore", invalid="ignore"):
            bits = -np.where(rows > 0, rows * np.log2(rows), 0.0).sum(axis=1)
        other = rows.copy()
        other[:, 0] = 0.0
        np.fill_diagonal(other, 0.0)
        at = np.unravel_index(int(other.argmax()), other.shape)
        largest = float(other[at])
        strongest = (int(at[0]), int(at[1]), largest) if largest > 0 else (0, 0, 0.0)
        return Head(
            layer + 1,
            head + 1,
            float(np.diagonal(rows, -1).mean()) if places > 1 else 0.0,
            float(np.diagonal(rows).mean()),
            float(rows[2:, 0].mean()) if places > 2 else 0.0,
            float(bits.mean()),
            strongest,
        )

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, as --json prints them."""
        return {
            "model": self.model,
            "pieces": list(self.pieces),
            "causal": self.causal,
            "heads": [head._asdict() for head in self.heads()],
            "weights": np.round(self.weights, 5).tolist(),
        }


@torch.inference_mode()
def attend(opened: Opened, text: str, pieces: int | None = None) -> AttentionMaps:
    """Write down where each head looks while a model reads a text.

    Args:
        opened: any model.
        text: as long as the model reads at once.
        pieces: at most; default: as many as a page of their maps alone can hold.

    Raises:
        EvaluationError: the text is empty, or too long for the model or for a page.
    """
    model, vocabulary = opened.model, opened.vocabulary
    shape = model.shape
    ids = [vocabulary.begin_id, *vocabulary.encode(text)]
    if not shape.causal:
        ids.append(vocabulary.end_id)
    places, maps = len(ids), shape.num_hidden_layers * shape.num_attention_heads
    if places < 2 + (not shape.causal):
        raise EvaluationError("the text is empty; give one to look at")
    most = min(shape.context, int((MOST_NUMBERS / maps) ** 0.5), (pieces or shape.context) + 1)
    if places > most:
        raise EvaluationError(
            f"the text has {places - 1:,} pieces, and {most - 1:,} can be shown; give a shorter one"
        )
    found: list[Tensor] = []

    def note(part: nn.Module, given: tuple[Any, ...]) -> None:
        queries, keys, _ = part.project(*given[:3])  # type: ignore[operator]
        found.append(_softmax(queries[0].float(), keys[0].float(), causal=shape.causal))

    parts = [part for part in model.modules() if isinstance(part, Attention)]
    handles = [part.register_forward_pre_hook(note) for part in parts]
    try:
        model.hidden(torch.tensor([ids], device=model.device))
    finally:
        for handle in handles:
            handle.remove()
    middle = [vocabulary.piece(id_) for id_ in ids[1:]]
    if not shape.causal:
        middle[-1] = END
    name = opened.name
    weights = torch.stack(found).cpu().numpy()
    return AttentionMaps(name, (BEGINNING, *middle), weights, shape.causal, text)


BEGINNING, END = "⟨begin⟩", "⟨end⟩"
"""Stand for end-of-text before and after a text."""


def _softmax(queries: Tensor, keys: Tensor, *, causal: bool) -> Tensor:
    """Return softmax(Q·Kᵀ/√K), (H, T, T), of queries (H, T, K) and keys (H', T, K)."""
    keys = keys.repeat_interleave(len(queries) // len(keys), dim=0)
    scores = queries @ keys.transpose(-1, -2) / queries.shape[-1] ** 0.5
    if causal:
        hidden = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(hidden, -float("inf"))
    found: Tensor = scores.softmax(-1)
    return found
