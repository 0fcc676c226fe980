"""Byte-level byte-pair encoding (BPE): merge the most frequent pair, again and again.

Source: Sennrich et al. 2016; over bytes, as GPT-2 (Radford et al. 2019).
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from nextword.vocabulary.kinds import RESERVED
from nextword.vocabulary.patterns import before_subwords

if TYPE_CHECKING:
    from tokenizers import Tokenizer

LOSSLESS = SIZED = True
LONGEST = 128
"""Bytes of an entry. A text of one letter a thousand times would teach ever longer ones, of no use
to any other, and they are slow to build."""


def build(texts: Iterable[str], size: int, pattern: str) -> "Tokenizer":
    """Learn merges from texts until there are `size` entries."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = before_subwords(pattern)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(RESERVED),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
        max_token_length=LONGEST,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer
