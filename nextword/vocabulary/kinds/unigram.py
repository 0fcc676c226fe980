"""Unigram tokenizer (SentencePiece's): subwords that make the whole text likeliest.

Starts from many pieces and drops those that a text misses least. The library adds probabilities up
in no fixed order, so learning twice may give a slightly different vocabulary. Source: Kudo 2018.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from nextword.vocabulary.kinds import RESERVED
from nextword.vocabulary.patterns import before_subwords

if TYPE_CHECKING:
    from tokenizers import Tokenizer

LOSSLESS = SIZED = True


def build(texts: Iterable[str], size: int, pattern: str) -> "Tokenizer":
    """Learn pieces and their probabilities until `size` are left."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = before_subwords(pattern)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.UnigramTrainer(
        vocab_size=size,
        special_tokens=list(RESERVED),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer
