"""New entries for a network's vocabulary, which begin as what they stand for."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from nextword.model.transformer import Transformer

TABLES = ("model.embed_tokens.weight", "lm_head.weight")
"""With a row for each entry; where one matrix reads and predicts there is the first alone."""


def with_entries(model: Transformer, begins: Mapping[int, Sequence[int]]) -> dict[str, Tensor]:
    """Return a network's weights with rows for new entries, each the mean of some known ones.

    Args:
        model: V rows.
        begins: ids of the new, from V on without a gap where there are no rows for them yet, each
            with the ids of the known entries whose mean it begins as.
    """
    weights = model.state_dict()
    for name in TABLES:
        if name not in weights or not begins:
            continue
        known = weights[name]
        size = max(len(known), 1 + max(begins))
        table = torch.zeros(size, known.shape[1], dtype=known.dtype)
        table[: len(known)] = known
        for id_, ids in begins.items():
            table[id_] = known[list(ids)].float().mean(dim=0).to(known.dtype)
        weights[name] = table
    return weights
