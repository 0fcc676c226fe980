"""Settings of the vocabulary."""

from dataclasses import dataclass

from nextword.base.options import option
from nextword.vocabulary.kinds import names
from nextword.vocabulary.patterns import PATTERNS


@dataclass(frozen=True, kw_only=True)
class VocabularySettings:
    """Which pieces the text is made of."""

    kind: str = option(
        "bpe",
        "what the pieces are: subwords (bpe, unigram, wordpiece), words, characters or bytes",
        choices=tuple(names()),
    )
    size: int | None = option(
        None,
        "entries of a learned vocabulary",
        minimum=260,
        maximum=1 << 24,
        unit="entries",
        rule="the root of twice the text's bytes; on the stories twice the root, at most 256 and "
        "one for each 400 bytes; 320 to 50,048",
        of=("the text",),
    )
    pattern: str = option(
        "qwen2",
        "where text is divided before subwords are sought: as Qwen2 (digits one by one), Llama 3 "
        "(digits in threes) or GPT-2 do",
        choices=tuple(PATTERNS),
    )
    source: str | None = option(
        None, "use the vocabulary of this tokenizer.json, or of the model folder that holds one"
    )
    as_it_is: bool = option(
        False, "take a source as it is, without entries for padding and hiding that it lacks"
    )
    sample_bytes: int = option(
        32_000_000,
        "how much of the training text the vocabulary is learned from",
        minimum=1000,
        unit="bytes",
    )
    seed: int = option(0, "of that sample", minimum=0)
    fast: bool = option(
        True, "encode with fastokens or a table where they give the same ids as tokenizers"
    )
