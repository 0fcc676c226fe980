"""Tokenize a corpus once into memory-mapped shards, with progress that survives a crash.

Scan it, learn its vocabulary, encode it into memory-mapped shards, and keep them.

Encoding streams, on all cores, and finishes one shard at a time; what is finished stands in
`progress.json`, so that an interrupted preparation goes on at the next shard, in the middle of a
document if need be. The folder is named by the digest of all that decides its content (text, split,
vocabulary settings), so it is found again and never mistaken.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

from msgspec import Struct

from nextword.base.errors import CorpusError
from nextword.base.files import cache_folder, write_json
from nextword.base.records import Count, read_json, read_record
from nextword.base.writer import alone
from nextword.corpus.options import HOLDOUT_TOKENS, CorpusSettings
from nextword.corpus.split import Corpus, Part, Scan, Split, plan_split, scan
from nextword.corpus.tally import Tally
from nextword.vocabulary.cuts import parts_for
from nextword.vocabulary.fast import BulkEncoder, DisagreementError, Ids
from nextword.vocabulary.leakage_report import drop_repeats
from nextword.vocabulary.options import VocabularySettings
from nextword.vocabulary.prepared import (
    MANIFEST,
    PROGRESS,
    SIDES,
    Prepared,
    digests_in,
    open_prepared,
    read_manifest,
)
from nextword.vocabulary.scripts import bytes_per_token_by_script
from nextword.vocabulary.shards import ShardWriter
from nextword.vocabulary.source import load_source
from nextword.vocabulary.tokenizer import Vocabulary
from nextword.vocabulary.train import sample_texts, size_for, train_vocabulary

LAYOUT = 3
"""Raised whenever prepared folders of before can no longer be used."""
SHARD_BYTES = 256_000_000
BATCH_PIECES = 64
SCRIPT_CHARACTERS = 10_000
"""Of the training text's first pieces, in which scripts are looked for."""

Report = Callable[[str], None]


def silent(line: str) -> None:
    """Say nothing."""


def prepare(
    corpus: Corpus,
    corpus_settings: CorpusSettings,
    settings: VocabularySettings,
    vocabulary: Vocabulary | None = None,
    report: Report = silent,
    folder: Path | None = None,
) -> Prepared:
    """Turn a corpus into shards, or find those made before.

    Args:
        corpus: the documents.
        corpus_settings: how to split them.
        settings: which vocabulary to learn, or where to take it from.
        vocabulary: use this one instead.
        report: told in a line what is being done.
        folder: where to put the shards (default: a place in the cache, named by their digest).

    Raises:
        CorpusError: the text cannot be read or is too short, or the folder holds something else.
    """
    if vocabulary is None and settings.source is not None:
        vocabulary = load_source(Path(settings.source), as_it_is=settings.as_it_is)
    asked: dict[str, Any] = {"entries_asked": settings.size if vocabulary is None else None}
    found = scan(corpus.pieces())
    split = plan_split(found, corpus_settings, 1 if _is_fine(settings, vocabulary) else 4)
    limit = HOLDOUT_TOKENS if corpus_settings.holdout is None else None
    usual = size_for(found.num_bytes, is_drawn=corpus.is_drawn)
    key = digest_of(found, split, limit, corpus_settings, vocabulary or settings, usual)
    with nullcontext() if folder else _alone(key, report):
        folder = folder or cache_folder() / key
        cached = _claim(folder, key)
        if not cached:
            job = _Job(corpus, split, folder, limit, settings, report, key)
            vocabulary = vocabulary or job.learn(found.num_bytes)
            report(f"encoding {found.num_bytes:,} bytes")
            done = job.encode(vocabulary)
            facts = _facts(corpus, found, vocabulary) | done | asked | {"key": key}
            facts["reading"] = _reading(corpus, found, facts)
            if corpus_settings.drop_duplicates:
                write_json(job.progress, {**job.done, "dropping": True})
                facts |= drop_repeats(folder, vocabulary, done["shards"], report)
            write_json(folder / MANIFEST, {**facts, "digests": digests_in(folder)})
    opened = open_prepared(folder, was_cached=cached)
    # The cache knows a text by its content; it may have been called otherwise then, or have held
    # more that is no text.
    asked["reading"] = _reading(corpus, found, opened.facts)
    return replace(opened, facts={**opened.facts, **asked, "corpus": corpus.name})


@contextmanager
def _alone(key: str, report: Report) -> Iterator[None]:
    """Wait until no other process prepares the same text in the cache.

    Two would write into each other's shards. A process that dies lets go.
    """
    make_folder(cache_folder())
    with alone(
        cache_folder() / f"{key}.lock",
        lambda: report("another process prepares the same text: waiting for it"),
    ):
        yield


