"""Character tokenizer: every character of the sample; any other is unknown."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from nextword.vocabulary.kinds import RESERVED, UNKNOWN

if TYPE_CHECKING:
    from tokenizers import Tokenizer

LOSSLESS = SIZED = False
EXPRESSIONS = (r"[\s\S]",)


def build(texts: Iterable[str], size: int, pattern: str) -> "Tokenizer":
    """Collect the characters."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    del size, pattern
    characters: set[str] = set()
    for text in texts:
        characters.update(text)
    entries = {name: id_ for id_, name in enumerate((*RESERVED, UNKNOWN, *sorted(characters)))}
    tokenizer = Tokenizer(models.WordLevel(entries, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(EXPRESSIONS[0]), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([*RESERVED, UNKNOWN])
    return tokenizer
