"""Pre-tokenized shards of another program: datatrove's .ds and .ds.index, unchanged.

They hold no hold-out and no vocabulary. The last documents, a tenth and at most a million tokens,
are held out: datatrove shuffles documents within a file, so the last ones are as good as any. The
vocabulary lies beside them as tokenizer.json, or `vocabulary.source` names it.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from nextword.base.errors import CorpusError
from nextword.base.files import cache_folder, write_json
from nextword.corpus.options import HOLDOUT_SHARE, HOLDOUT_TOKENS, CorpusSettings
from nextword.vocabulary.prepared import (
    HOLDOUT_BYTES,
    MANIFEST,
    PROGRESS,
    Prepared,
    digests_in,
    is_prepared,
    open_prepared,
)
from nextword.vocabulary.remote import AT, is_remote
from nextword.vocabulary.shards import TokenStream, size_of
from nextword.vocabulary.source import load_source
from nextword.vocabulary.tokenizer import Vocabulary

CHECKED_DOCUMENTS = 1000
CHECKED_TOKENS = 1_000_000


def shards_in(folder: Path) -> list[Path]:
    """List the token shards below a folder, in order."""
    if not folder.is_dir():
        return []
    afar = {Path(str(file).removesuffix(AT)) for file in folder.rglob(f"*.ds{AT}")}
    return sorted({*folder.rglob("*.ds"), *afar})


def open_foreign(folder: Path, source: str | None, settings: CorpusSettings) -> Prepared:
    """Describe shards made elsewhere in a small folder of the cache, and open them.

    Args:
        folder: holds .ds files with their .ds.index.
        source: the vocabulary they were written with (default: the folder's own tokenizer.json).
        settings: the share to hold out.

    Raises:
        CorpusError: they do not fit the vocabulary, or hold too little.
    """
    files = shards_in(folder)
    if (folder / PROGRESS).is_file():
        raise CorpusError(
            f"{folder}: an unfinished preparation (it has no {MANIFEST}); give the command that "
            "prepared it again"
        )
    place = Path(source) if source is not None else folder
    if source is None and not (folder / "tokenizer.json").is_file():
        raise CorpusError(
            f"{folder}: no tokenizer.json beside these shards; name the vocabulary they were "
            "written with: --vocabulary.source FILE"
        )
    vocabulary = load_source(place)
    key = [[str(file.absolute()), size_of(file), _changed(file)] for file in files]
    described = json.dumps([key, settings.holdout, vocabulary.tokenizer.to_str()])
    cache = cache_folder() / hashlib.blake2b(described.encode(), digest_size=12).hexdigest()
    if not is_prepared(cache):
        _describe(folder, files, vocabulary, settings, cache)
    return open_prepared(cache)


def _changed(file: Path) -> int:
    """Return when a shard was written; of one that lies at an address, when it was looked up."""
    return Path(f"{file}{AT}" if is_remote(file) else file).stat().st_mtime_ns


def _describe(
    folder: Path, files: list[Path], vocabulary: Vocabulary, settings: CorpusSettings, cache: Path
) -> None:
    whole = TokenStream(files, len(vocabulary), vocabulary.end_id)
    _refuse_other_vocabulary(folder, whole, vocabulary)
    cut = _cut(folder, whole, settings)
    holdout = TokenStream(files, len(vocabulary), vocabulary.end_id, (cut, len(whole)))
    cache.mkdir(parents=True, exist_ok=True)
    vocabulary.save(cache)
    facts: dict[str, Any] = {
        "corpus": folder.name,
        "documents": whole.num_documents,
        "bytes": None,
        "duplicate_documents": None,
        "vocabulary": vocabulary.kind,
        "entries": len(vocabulary),
        "train_tokens": cut,
        "holdout_tokens": len(holdout),
        "unknown_tokens": 0,
        "scripts": {},
        "files": [str(file.absolute()) for file in files],
        "bounds": {"train": [0, cut], "holdout": [cut, len(whole)]},
    }
    if vocabulary.spells_exactly:
        sizes = [
            vocabulary.count_bytes(holdout.document(number))
            for number in range(holdout.num_documents)
        ]
        np.asarray(sizes, dtype="<u8").tofile(cache / HOLDOUT_BYTES)
    else:
        facts["bits_withheld"] = "these shards do not say how many bytes their text had"
    write_json(cache / MANIFEST, {**facts, "digests": digests_in(cache)})


def _refuse_other_vocabulary(folder: Path, whole: TokenStream, vocabulary: Vocabulary) -> None:
    if not whole.num_documents:
        raise CorpusError(f"{folder}: these shards hold no documents")
    step = max(1, whole.num_documents // CHECKED_DOCUMENTS)
    whole.ask_ahead((end - 1, end) for end in whole.document_ends[::step].tolist())
    for end in whole.document_ends[::step].tolist():
        if whole.read(end - 1, end)[0] != vocabulary.end_id:
            raise CorpusError(
                f"{folder}: a document does not end with entry {vocabulary.end_id}, this "
                "vocabulary's end-of-text; write the shards with eos_token="
                f"{vocabulary.reserved[0]!r}, or name their own vocabulary with "
                "--vocabulary.source"
            )
    highest = int(whole.read(0, CHECKED_TOKENS).max())
    if highest >= len(vocabulary):
        raise CorpusError(
            f"{folder}: holds id {highest}, and this vocabulary ends at {len(vocabulary) - 1}; "
            "name the one the shards were written with: --vocabulary.source FILE"
        )


def _cut(folder: Path, whole: TokenStream, settings: CorpusSettings) -> int:
    """Return where the hold-out begins: at a document's end, neither side empty."""
    if settings.holdout is None:
        wanted = min(HOLDOUT_SHARE * len(whole), HOLDOUT_TOKENS)
    else:
        wanted = settings.holdout * len(whole)
    if whole.num_documents < 2:
        raise CorpusError(f"{folder}: one document cannot be divided; give shards of several")
    place = int(np.searchsorted(whole.document_ends, len(whole) - wanted))
    return int(whole.document_ends[min(place, whole.num_documents - 2)])
