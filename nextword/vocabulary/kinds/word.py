"""Word tokenizer: the most frequent words, each with the space before it.

Scripts that write no spaces between words (Chinese, Japanese, Thai and their like) are divided into
characters, for nothing in the text says where a word ends.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from nextword.vocabulary.kinds import RESERVED, UNKNOWN

if TYPE_CHECKING:
    from tokenizers import Tokenizer

LOSSLESS = False
SIZED = True
_SPACELESS = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}"
PATTERN = (
    rf" ?[{_SPACELESS}]"
    rf"| ?(?:(?![{_SPACELESS}])[\p{{L}}\p{{M}}\p{{N}}])+"
    r"| ?[^\s\p{L}\p{M}\p{N}]"
    r"|\s+(?!\S)|\s"
)
EXPRESSIONS = (PATTERN,)


def build(texts: Iterable[str], size: int, pattern: str) -> "Tokenizer":
    """Keep the `size` most frequent words."""
    del pattern
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.WordLevel(unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(PATTERN), "isolated")
    tokenizer.decoder = decoders.Fuse()
    trainer = trainers.WordLevelTrainer(
        vocab_size=size, special_tokens=[*RESERVED, UNKNOWN], show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer
