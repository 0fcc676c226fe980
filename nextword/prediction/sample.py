"""Sampling: logits → temperature, top-k, top-p, min-p → one token id.

Legend of shapes: B texts, V vocabulary.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from nextword.base.errors import EvaluationError
from nextword.prediction.options import SamplingSettings

COLDEST = 1e-6
"""Temperature below which logits divided by it would be no numbers: then the likeliest it is."""


NO_FLOAT64 = ("mps", "xpu")
"""Devices that have none, or some of them."""
MANY = 4096
"""Entries above which one number is drawn, and not one for each entry, as `torch.multinomial` does:
of 50,304 entries that took a millisecond, a tenth of which finds the same by adding up."""


HEAD = 512
"""Entries that are looked at first: to find the likeliest is much less than to sort all."""


def adjusted(logits: Tensor, settings: SamplingSettings, earlier: Tensor | None = None) -> Tensor:
    """Apply penalty, temperature and cuts to logits.

    Args:
        logits: (V,) in float32.
        settings: what to apply; at temperature 0 only the likeliest stays.
        earlier: ids that came before, for the repetition penalty.

    Returns:
        logits (V,); what may not be chosen is −infinity.
    """
    logits = _penalized(logits, settings, earlier)
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
        logits.masked_fill_(probabilities < settings.min_p * probabilities.max(), -torch.inf)
    if settings.top_p < 1:
        kept = _nucleus(probabilities, settings.top_p)
        logits = torch.full_like(logits, -torch.inf).index_copy_(0, kept, logits[kept])
    return logits


def _nucleus(probabilities: Tensor, share: float) -> Tensor:
    """Return the ids of the likeliest entries (V,) that together first make a share."""
    for most in (min(HEAD, len(probabilities)), len(probabilities)):
        ordered, order = probabilities.topk(most)
        reached = ordered.cumsum(0)
        if reached[-1] >= share:
            break
    beyond = reached - ordered >= share
    beyond[0] = False  # however little is asked for
    return order[~beyond]


def _penalized(logits: Tensor, settings: SamplingSettings, earlier: Tensor | None) -> Tensor:
    """Return a copy of logits (V,), those of ids that came before made less likely."""
    logits = logits.clone()
    if settings.repetition_penalty != 1 and earlier is not None and len(earlier):
        seen = torch.unique(earlier)
        values = logits[seen]
        penalty = settings.repetition_penalty
        logits[seen] = torch.where(values > 0, values / penalty, values * penalty)
    return logits


def choose(
    logits: Tensor,
    settings: SamplingSettings,
    source: torch.Generator,
    earlier: Tensor | None = None,
) -> int:
    """Draw one id from logits (V,).

    Raises:
        EvaluationError: they are no numbers.
    """
    if not all(math.isfinite(one) for one in torch.stack(torch.aminmax(logits)).tolist()):
        raise EvaluationError("the model's scores of the next token are no numbers; it is damaged")
    if settings.temperature < COLDEST:  # nothing is drawn
        if settings.repetition_penalty != 1:
            logits = _penalized(logits, settings, earlier)
        return int(logits.argmax())
    probabilities = adjusted(logits, settings, earlier).softmax(0)
    if len(probabilities) <= MANY or probabilities.device.type in NO_FLOAT64:
        return int(torch.multinomial(probabilities, 1, generator=source))
    sums = probabilities.double().cumsum(0)
    draw = torch.rand(1, dtype=torch.float64, generator=source, device=sums.device)
    return int(torch.searchsorted(sums, draw * sums[-1], right=True))


def choose_each(
    logits: Tensor, settings: Sequence[SamplingSettings], draws: Sequence[float]
) -> list[int]:
    """Choose the next token of several texts at once, each by its own settings.

    Args:
        logits: (B, V) in float32, penalties and biases applied.
        settings: of each text; the repetition penalty is not looked at.
        draws: a number from [0, 1) for each text; the choice is where the probabilities, added up
            in the order of ids, first pass it. No text's choice depends on another's.
    """
    cold = [one.temperature < COLDEST for one in settings]
    ids: list[int] = logits.argmax(-1).tolist()
    warm = [row for row, is_cold in enumerate(cold) if not is_cold]
    if not warm:
        return ids
    chosen = logits[torch.tensor(warm, device=logits.device)]
    divisors = torch.tensor([settings[row].temperature for row in warm], device=logits.device)
    chosen /= divisors[:, None]
    for place, row in enumerate(warm):
        one = settings[row]
        if one.top_k or one.min_p > 0 or one.top_p < 1:
            chosen[place] = adjusted(chosen[place], replace(one, temperature=1.0))
    sums = chosen.softmax(-1).double().cumsum(-1)
    wanted = torch.tensor([draws[row] for row in warm], dtype=torch.float64, device=logits.device)
    found = torch.searchsorted(sums, (wanted * sums[:, -1])[:, None], right=True)[:, 0]
    for row, id_ in zip(warm, found.tolist(), strict=True):
        ids[row] = id_
    return ids
