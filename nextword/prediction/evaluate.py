"""Evaluation: loss, perplexity and bits per byte of a text, every token scored once.

Documents longer than the context are read in consecutive windows. Everything is computed in float32
and padding never enters a sum, so the result is the same whatever the batch size.

Legend of shapes: B rows, T positions, V vocabulary.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nextword.base.errors import EvaluationError
from nextword.loss.bits import bits, bits_per_byte, perplexity
from nextword.machine.ranks import Ranks
from nextword.model.transformer import Transformer
from nextword.prediction.divided import ALONE, add_up
from nextword.prediction.options import EvaluationSettings
from nextword.targets.batch import IGNORED

LOGITS_AT_ONCE = 8 * 2**20
LONG_DOCUMENT = 2048
"""Tokens above which a document may be scored in part where a part is enough."""


class Block(NamedTuple):
    """Part of a document that is scored in one go."""

    tokens: NDArray[np.int64]
    """What is read and asked.

    Token 0 is only read, every later one is asked after those before it.
    """
    skipped: int
    """How many of the first targets another block has scored already."""
    read: int
    """1 where token 0 is a piece of the text, 0 where it is the end-of-text before it."""


class Documents(Protocol):
    """Tokenized documents that can be read one by one."""

    end_id: int
    document_bytes: NDArray[np.int64] | None

    @property
    def num_documents(self) -> int:
        """Count them."""

    def document(self, number: int) -> NDArray[np.int64]:
        """Return one document's tokens, end-of-text included."""


@dataclass
class Evaluation:
    """The mistake meter's reading over a text."""

    nats: float = 0.0
    tokens: int = 0
    documents: int = 0
    num_bytes: int | None = 0
    """UTF-8 bytes of the raw text.

    None where they are not known or decoding is not the identity.
    """
    withheld: str = ""
    """Why bits per byte are not given."""
    first: int = 0
    among_five: int = 0
    at_hidden: bool = False
    """Whether only hidden tokens were asked for: then the loss is not that of a text."""
    by_context: dict[int, tuple[float, int]] = field(default_factory=dict)
    """Most pieces read of a range (0, 1, 2, 3–4, 5–8, …) → summed nats and tokens."""
    reading: dict[str, Any] = field(default_factory=dict)
    """What of the files was not read as it stands, as a tally gives it."""

    def take(self, sums: NDArray[np.float64]) -> None:
        """Take over what `summed` gave, added up."""
        self.nats = float(sums[0])
        self.tokens, self.first, self.among_five = map(int, sums[1:4].tolist())

    @property
    def nats_per_token(self) -> float:
        """The mean of −ln P(right token)."""
        if not self.tokens:
            raise EvaluationError("there is no text to score; give a file with text in it")
        return self.nats / self.tokens

    def as_dict(self) -> dict[str, Any]:
        """Return every figure as plain values."""
        mean = self.nats_per_token
        return {
            "nats_per_token": mean,
            "eval_loss": mean,
            "bits_per_token": bits(mean),
            "perplexity": None if self.at_hidden else perplexity(mean),
            "asked_for": "hidden tokens" if self.at_hidden else "every token",
            "bits_per_byte": bits_per_byte(self.nats, self.num_bytes) if self.num_bytes else None,
            "bits_per_byte_withheld": self.withheld or None,
            "top1_accuracy": self.first / self.tokens,
            "top5_accuracy": self.among_five / self.tokens,
            "tokens": self.tokens,
            "bytes": self.num_bytes,
            "documents": self.documents,
            "reading": self.reading,
            "nats": self.nats,
            "loss_by_context": {
                str(upto): {"nats_per_token": nats / count, "tokens": count}
                for upto, (nats, count) in sorted(self.by_context.items())
            },
        }


def evaluate(
    model: Transformer,
    texts: Documents,
    settings: EvaluationSettings,
    *,
    max_tokens: int | None = None,
    withheld: str = "",
    count_bytes: Callable[[NDArray[np.int64]], int] | None = None,
    begin_id: int | None = None,
    ranks: Ranks = ALONE,
) -> Evaluation:
    """Score documents.

    Args:
        model: the network; its matrix products are put to float32 for the while.
        texts: tokenized documents.
        settings: batch size and overlap.
        max_tokens: score whole documents from the first on until about so many; None scores all.
        withheld: why bits per byte shall not be given, if so.
        begin_id: stands before each document; default: the token that ends one.
        count_bytes: counts the bytes that ids spell, for a document that `max_tokens` cuts.
        ranks: processes that share the work, which all must call this; each returns all of it.

    Raises:
        EvaluationError: there is no document.
    """
    count, cut = choose_documents(texts, max_tokens)
    if not count:
        raise EvaluationError("there is no text to score; give a file with text in it")
    result = Evaluation(documents=count, withheld=withheld)
    raw = texts.document_bytes
    if withheld or raw is None or (cut is not None and count_bytes is None):
        result.num_bytes = None
        result.withheld = withheld or "the shards do not say how many bytes of raw text they hold"
    else:
        whole = count if cut is None else count - 1
        result.num_bytes = int(raw[:whole].sum())
        if cut is not None and count_bytes is not None:
            result.num_bytes += count_bytes(texts.document(whole)[:cut])
    context = model.shape.context
    blocks = (
        block
        for number in range(count)
        for block in cut_document(
            texts.document(number)[: cut if number == count - 1 else None],
            texts.end_id if begin_id is None else begin_id,
            context,
            settings,
        )
    )
    precisions = model.precision
    model.set_precision(torch.float32)
    try:
        ranges = _ranges(context)
        of = np.repeat(np.arange(len(ranges)), np.diff(ranges, prepend=-1))
        sums = add_up(
            _batches(blocks, settings.batch_tokens),
            lambda batch: _score(model, batch, of),
            4 + 2 * len(ranges),
            ranks,
        )
    finally:
        model.set_precision(precisions)
    result.take(sums)
    for upto, nats, tokens in zip(ranges, *sums[4:].reshape(2, -1).tolist(), strict=True):
        if tokens:
            result.by_context[upto] = (nats, int(tokens))
    return result


