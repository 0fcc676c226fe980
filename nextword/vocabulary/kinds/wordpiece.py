"""WordPiece tokenizer (BERT's): longest match first.

Over bytes, so that any text comes back. A piece that goes on inside a word carries a mark in the
vocabulary; BERT's own, ##, could be text. Source: Schuster & Nakajima 2012, Devlin et al. 2019.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from nextword.vocabulary.kinds import RESERVED, UNKNOWN
from nextword.vocabulary.patterns import before_subwords

if TYPE_CHECKING:
    from tokenizers import Tokenizer

LOSSLESS = SIZED = True
CONTINUES = "\u2040"
"""Marks a piece that goes on inside a word: a character that no byte's letter is."""
LONGEST = 100
"""Letters of a word; longer ones are cut, for finding its pieces costs the square of its length."""
EXPRESSIONS = (f".{{1,{LONGEST}}}", "^" + CONTINUES)


def build(texts: Iterable[str], size: int, pattern: str) -> "Tokenizer":
    """Learn pieces on top of all bytes, as beginning and as continuation."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from tokenizers import Regex  # isort: skip

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    letters = [*alphabet, *(CONTINUES + letter for letter in alphabet)]
    before_words = pre_tokenizers.Sequence(
        [
            before_subwords(pattern),
            pre_tokenizers.Split(Regex(EXPRESSIONS[0]), "isolated"),
        ]
    )
    learner = Tokenizer(models.WordPiece(unk_token=UNKNOWN, continuing_subword_prefix=CONTINUES))
    learner.pre_tokenizer = before_words
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        # All letters first, in order: else the trainer numbers them as a hash table pleases, and
        # the same text gives another vocabulary each time.
        special_tokens=[*RESERVED, UNKNOWN, *letters],
        continuing_subword_prefix=CONTINUES,
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer)
    tokenizer = Tokenizer(
        models.WordPiece(
            learner.get_vocab(), unk_token=UNKNOWN, continuing_subword_prefix=CONTINUES
        )
    )
    tokenizer.pre_tokenizer = before_words
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(Regex(EXPRESSIONS[1]), ""), decoders.ByteLevel()]
    )
    tokenizer.add_special_tokens([*RESERVED, UNKNOWN])
    return tokenizer
