"""The corpora that come with the program; nothing is downloaded."""

import math
from collections.abc import Iterable, Iterator

from nextword.base.errors import CorpusError
from nextword.base.options import nearest
from nextword.corpus.builtin.python import read_python_prose
from nextword.corpus.builtin.stories import default_grammar
from nextword.corpus.options import CorpusSettings

BUILTIN = ("stories", "python")


def read_builtin(settings: CorpusSettings) -> Iterator[str]:
    """Yield the documents of the built-in corpus that the settings name.

    Raises:
        CorpusError: there is no such corpus.
    """
    if settings.builtin == "stories":
        grammar = default_grammar()
        return (grammar.draw(settings.seed, index).text for index in range(settings.num_stories))
    if settings.builtin == "python":
        return read_python_prose()
    known = ", ".join(BUILTIN)
    raise CorpusError(
        f"no built-in corpus {settings.builtin!r}; there are "
        f"{known}.{nearest(settings.builtin, BUILTIN)}"
    )


def worked_odds(name: str) -> float | None:
    """Return the odds of "make mistakes" where the worked example has come to "born to".

    None for a corpus whose probabilities are not known.

    Args:
        name: of the corpus.
    """
    said = default_grammar().parse("make mistakes", "born") if name == "stories" else None
    return None if said is None else math.exp(said.log_probability)


def known_floor(name: str, texts: Iterable[str]) -> float | None:
    """Return the exact sum of −ln P over texts of a corpus whose probabilities are known.

    None where they are not.

    Args:
        name: of the corpus.
        texts: documents of it.
    """
    if name != "stories":
        return None
    total = 0.0
    for text in texts:
        story = default_grammar().parse(text)
        if story is None:
            return None
        total -= story.log_probability
    return total
