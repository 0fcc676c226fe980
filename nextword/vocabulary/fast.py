"""Bulk tokenization at full speed, with exactly the ids that `tokenizers` gives.

`tokenizers` defines the ids and encodes 2 to 4 MB a second. Where there is a faster way (fastokens
for byte-level BPE, a table for characters and bytes) it is taken, but only after its ids were seen
to be the same on the beginning of the text, and pieces of the rest are compared on the way.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from nextword.vocabulary.kinds import RESERVED
from nextword.vocabulary.tokenizer import Vocabulary, plain

Ids = NDArray[np.uint32]
Encoder = Callable[[Sequence[str]], list[Ids]]
CHECKED_CHARACTERS = 1 << 15
CHECK_EVERY = 64
"""Batches between two comparisons of one piece with `tokenizers`."""


class DisagreementError(Exception):
    """The fast way gave other ids than `tokenizers`: what it wrote must be written again."""


class BulkEncoder:
    """Encodes batches of texts, fast where that is proven."""

    def __init__(self, vocabulary: Vocabulary, *, fast: bool = True) -> None:
        """Look for a fast way; whether it is taken is decided on the first batch.

        Args:
            vocabulary: whose ids are wanted.
            fast: false encodes with `tokenizers` alone.
        """
        self.vocabulary = vocabulary
        self._fast = fast_encoder(vocabulary) if fast else None
        self._batches = 0

    @property
    def is_fast(self) -> bool:
        """Whether a fast way is in use."""
        return self._fast is not None

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        """Turn texts into ids.

        Raises:
            DisagreementError: a later comparison failed; begin again with `fast` false.
        """
        if self._fast is None:
            return [np.asarray(ids, dtype=np.uint32) for ids in self.vocabulary.encode_many(texts)]
        if self._batches == 0 and not self._agrees(texts):
            self._fast = None
            return self.encode(texts)
        encoded = self._fast(texts)
        if self._batches % CHECK_EVERY == CHECK_EVERY - 1:
            place = self._batches // CHECK_EVERY % len(texts)
            if encoded[place].tolist() != self.vocabulary.encode(texts[place]):
                raise DisagreementError
        self._batches += 1
        return encoded

    def _agrees(self, texts: Sequence[str]) -> bool:
        assert self._fast is not None
        sample, left = [], CHECKED_CHARACTERS
        for text in texts:
            sample.append(text[:left])
            left -= len(sample[-1])
            if left <= 0:
                break
        slow = self.vocabulary.encode_many(sample)
        return [ids.tolist() for ids in self._fast(sample)] == slow


def fast_encoder(vocabulary: Vocabulary) -> Encoder | None:
    """Return the fast way to encode with a vocabulary, or None where there is none."""
    if vocabulary.kind == "byte":
        return _encode_bytes
    if vocabulary.kind == "char":
        return _character_encoder(vocabulary)
    return _fastokens(vocabulary)


def _encode_bytes(texts: Sequence[str]) -> list[Ids]:
    return [
        np.frombuffer(plain(text).encode(), dtype=np.uint8).astype(np.uint32) + len(RESERVED)
        for text in texts
    ]


def _character_encoder(vocabulary: Vocabulary) -> Encoder:
    entries = vocabulary.tokenizer.get_vocab(with_added_tokens=True)
    points = {ord(entry): id_ for entry, id_ in entries.items() if len(entry) == 1}
    table = np.full(0x110000, vocabulary.unknown_id, dtype=np.uint32)
    table[list(points)] = list(points.values())

    def encode(texts: Sequence[str]) -> list[Ids]:
        return [
            table[np.frombuffer(plain(text).encode("utf-32-le"), dtype="<u4")] for text in texts
        ]

    return encode


def _fastokens(vocabulary: Vocabulary) -> Encoder | None:
    """Use fastokens if it is installed and knows this kind of vocabulary."""
    try:
        from fastokens import Tokenizer
    except ImportError:
        return None
    try:
        tokenizer = Tokenizer.from_json_str(vocabulary.tokenizer.to_str())
    except Exception:  # whatever it cannot read, `tokenizers` can
        return None

    def encode(texts: Sequence[str]) -> list[Ids]:
        flat, offsets = tokenizer.encode_batch_flat(
            [plain(text) for text in texts], add_special_tokens=False, split_special_tokens=True
        )
        places = np.frombuffer(offsets, dtype="<u8")[1:-1].astype(np.int64)
        return np.split(np.frombuffer(flat, dtype="<u4"), places)

    return encode
