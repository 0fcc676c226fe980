"""BPE as a library: trained on texts with special tokens of one's own, or built from merges."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from nextword.base.errors import VocabularyError
from nextword.vocabulary.alphabet import to_bytes, to_letters
from nextword.vocabulary.patterns import PATTERNS, before_subwords
from nextword.vocabulary.tokenizer import Vocabulary, plain

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from tokenizers.pre_tokenizers import PreTokenizer

END = "<|endoftext|>"


def train_bpe(
    texts: Iterable[str],
    size: int,
    special_tokens: Sequence[str] = (END,),
    *,
    pattern: str = "gpt2",
) -> Vocabulary:
    """Learn a byte-level BPE vocabulary from texts.

    A text is divided at its special tokens, and then by the pattern; merges never reach across. Of
    pairs that occur equally often the one is merged first whose two ids are the smaller, as in
    Hugging Face's `tokenizers`, which does the work. (GPT-2's own script and some courses take the
    greater pair by its bytes; their merges differ from these where counts are equal.)

    Args:
        texts: read once.
        size: entries at most: special tokens, 256 bytes, then merges.
        special_tokens: names that stand for themselves; the first ends a text.
        pattern: how texts are divided before merging: gpt2, llama3 or qwen2.

    Returns:
        a vocabulary; `vocabulary.tokenizer` is the tokenizer of `tokenizers`.

    Raises:
        VocabularyError: the size leaves no room, or there is no special token or such pattern.
    """
    from tokenizers import pre_tokenizers, trainers

    _check_specials(special_tokens)
    if size < 256 + len(special_tokens):
        raise VocabularyError(
            f"size = {size}: {len(special_tokens)} special tokens and 256 bytes need at least "
            f"{256 + len(special_tokens)}"
        )
    if pattern not in PATTERNS:
        raise VocabularyError(f"pattern = {pattern!r}: choose one of {', '.join(PATTERNS)}")
    tokenizer = _tokenizer(before_subwords(pattern))
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(special_tokens),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_between(map(plain, texts), special_tokens), trainer)
    return Vocabulary(tokenizer, "bpe", special_tokens[:1])


def bpe_from(
    vocabulary: Mapping[int, bytes] | Mapping[bytes, int],
    merges: Sequence[tuple[bytes, bytes]],
    special_tokens: Sequence[str] = (END,),
    *,
    pattern: str = "gpt2",
) -> Vocabulary:
    """Build a byte-level BPE vocabulary from its entries and merges.

    Args:
        vocabulary: id → bytes, or bytes → id.
        merges: pairs of entries, the first learned first.
        special_tokens: names that stand for themselves; the first ends a text. One that the
            vocabulary does not hold is added at its end.
        pattern: how texts are divided before merging: gpt2, llama3 or qwen2.

    Raises:
        VocabularyError: a byte, or what a merge takes or makes, is no entry; an id stands twice;
            or there is no special token.
    """
    from tokenizers import AddedToken, models

    _check_specials(special_tokens)
    pairs = [(k, v) if isinstance(k, bytes) else (v, k) for k, v in vocabulary.items()]
    named = {name.encode() for name in special_tokens}
    entries = {
        key.decode() if key in named else to_letters(key): value
        for key, value in pairs
        if isinstance(key, bytes) and isinstance(value, int)
    }
    if not len(entries) == len(pairs) == len(set(entries.values())):
        raise VocabularyError("a vocabulary maps ids to bytes, or bytes to ids, each once")
    for byte in range(256):
        if to_letters(bytes([byte])) not in entries:
            raise VocabularyError(f"no entry for the byte {bytes([byte])!r}; texts would lose it")
    for first, second in merges:
        for part, what in ((first, "takes"), (second, "takes"), (first + second, "makes")):
            if to_letters(part) not in entries:
                raise VocabularyError(
                    f"the merge of {first!r} and {second!r} {what} {part!r}, which is no entry"
                )
    for name in special_tokens:  # by itself the library would take an id that may be in use
        entries.setdefault(name, 1 + max(entries.values(), default=-1))
    tokenizer = _tokenizer(before_subwords(pattern))
    letters = [(to_letters(first), to_letters(second)) for first, second in merges]
    tokenizer.model = models.BPE(entries, letters)
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in special_tokens])
    return Vocabulary(tokenizer, "bpe", special_tokens[:1])


def merges_of(vocabulary: Vocabulary) -> list[tuple[bytes, bytes]]:
    """Return a BPE vocabulary's merges as bytes, the first learned first.

    Raises:
        VocabularyError: it is no BPE vocabulary.
    """
    model = vocabulary.description["model"]
    if model["type"] != "BPE":
        raise VocabularyError(f"a vocabulary of kind {vocabulary.kind} has no merges")
    pairs = (pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"])
    return [(to_bytes(first), to_bytes(second)) for first, second in pairs]


def _tokenizer(before: "PreTokenizer") -> "Tokenizer":
    from tokenizers import Tokenizer, decoders, models

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = before
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _check_specials(names: Sequence[str]) -> None:
    if not names:
        raise VocabularyError("special_tokens: name at least one, which ends a text")


def _between(texts: Iterable[str], specials: Sequence[str]) -> Iterable[str]:
    """Yield what stands between special tokens, which teach no merges."""
    marks = re.compile("|".join(re.escape(name) for name in sorted(specials, key=len)[::-1]))
    return (part for text in texts for part in marks.split(text) if part)
