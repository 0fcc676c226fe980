"""Sequence classification and regression: a language model's body with another head.

The forms are those of Hugging Face's …ForSequenceClassification. A causal network reads the label
off the state at the text's last token, the first that has seen all of it; one that looks to both
sides off the average of all states, through one more layer (or as `LabelHead.pooling` says).

Legend of shapes: B rows, T positions, D width, C labels.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nextword.model.inputs import check_ids, check_lengths
from nextword.model.layouts import LabelHead
from nextword.model.shape import Shape
from nextword.model.transformer import Transformer


class SequenceClassifier(Transformer):
    """Texts → logits (B, C); of a single label, the number that is predicted."""

    def __init__(self, shape: Shape, labels: LabelHead) -> None:
        """Build the network; the head begins at zero, so that every label is equally likely.

        Args:
            shape: of the body.
            labels: what the outputs stand for.
        """
        super().__init__(replace(shape, tie_word_embeddings=True))
        self.labels = labels
        width, outputs = shape.hidden_size, len(labels.names)
        if shape.causal:
            self.score = nn.Linear(width, outputs, bias=False)
            nn.init.zeros_(self.score.weight)
        else:
            self.dense = nn.Linear(width, width)
            self.classifier = nn.Linear(width, outputs)
            nn.init.eye_(self.dense.weight)
            for weight in (self.dense.bias, self.classifier.weight, self.classifier.bias):
                nn.init.zeros_(weight)

    @property
    def last(self) -> nn.Linear:
        """The matrix whose rows belong to the labels."""
        return self.score if self.shape.causal else self.classifier

    def features(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """Return what the last matrix reads, (B, D).

        Args:
            ids: (B, T), each row filled up at its end.
            lengths: (B,), tokens of each row that count.

        Raises:
            ModelError: they are no such ids or lengths.
        """
        check_ids(ids, self.shape.vocab_size)
        check_lengths(ids, lengths)
        places = torch.arange(ids.shape[1], device=ids.device)
        real = places < lengths[:, None]
        if self.shape.causal:
            hidden = self.hidden(ids)
            return hidden[torch.arange(len(ids), device=ids.device), lengths - 1]
        hidden = self.hidden(ids, seen=real[:, None, None, :])
        if self.labels.pooling == "bos":
            return F.gelu(self.dense(hidden[:, 0]))
        late = self.labels.pooling == "late"
        states = F.gelu(self.dense(hidden)) if late else hidden
        average = (states * real.unsqueeze(-1)).sum(dim=1) / lengths[:, None]
        return average if late else F.gelu(self.dense(average))

    def forward(  # type: ignore[override]
        self, ids: Tensor, lengths: Tensor | None = None
    ) -> Tensor:
        """Map ids (B, T) to logits (B, C); without lengths (B,), every token of each row counts."""
        if lengths is None:
            lengths = torch.full((len(ids),), ids.shape[1], device=ids.device)
        return self.logits(ids, lengths)

    def logits(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """Map ids (B, T) and lengths (B,) to logits (B, C)."""
        given: Tensor = self.last(self.features(ids, lengths))
        return given