def cut_document(
    tokens: NDArray[np.int64], begin_id: int, context: int, settings: EvaluationSettings
) -> Iterator[Block]:
    """Cut a document into blocks that score each of its tokens once.

    Args:
        tokens: of the document, its end-of-text included.
        begin_id: stands before the first token.
        context: the most tokens read at once.
        settings: share of the context that a block shares with the one before.
    """
    whole = np.concatenate([np.array([begin_id], dtype=np.int64), tokens])
    stride = max(context - int(context * settings.overlap), 1)
    scored = 0
    for start in range(0, len(tokens), stride):
        block = whole[start : start + context + 1]
        yield Block(block, scored - start, int(start > 0))
        scored = start + len(block) - 1
        if scored >= len(tokens):
            return


def choose_documents(texts: Documents, max_tokens: int | None) -> tuple[int, int | None]:
    """Return how many documents are scored, and how many tokens of the last if not all of it."""
    if max_tokens is None:
        return texts.num_documents, None
    count, tokens = 0, 0
    while count < texts.num_documents and tokens < max_tokens:
        size = len(texts.document(count))
        count += 1
        if tokens + size > 2 * max_tokens + LONG_DOCUMENT:  # others are scored whole
            return count, max_tokens - tokens
        tokens += size
    return count, None


def _batches(blocks: Iterable[Block], batch_tokens: int) -> Iterator[list[Block]]:
    """Group blocks so that a padded batch holds at most `batch_tokens`.

    Neighbors in length go together.
    """
    waiting: list[Block] = []
    size = 0
    for block in blocks:
        waiting.append(block)
        size += len(block.tokens)
        if size >= 8 * batch_tokens:
            yield from _by_length(waiting, batch_tokens)
            waiting, size = [], 0
    yield from _by_length(waiting, batch_tokens)


def _by_length(blocks: list[Block], batch_tokens: int) -> Iterator[list[Block]]:
    batch: list[Block] = []
    for block in sorted(blocks, key=lambda block: -len(block.tokens)):
        if batch and len(batch[0].tokens) * (len(batch) + 1) > batch_tokens:
            yield batch
            batch = []
        batch.append(block)
    if batch:
        yield batch


@torch.inference_mode()
def _score(
    model: Transformer, batch: list[Block], range_of: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return nats, tokens, hits, hits among five; then nats and tokens of each range."""
    width = len(batch[0].tokens) - 1
    inputs = np.zeros((len(batch), width), dtype=np.int64)
    targets = np.full((len(batch), width), IGNORED, dtype=np.int64)
    for row, block in enumerate(batch):
        size = len(block.tokens) - 1
        inputs[row, :size] = block.tokens[:-1]
        targets[row, block.skipped : size] = block.tokens[1 + block.skipped :]
    hidden = model.hidden(torch.from_numpy(inputs).to(model.device)).flatten(0, 1).float()
    wanted = torch.from_numpy(targets).to(model.device).flatten()
    asked = wanted != IGNORED
    losses, ranks = score_tokens(hidden[asked], model.output_weight.float(), wanted[asked])
    rows, places = np.nonzero(targets != IGNORED)
    places += np.array([block.read for block in batch])[rows]
    count = int(range_of[-1]) + 1
    nats = np.bincount(range_of[places], losses.cpu().double().numpy(), count)
    return np.concatenate(
        [summed(losses, ranks), nats, np.bincount(range_of[places], minlength=count)]
    )


def summed(losses: Tensor, ranks: Tensor) -> NDArray[np.float64]:
    """Return summed nats, tokens, hits and hits among five of losses and ranks (N,)."""
    hits = [float((ranks < most).sum()) for most in (1, 5)]
    return np.array([float(losses.cpu().double().sum()), len(losses), *hits])


def score_tokens(hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return −ln P(target) and the target's rank, 0 for the likeliest, without holding all logits.

    Both are (N,).
    """
    rows = min(max(1, LOGITS_AT_ONCE // len(weight)), max(len(hidden), 1))
    # One buffer for all logits, and the results laid out before: small results that stay between
    # large blocks that go leave the heap in pieces, ten times as large as what is in use.
    space = hidden.new_empty(rows, len(weight))
    losses, ranks = hidden.new_empty(len(hidden)), torch.empty_like(targets)
    for start in range(0, len(hidden), rows):
        part = slice(start, min(start + rows, len(hidden)))
        logits = torch.mm(hidden[part], weight.T, out=space[: part.stop - start])
        right = logits.gather(1, targets[part, None])
        ranks[part] = (logits > right).sum(dim=1)
        losses[part] = torch.logsumexp(logits, dim=1) - right[:, 0]
    return losses, ranks


def _ranges(context: int) -> list[int]:
    """Return the last of each range of pieces read: 0, 1, 2, 4 (3 and 4), 8, …, the context.

    End-of-text before a text is none of its pieces.
    """
    found = [0]
    while found[-1] < context:
        found.append(min(max(2 * found[-1], 1), context))
    return found
