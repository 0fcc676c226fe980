"""Sampling: logits → temperature, top-k, top-p, min-p → one token id.

Legend of shapes: V vocabulary.
"""

import torch
from torch import Tensor

from nextword.prediction.options import SamplingSettings

COLDEST = 1e-6
"""Temperature below which logits divided by it would be no numbers: then the likeliest it is."""


def adjusted(logits: Tensor, settings: SamplingSettings, earlier: Tensor | None = None) -> Tensor:
    """Apply penalty, temperature and cuts to logits.

    Args:
        logits: (V,) in float32.
        settings: what to apply; at temperature 0 only the likeliest stays.
        earlier: ids that came before, for the repetition penalty.

    Returns:
        logits (V,); what may not be chosen is −infinity.
    """
    logits = logits.clone()
    if settings.repetition_penalty != 1 and earlier is not None and len(earlier):
        seen = torch.unique(earlier)
        values = logits[seen]
        penalty = settings.repetition_penalty
        logits[seen] = torch.where(values > 0, values / penalty, values * penalty)
    if settings.temperature < COLDEST:
        only = torch.full_like(logits, -torch.inf)
        only[logits.argmax()] = 0.0
        return only
    logits /= settings.temperature
    if 0 < settings.top_k < len(logits):
        logits[logits < logits.topk(settings.top_k).values[-1]] = -torch.inf
    if settings.min_p == 0 and settings.top_p == 1:
        return logits
    probabilities = logits.softmax(0)
    if settings.min_p > 0:
        logits[probabilities < settings.min_p * probabilities.max()] = -torch.inf
    if settings.top_p < 1:
        ordered, order = probabilities.sort(descending=True)
        beyond = ordered.cumsum(0) - ordered >= settings.top_p
        logits[order[beyond]] = -torch.inf
    return logits


def choose(
    logits: Tensor,
    settings: SamplingSettings,
    source: torch.Generator,
    earlier: Tensor | None = None,
) -> int:
    """Draw one id from logits (V,)."""
    probabilities = adjusted(logits, settings, earlier).softmax(0)
    return int(torch.multinomial(probabilities, 1, generator=source))
