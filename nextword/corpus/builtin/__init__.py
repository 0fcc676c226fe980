"""The corpora that come with the program; nothing is downloaded."""

from collections.abc import Iterator

from nextword.base.errors import CorpusError
from nextword.base.options import nearest
from nextword.corpus.builtin.python import read_python_prose
from nextword.corpus.builtin.stories import default_grammar
from nextword.corpus.options import CorpusSettings

BUILTIN = ("stories", "python")


def read_builtin(settings: CorpusSettings, num_stories: int) -> Iterator[str]:
    """Yield the documents of the built-in corpus that the settings name.

    Args:
        settings: its name and seed.
        num_stories: how many stories to draw, where the corpus is `stories`.
    Raises:
        CorpusError: there is no such corpus.
    """
    if settings.builtin == "stories":
        grammar = default_grammar()
        return (grammar.draw(settings.seed, index).text for index in range(num_stories))
    if settings.builtin == "python":
        return read_python_prose()
    known = ", ".join(BUILTIN)
    raise CorpusError(f"no built-in corpus {settings.builtin!r}; there are {known}.{nearest(settings.builtin, BUILTIN)}")
