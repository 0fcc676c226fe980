"""Train a tokenizer on a bounded, seeded sample of the training text, and of nothing else."""

import math
import random
from collections.abc import Iterable, Iterator

from nextword.vocabulary.kinds import find_kind
from nextword.vocabulary.options import VocabularySettings
from nextword.vocabulary.tokenizer import Vocabulary, plain

SMALLEST, LARGEST, STEP = 320, 50_048, 64
BYTES, TEXT_BYTES_AN_ENTRY = 256, 400


def size_for(num_bytes: int, *, is_drawn: bool = False) -> int:
    """Return the default number of entries.

    The square root of twice the text's bytes; of the stories, all of whose words are to be pieces,
    twice the root, and of few of them 256 and one for each 400 bytes; rounded to 64.

    A piece must occur often enough to be learned; grown with the root, vocabulary and occurrences
    of a piece grow alike. In a small text few pieces are seen often enough to know what follows:
    what counting says of 10 kB of plays is 4 % shorter with 320 entries than with 512, and of 100
    kB 0.4 % shorter with 512 than with 640, where a network gains as much. On 300 kB of seven texts
    networks end 0.2 to 3.4 % lower with the root of twice the bytes than with a third more entries.

    Args:
        num_bytes: of the whole text.
        is_drawn: whether it is made of few words, as the stories are.
    """
    entries = math.sqrt(2 * num_bytes)
    if is_drawn:
        entries = min(2 * math.sqrt(num_bytes), BYTES + num_bytes / TEXT_BYTES_AN_ENTRY)
    return min(max(round(entries / STEP) * STEP, SMALLEST), LARGEST)


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
    texts: Iterable[str],
    num_bytes: int,
    settings: VocabularySettings,
    *,
    is_drawn: bool = False,
) -> Vocabulary:
    """Build a vocabulary of the kind asked for.

    Args:
        texts: the sample it is learned from.
        num_bytes: bytes of the whole text, from which the default size follows.
        settings: kind, size and pattern.
        is_drawn: whether it is made of few words.

    Raises:
        VocabularyError: the kind is not known.
    """
    size = settings.size or size_for(num_bytes, is_drawn=is_drawn)
    # As they will be read: JSON can spell half a character, for which a ? stands.
    tokenizer = find_kind(settings.kind).build(map(plain, texts), size, settings.pattern)
    return Vocabulary(tokenizer, settings.kind)
