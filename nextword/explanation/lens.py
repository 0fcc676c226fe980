"""The logit lens: what each layer would say next, were it the last. Source: nostalgebraist 2020.

The stream after every layer is normalized and compared with the vocabulary as only the last one is
meant to be; so one sees at which layer an answer appears.

Legend of shapes: T positions, D width, V vocabulary.
"""

from dataclasses import dataclass

import torch

from nextword.base.errors import EvaluationError
from nextword.model.transformer import Transformer
from nextword.vocabulary.tokenizer import Vocabulary


@dataclass(frozen=True)
class LayerSays:
    """What one layer expects after a text."""

    layer: int
    """0 is the embedding alone."""
    candidates: tuple[tuple[str, float], ...]
    """The likeliest pieces and their probabilities."""
    target_probability: float
    """Of the piece that the last layer finds likeliest."""


@torch.inference_mode()
def lens(
    model: Transformer, vocabulary: Vocabulary, text: str, top: int = 3
) -> tuple[LayerSays, ...]:
    """Ask every layer what comes after a text.

    Args:
        model: looks back only.
        vocabulary: of the same model.
        text: its last context is read.
        top: candidates of each layer.

    Returns:
        one entry for the embedding, and one for each layer; the last is what the model says.

    Raises:
        EvaluationError: the model looks to both sides.
    """
    if not model.shape.causal:
        raise EvaluationError("the lens asks what comes next; this model names what is hidden")
    ids = [vocabulary.begin_id, *vocabulary.encode(text)][-model.shape.context :]
    streams: list[torch.Tensor] = []
    handles = [
        layer.register_forward_hook(lambda _, __, out: streams.append(out[0, -1]))
        for layer in model.model.layers
    ]
    try:
        row = torch.tensor([ids], device=model.device)
        embedded = model.model.embed_tokens(row)[0, -1]
        model.hidden(row)
    finally:
        for handle in handles:
            handle.remove()
    states = model.model.norm(torch.stack([embedded, *streams])).float()
    logits = states @ model.output_weight.float().T
    odds = logits.double().softmax(-1).cpu()[:, : len(vocabulary)]
    answer = int(odds[-1].argmax())
    best = odds.topk(min(top, odds.shape[1]))
    return tuple(
        LayerSays(
            layer,
            tuple((vocabulary.piece(int(id_)), float(odds[layer, id_])) for id_ in places),
            float(odds[layer, answer]),
        )
        for layer, places in enumerate(best.indices)
    )
