"""Learn a vocabulary from a bounded, seeded sample of the training text, and of nothing else."""

import math
import random
from collections.abc import Iterable, Iterator

from nextword.base.errors import VocabularyError
from nextword.vocabulary.options import VocabularySettings
from nextword.vocabulary.tokenizer import RESERVED, UNKNOWN, Vocabulary, byte_of_letter

SMALLEST, LARGEST, STEP = 512, 50_048, 64


def size_for(num_bytes: int) -> int:
    """Return the default number of entries.

    The square root of twice the text's bytes, rounded to 64.

    A piece must occur often enough to be learned; so grown, vocabulary and occurrences of a piece
    grow alike.
    """
    return min(max(round(2 * math.sqrt(num_bytes) / STEP) * STEP, SMALLEST), LARGEST)


def sample_texts(
    texts: Iterable[str], num_bytes: int, settings: VocabularySettings
) -> Iterator[str]:
    """Yield pieces of text chosen by the seed, about `sample_bytes` of them in all.

    Args:
        texts: the training text in pieces.
        num_bytes: how much text that is.
        settings: the sample's size and seed.
    """
    source = random.Random(settings.seed)
    share = settings.sample_bytes / max(num_bytes, 1)
    left = settings.sample_bytes
    for text in texts:
        if share >= 1 or source.random() < share:
            yield text
            left -= len(text)
            if left <= 0:
                return


def train_vocabulary(
    texts: Iterable[str], num_bytes: int, settings: VocabularySettings
) -> Vocabulary:
    """Build a vocabulary of the kind asked for.

    Args:
        texts: the sample it is learned from.
        num_bytes: bytes of the whole text, from which the default size follows.
        settings: kind and size.

    Raises:
        VocabularyError: the kind is not known.
    """
    kinds = {"bpe": _train_bpe, "byte": _bytes, "char": _characters}
    if settings.kind not in kinds:
        raise VocabularyError(
            f"no vocabulary of kind {settings.kind!r}; choose one of {', '.join(kinds)}"
        )
    return kinds[settings.kind](texts, settings.size or size_for(num_bytes))


def _train_bpe(texts: Iterable[str], size: int) -> Vocabulary:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(RESERVED),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return Vocabulary(tokenizer, "bpe")


def _bytes(texts: Iterable[str], size: int) -> Vocabulary:
    """Byte b has the id 3 + b: nothing is learned."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    del texts, size
    letters = sorted(byte_of_letter().items(), key=lambda entry: entry[1])
    entries = {name: id_ for id_, name in enumerate(RESERVED)}
    entries.update({letter: len(RESERVED) + byte for letter, byte in letters})
    tokenizer = Tokenizer(models.BPE(vocab=entries, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(RESERVED))
    return Vocabulary(tokenizer, "byte")


def _characters(texts: Iterable[str], size: int) -> Vocabulary:
    """Every character of the sample in the order of its code point.

    Any other becomes the unknown entry.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    del size
    characters: set[str] = set()
    for text in texts:
        characters.update(text)
    entries = {name: id_ for id_, name in enumerate((*RESERVED, UNKNOWN, *sorted(characters)))}
    tokenizer = Tokenizer(models.WordLevel(entries, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([*RESERVED, UNKNOWN])
    return Vocabulary(tokenizer, "char")