def digest_of(
    found: Scan,
    split: Split,
    limit: int | None,
    corpus_settings: CorpusSettings,
    vocabulary: Vocabulary | VocabularySettings,
    usual: int,
) -> str:
    """Name what will be made by all that decides it; by default a vocabulary has the usual size."""
    if isinstance(vocabulary, Vocabulary):
        described: Any = hashlib.blake2b(vocabulary.tokenizer.to_str().encode()).hexdigest()
    else:
        described = {**asdict(vocabulary), "fast": None, "usual": usual}
    parts = [LAYOUT, found.digest, asdict(split), limit, corpus_settings.drop_duplicates, described]
    key = json.dumps(parts, sort_keys=True)
    return hashlib.blake2b(key.encode(), digest_size=12).hexdigest()


def _is_fine(settings: VocabularySettings, vocabulary: Vocabulary | None) -> bool:
    """Whether a token is about a byte long."""
    return vocabulary is None and settings.kind in ("byte", "char")


def _claim(folder: Path, key: str) -> bool:
    """Say whether a folder is ready; make it if it is not there.

    Raises:
        CorpusError: it holds something else.
    """
    if (folder / MANIFEST).is_file():
        if read_manifest(folder).get("key") == key:
            return True
        raise CorpusError(
            f"{folder}: holds another text, or the same prepared with other options; choose "
            "another folder"
        )
    if folder.is_file():
        raise CorpusError(f"{folder}: is a file; name a folder to make")
    # Who was killed while it wrote its first line left that line beside its name.
    begun = [entry for entry in folder.glob("*") if not entry.name.startswith(f".{PROGRESS}.")]
    if begun:
        try:
            began = read_record(folder / PROGRESS, _Progress, CorpusError).key
        except CorpusError:
            began = None
        if began != key:
            raise CorpusError(
                f"{folder}: is not empty and not an unfinished preparation of this text; choose "
                "another folder"
            )
    make_folder(folder)
    return False


