"""Texts to be scored, encoded in memory document by document."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nextword.corpus.documents import find_files, read_pieces
from nextword.corpus.options import CorpusSettings
from nextword.corpus.tally import Tally
from nextword.vocabulary.cuts import in_pieces
from nextword.vocabulary.tokenizer import Vocabulary


class EncodedTexts:
    """Texts encoded in memory, document by document."""

    def __init__(
        self, vocabulary: Vocabulary, paths: Sequence[str], corpus: CorpusSettings
    ) -> None:
        """Read and encode.

        Args:
            vocabulary: of the model that will score them.
            paths: files, folders or globs.
            corpus: how to read them.
        """
        self.end_id = vocabulary.end_id
        self.withheld = ""
        self._documents: list[NDArray[np.int64]] = []
        sizes, ids, size = [], [], 0
        self.tally = Tally()
        """What is not read as it stands."""
        read = read_pieces(find_files(paths, self.tally), corpus, self.tally)
        for piece in in_pieces(vocabulary, read):
            part = vocabulary.encode(piece.text)
            if not self.withheld and vocabulary.decode(part) != piece.text:
                self.withheld = "this vocabulary does not give this text back exactly"
            ids += part
            size += len(piece.text.encode("utf-8", "replace"))
            if piece.is_last:
                self._documents.append(np.array([*ids, vocabulary.end_id], dtype=np.int64))
                sizes.append(size)
                ids, size = [], 0
        self.document_bytes: NDArray[np.int64] | None = np.array(sizes, dtype=np.int64)

    @property
    def num_documents(self) -> int:
        """Count the documents."""
        return len(self._documents)

    def document(self, number: int) -> NDArray[np.int64]:
        """Return one document's tokens."""
        return self._documents[number]
