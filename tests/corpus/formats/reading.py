"""How the tests of formats read a file."""

import pytest

from nextword.base.errors import CorpusError
from nextword.corpus.documents import find_files, read_pieces
from nextword.corpus.options import CorpusSettings
from nextword.corpus.tally import Tally


def read(path, **settings):
    """Return a path's documents, and what was counted: {kind: how many}."""
    tally, documents, held = Tally(), [], ""
    for piece in read_pieces(find_files([str(path)], tally), CorpusSettings(**settings), tally):
        held += piece.text
        if piece.is_last:
            documents.append(held)
            held = ""
    assert tally.records == len(documents) + tally.left_out
    return documents, {kind: found.count for kind, found in tally.findings.items()}


def refusal(path, **settings):
    """Return the one line with which a file is refused."""
    with pytest.raises(CorpusError) as error:
        read(path, **settings)
    assert "\n" not in str(error.value)
    return str(error.value)
