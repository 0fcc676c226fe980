"""Byte tokenizer: byte b has the id 3 + b, and nothing is learned."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from nextword.vocabulary.alphabet import byte_of_letter
from nextword.vocabulary.kinds import RESERVED

if TYPE_CHECKING:
    from tokenizers import Tokenizer

LOSSLESS = True
SIZED = False


def build(texts: Iterable[str], size: int, pattern: str) -> "Tokenizer":
    """Build the fixed vocabulary."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    del texts, size, pattern
    letters = sorted(byte_of_letter().items(), key=lambda entry: entry[1])
    entries = {name: id_ for id_, name in enumerate(RESERVED)}
    entries.update({letter: len(RESERVED) + byte for letter, byte in letters})
    tokenizer = Tokenizer(models.BPE(vocab=entries, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(RESERVED))
    return tokenizer
