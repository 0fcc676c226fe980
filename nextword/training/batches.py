"""Batches for each step: windows of tokens, as an objective turns them into inputs and targets."""

from collections.abc import Callable, Sequence

import numpy as np

from nextword.objectives import Objective
from nextword.objectives.masked import MaskingIds
from nextword.objectives.options import ObjectiveSettings
from nextword.targets.batch import Batch, Tokens, read_windows
from nextword.targets.windows import Mixture, Windows
from nextword.vocabulary.tokenizer import Vocabulary


def masking_ids_of(vocabulary: Vocabulary) -> MaskingIds:
    """Return the ids that masking has to know.

    Raises:
        VocabularyError: the vocabulary has no mask.
    """
    ordinary = [id_ for id_ in range(len(vocabulary)) if vocabulary.piece_bytes(id_)]
    return MaskingIds(vocabulary.end_id, vocabulary.mask, np.array(ordinary, dtype=np.int64))


def batch_reader(
    objective: Objective,
    streams: Sequence[Tokens],
    windows: Windows | Mixture,
    vocabulary: Vocabulary,
    settings: ObjectiveSettings,
    seed: int,
) -> Callable[[int, slice], Batch]:
    """Return what reads some rows of a step: a pure function of the seed, the step and the rows.

    Args:
        objective: causal or masked.
        streams: the training tokens, one stream a text of a mixture.
        windows: which windows belong to which step.
        vocabulary: of the tokens.
        settings: of what is hidden.
        seed: of the places that are hidden.
    """
    if objective.attention == "before":
        return lambda step, rows: objective.make_batch(read_windows(streams, windows, step, rows))
    signs = masking_ids_of(vocabulary)

    def read(step: int, rows: slice) -> Batch:
        numbers = (step * windows.rows + np.arange(windows.rows))[rows].tolist()
        text = read_windows(streams, windows, step, rows)
        batch: Batch = objective.make_batch(text, numbers, signs, settings, seed)
        return batch

    return read