def make_folder(folder: Path) -> None:
    """Make a folder and those above it.

    Raises:
        CorpusError: that is not possible.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CorpusError(
            f"{folder}: cannot be made ({error.strerror or error}); choose another folder"
        ) from None


class _Progress(Struct):
    """How far an unfinished preparation has come, as far as it must be trusted."""

    key: str
    has_vocabulary: bool
    pieces: Count
    shards: Count
    train_tokens: Count
    holdout_tokens: Count
    unknown_tokens: Count
    changed: Count
    beyond_limit: Count
    open: dict[str, int | None]
    scripts: dict[str, float]


class _Job:
    """One preparation, from where it stands to its last shard."""

    def __init__(
        self,
        corpus: Corpus,
        split: Split,
        folder: Path,
        limit: int | None,
        settings: VocabularySettings,
        report: Report,
        key: str,
    ) -> None:
        self.corpus, self.split, self.folder, self.limit = corpus, split, folder, limit
        self.settings, self.report = settings, report
        self.progress = folder / PROGRESS
        self.done: dict[str, Any]
        if self.progress.is_file():
            self.done = read_json(self.progress, CorpusError)
            if self.done.get("dropping"):  # interrupted between two files: they fit no more
                self._begin(key, has_vocabulary=True)
        else:
            self._begin(key)

    def _begin(self, key: str, *, has_vocabulary: bool = False) -> None:
        counts = dict.fromkeys(
            (
                *("pieces", "shards", "train_tokens", "holdout_tokens", "unknown_tokens"),
                *("changed", "beyond_limit"),
            ),
            0,
        )
        self.done = {
            "key": key,
            "has_vocabulary": has_vocabulary,
            **counts,
            "open": dict.fromkeys(SIDES),
            "scripts": {},
        }
        write_json(self.progress, self.done)

    def learn(self, num_bytes: int) -> Vocabulary:
        """Learn the vocabulary and save it, or read what an interrupted preparation saved."""
        if self.done["has_vocabulary"]:
            return Vocabulary.load(self.folder)
        self.report("learning the vocabulary")
        parts = self.split.divide(self.corpus.pieces())
        texts = (part.piece.text for part in parts if part.side == "train")
        sample = sample_texts(texts, num_bytes, self.settings)
        drawn = self.corpus.is_drawn
        return train_vocabulary(sample, num_bytes, self.settings, is_drawn=drawn)

    def encode(self, vocabulary: Vocabulary) -> dict[str, Any]:
        """Encode what is left; return what was counted."""
        if not self.done["has_vocabulary"]:
            vocabulary.save(self.folder)
            self.done["has_vocabulary"] = True
            write_json(self.progress, self.done)
        try:
            self._encode(BulkEncoder(vocabulary, fast=self.settings.fast))
        except DisagreementError:
            self.report("the fast encoder gave other ids than tokenizers: beginning again without")
            self._begin(self.done["key"], has_vocabulary=True)
            self._encode(BulkEncoder(vocabulary, fast=False))
        if self.done["train_tokens"] < 2 or self.done["holdout_tokens"] < 1:
            raise CorpusError(
                f"{self.corpus.name}: the text is too short to train on; give more text"
            )
        counted = ("shards", "train_tokens", "holdout_tokens", "unknown_tokens", "beyond_limit")
        kept = (*counted, "scripts")
        reason = _why_withheld(vocabulary, self.done["changed"], self.done["unknown_tokens"])
        return {name: self.done[name] for name in kept} | {"bits_withheld": reason}

    def _encode(self, encoder: BulkEncoder) -> None:
        divided = parts_for(encoder.vocabulary, self.split.divide(self.corpus.pieces()))
        parts = islice(divided, self.done["pieces"], None)
        while (batch := list(islice(parts, BATCH_PIECES))) or not self.done["shards"]:
            if batch and not self.done["pieces"]:
                texts = [part.piece.text for part in batch if part.side == "train"]
                each = SCRIPT_CHARACTERS // max(len(texts), 1)
                self.done["scripts"] = bytes_per_token_by_script(
                    encoder.vocabulary, "".join(text[:each] for text in texts)
                )
            _write_shard(_then(batch, parts), encoder, self.folder, self.limit, self.done)
            write_json(self.progress, self.done)


def _facts(corpus: Corpus, found: Scan, vocabulary: Vocabulary) -> dict[str, Any]:
    return {
        "corpus": corpus.name,
        "digest": found.digest,
        "documents": found.documents,
        "bytes": found.num_bytes,
        "duplicate_documents": found.duplicates,
        "vocabulary": vocabulary.kind,
        "entries": len(vocabulary),
    }


def _reading(corpus: Corpus, found: Scan, facts: dict[str, Any]) -> dict[str, Any]:
    """Return what was not read as it stands."""
    tally = Tally(corpus.tally.records or found.documents, dict(corpus.tally.findings))
    tally.findings |= found.tally.findings
    tally.add("beyond_limit", "the hold-out's end", facts.get("beyond_limit", 0))
    return tally.as_dict()


def _why_withheld(vocabulary: Vocabulary, changed: int, unknown: int) -> str:
    if not changed:
        return ""
    if vocabulary.unknown_id is not None and unknown:
        return "the vocabulary does not hold all of this text, so decoding does not give it back"
    return "decoding with this vocabulary does not give the text back exactly"


def _then(first: list[Part], rest: Iterator[Part]) -> Iterator[list[Part]]:
    """Yield batches, the one already read first."""
    while first:
        yield first
        first = list(islice(rest, BATCH_PIECES))


def _write_shard(
    batches: Iterable[list[Part]],
    encoder: BulkEncoder,
    folder: Path,
    limit: int | None,
    done: dict[str, Any],
) -> None:
    """Write one shard of either side, until it is large enough or the text ends."""
    vocabulary = encoder.vocabulary
    writers = {
        side: ShardWriter(
            folder / f"{side}-{done['shards']:05d}.ds", len(vocabulary), done["open"][side]
        )
        for side in SIDES
    }
    num_bytes = 0
    try:
        for batch in batches:
            texts = [part.piece.text for part in batch]
            for part, ids in zip(batch, encoder.encode(texts), strict=True):
                num_bytes += _add(part, ids, writers[part.side], vocabulary, limit, done)
            done["pieces"] += len(batch)
            if num_bytes >= SHARD_BYTES:
                break
    finally:
        for writer in writers.values():
            writer.close()
    for side, writer in writers.items():
        done[f"{side}_tokens"] += writer.num_tokens
        done["open"][side] = writer.open_bytes
    done["shards"] += 1


def _add(
    part: Part,
    ids: Ids,
    writer: ShardWriter,
    vocabulary: Vocabulary,
    limit: int | None,
    done: dict[str, Any],
) -> int:
    """Append one piece to its side, and count what it holds; return its bytes."""
    text = part.piece.text
    size = len(text.encode("utf-8", "replace"))
    held_out = part.side == "holdout"
    reached = done["holdout_tokens"] + writer.num_tokens + len(ids)
    if held_out and limit is not None and reached >= limit:
        writer.end_document(vocabulary.end_id)
        done["beyond_limit"] += part.piece.is_last
        return size  # dropped, not trained on: it may repeat what is held out
    writer.add(ids, size, vocabulary.end_id if part.piece.is_last else None)
    if vocabulary.unknown_id is not None:
        done["unknown_tokens"] += int((ids == vocabulary.unknown_id).sum())
    if held_out and not vocabulary.is_lossless:
        done["changed"] += vocabulary.decode(ids.tolist()) != text
    return size
