"""Work on batches shared out among processes, and its sums, the same whoever did what."""

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from nextword.base.signals import Broken, check_signals, stopped_by
from nextword.machine.ranks import Ranks

Batch = TypeVar("Batch")
ALONE = Ranks()
SHARES = 16
"""Batches, at least, of a part of a text that several processes score on the way."""
TURNS = 4
"""Batches of each process after which all ask each other whether somebody is to stop."""


def tokens_at_once(most: int, scored: int | None) -> int:
    """Return how many tokens a batch may have, so that a part of a text is some for all to share.

    However many processes there are it is the same, or the sums would be other ones.

    Args:
        most: that it may have.
        scored: tokens of the text that are to be scored; None: all.
    """
    return most if scored is None else min(most, -(-scored // SHARES))


def add_up(
    batches: Iterable[Batch],
    score: Callable[[Batch], NDArray[np.float64]],
    width: int,
    ranks: Ranks = ALONE,
) -> NDArray[np.float64]:
    """Add up what batches come to, each by one of the processes, or those that compute together.

    What each batch came to is told to all, and added up in the batches' order: the sums are the
    same to the last bit, however many processes there are.

    Args:
        batches: the same for every process.
        score: returns what a batch comes to, (width,).
        width: numbers that each comes to.
        ranks: the processes, which all must call this.

    Returns:
        (width,).

    Raises:
        Broken: a stop was asked for; of several processes all raise it at the same batch.
    """
    found = []
    for number, batch in enumerate(batches):
        _look_up(number, ranks)
        mine = number % ranks.workers == ranks.worker
        scored = score(batch) if mine else np.zeros(width)
        found.append(scored if ranks.speaks else np.zeros(width))
        last = batch
    if ranks.divides_weights and 0 < len(found) % ranks.workers <= ranks.worker:
        score(last)  # for nothing: a network whose weights are divided is asked by all or by none
    each = np.stack(found) if found else np.zeros((0, width))
    if ranks.size > 1:  # zeros but by one: nothing is rounded
        each = ranks.sum(torch.from_numpy(each).to(ranks.device or "cpu")).cpu().numpy()
    total = np.zeros(width)
    for row in each:
        total += row
    return total


def share_out(jobs: Sequence[Callable[[], str]], ranks: Ranks) -> list[str]:
    """Do each job in one of the processes, and tell all of them what came of it.

    Where weights are divided all do each of them together.

    Args:
        jobs: the same for every process, the dearest first; each returns a text.
        ranks: the processes, which all must call this.

    Returns:
        the texts, in the jobs' order.
    """
    if ranks.size == 1 or ranks.divides_weights:
        return [job() for job in jobs]
    last = ranks.size - 1  # the first has more to do than the others
    mine = [number % ranks.size == last - ranks.rank for number in range(len(jobs))]
    texts = [job().encode() if is_mine else b"" for job, is_mine in zip(jobs, mine, strict=True)]
    sizes = [int(size) for size in ranks.most(*map(len, texts))]
    # Of each text but one process has anything; the others add zeros.
    padded = b"".join(text or bytes(size) for text, size in zip(texts, sizes, strict=True))
    letters = torch.from_numpy(np.frombuffer(bytearray(padded), np.uint8))
    told = ranks.sum(letters.to(ranks.device or "cpu")).cpu().numpy().tobytes()
    ends = np.cumsum([0, *sizes]).tolist()
    return [told[start:end].decode() for start, end in pairwise(ends)]


def _look_up(number: int, ranks: Ranks) -> None:
    if ranks.size == 1:
        check_signals()
    elif number % (TURNS * ranks.size) == 0 and any(ranks.most(stopped_by() or 0)):
        raise Broken
