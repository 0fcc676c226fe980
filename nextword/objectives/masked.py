"""Masked language modeling (BERT): predict hidden tokens from both sides.

This is the objective of BERT (Devlin et al. 2019), self-supervised like that of GPT: some tokens
are hidden, and the text itself holds what they were. The loss counts hidden places only.

A document stands in a row as it does when the model is asked later, between two end-of-text tokens
of its own, so that it can be told whether its beginning and its end are in sight; and it looks at
nothing beyond them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from nextword.objectives import Objective
from nextword.objectives.options import ObjectiveSettings
from nextword.targets.batch import IGNORED, Batch

Ids = NDArray[np.int64]

NOT_A_TEXT = (
    "a masked model gives each hidden token a probability from both sides, and their product is "
    "not the probability of a text"
)


class MaskingIds(NamedTuple):
    """Ids that masking has to know."""

    end_id: int
    mask_id: int
    ordinary: Ids
    """Those that stand for a piece of text, from which a wrong token is drawn."""


def with_ends(text: Ids, end_id: int) -> Ids:
    """Give each document in a row its own end-of-text at the beginning: … a E b → … a E E b.

    Args:
        text: (T + 1,): a window, with the token before it.
        end_id: end-of-text.

    Returns:
        (T,); what no longer fits at the end is left to another epoch, whose windows lie otherwise.
    """
    begins = np.nonzero(text[:-1] == end_id)[0]
    # Position p + 1 begins a document; in the row without the token before, that is index p.
    return np.insert(text[1:], begins, end_id)[: len(text) - 1]


def choose_places(row: Ids, end_id: int, rate: float, source: np.random.Generator) -> Ids:
    """Choose which places of a row to hide: a share of those that are no end-of-text, at least one.

    Args:
        row: ids, (T,).
        end_id: never hidden.
        rate: the share.
        source: of chance.
    """
    places = np.nonzero(row != end_id)[0]
    count = min(max(1, round(rate * len(places))), len(places))
    return np.sort(source.choice(places, count, replace=False))


def hide(
    windows: Ids,
    numbers: Sequence[int],
    signs: MaskingIds,
    settings: ObjectiveSettings,
    seed: int,
) -> Batch:
    """Hide tokens of some windows; a pure function of the seed and each window's number.

    Args:
        windows: ids, (B, T + 1); the first of each is only the token before.
        numbers: of each window in training's order, (B,).
        signs: the ids to know.
        settings: how many are hidden, and what stands in their place.
        seed: of chance.

    Returns:
        inputs with tokens hidden, and as targets what they were; all other targets ask for nothing.
    """
    inputs = np.stack([with_ends(window, signs.end_id) for window in windows])
    targets = np.full_like(inputs, IGNORED)
    for row, number in enumerate(numbers):
        source = np.random.default_rng((seed, number))
        places = choose_places(inputs[row], signs.end_id, settings.rate, source)
        if not len(places):
            continue
        targets[row, places] = inputs[row, places]
        chance = source.random(len(places))
        masked = chance < settings.mask_share
        wrong = ~masked & (chance < settings.mask_share + settings.random_share)
        inputs[row, places[masked]] = signs.mask_id
        inputs[row, places[wrong]] = source.choice(signs.ordinary, int(wrong.sum()))
    return Batch(inputs, targets)


def documents_of(inputs: Tensor, end_id: int) -> Tensor:
    """Number the documents of each row, from 0 or 1 on.

    A document begins where one end-of-text follows another.

    Args:
        inputs: ids, (B, T), as `hide` makes them.
        end_id: end-of-text.

    Returns:
        (B, T): the document that each position belongs to.
    """
    ends = inputs == end_id
    begins = ends.clone()
    begins[:, 1:] &= ends[:, :-1]
    return begins.cumsum(dim=1)


OBJECTIVE = Objective(
    name="masked",
    asks="What was hidden here?",
    supervised=False,
    attention="both",
    head="vocabulary",
    loss=("cross-entropy",),
    metrics=("nats_per_token", "top1_accuracy", "top5_accuracy"),
    layouts=("EuroBertForMaskedLM",),
    make_batch=hide,
    documents=documents_of,
    cannot={
        "generate": f"{NOT_A_TEXT}, from which one could draw; fill places with `nextword fill`",
        "predict": f"{NOT_A_TEXT}; ask for a hidden place with `nextword fill`",
        "compress": f"{NOT_A_TEXT}, which is what a compressor needs",
        "decompress": f"{NOT_A_TEXT}, which is what a compressor needs",
        "benchmark": f"{NOT_A_TEXT}, which is what the tasks ask for",
        "export": f"{NOT_A_TEXT}, and what reads such files only goes on with one",
        "ruler": f"{NOT_A_TEXT}, so it has no place among compressors and counts of what comes "
        "next; `nextword evaluate` gives its loss at hidden places",
        "tour": f"{NOT_A_TEXT}, which the tour is about; take a run that predicts the next token",
        "classify": "it gives no labels; `nextword finetune` teaches it some",
    },
)
