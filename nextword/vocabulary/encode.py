"""Prepare a corpus once.

Scan it, learn its vocabulary, encode it into memory-mapped shards, and keep them.

Encoding streams, on all cores, and finishes one shard at a time; what is finished stands in
`progress.json`, so that an interrupted preparation goes on at the next shard. The folder is named
by the digest of all that decides its content (text, split, vocabulary settings), so it is found
again and never mistaken.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from nextword.base.errors import CorpusError
from nextword.base.files import cache_folder, write_json
from nextword.corpus.options import HOLDOUT_TOKENS, CorpusSettings
from nextword.corpus.split import Corpus, Part, Side, Split, plan_split, scan
from nextword.vocabulary.options import VocabularySettings
from nextword.vocabulary.shards import ShardWriter, TokenStream
from nextword.vocabulary.tokenizer import Vocabulary
from nextword.vocabulary.train import sample_texts, train_vocabulary

LAYOUT = 1
"""Raised whenever prepared folders of before can no longer be used."""
SHARD_BYTES = 256_000_000
BATCH_PIECES = 64
SIDES: tuple[Side, ...] = ("train", "holdout")


@dataclass(frozen=True)
class Prepared:
    """A corpus ready to train on."""

    folder: Path
    vocabulary: Vocabulary
    train: TokenStream
    holdout: TokenStream
    facts: dict[str, Any]
    """Documents, bytes, duplicates and tokens, as a run writes them down."""
    was_cached: bool

    @property
    def bits_withheld(self) -> str:
        """Why bits per byte would not be true here; empty where they are."""
        if self.vocabulary.is_lossless or not self.facts["unknown_tokens"]:
            return ""
        return "the vocabulary does not hold all characters of this text"


def prepare(
    corpus: Corpus,
    corpus_settings: CorpusSettings,
    settings: VocabularySettings,
    vocabulary: Vocabulary | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> Prepared:
    """Turn a corpus into shards, or find those made before.

    Args:
        corpus: the documents.
        corpus_settings: how to split them.
        settings: which vocabulary to learn.
        vocabulary: use this one instead.
        report: told in a line what is being done.

    Raises:
        CorpusError: the text cannot be read or is too short.
    """
    found = scan(corpus.pieces())
    split = plan_split(found, corpus_settings, 4 if settings.kind == "bpe" or vocabulary else 1)
    limit = HOLDOUT_TOKENS if corpus_settings.holdout is None else None
    given = (
        hashlib.blake2b(vocabulary.tokenizer.to_str().encode()).hexdigest()
        if vocabulary
        else asdict(settings)
    )
    facts: dict[str, Any] = {
        "corpus": corpus.name,
        "digest": found.digest,
        "documents": found.documents,
        "bytes": found.num_bytes,
        "duplicate_documents": found.duplicates,
        "replaced_characters": found.replaced if corpus_settings.errors == "replace" else 0,
    }
    key = json.dumps([LAYOUT, found.digest, asdict(split), limit, given], sort_keys=True)
    folder = cache_folder() / hashlib.blake2b(key.encode(), digest_size=12).hexdigest()
    cached = (folder / "manifest.json").is_file()
    if not cached:
        folder.mkdir(parents=True, exist_ok=True)
        vocabulary = vocabulary or _learn(corpus, split, found.num_bytes, settings, folder, report)
        report(f"encoding {found.num_bytes:,} bytes")
        _encode(corpus, split, vocabulary, folder, limit, facts)
    return open_prepared(folder, was_cached=cached)


def open_prepared(folder: Path, *, was_cached: bool = True) -> Prepared:
    """Open a prepared folder.

    Raises:
        CorpusError: it is not there, or not whole.
    """
    manifest = folder / "manifest.json"
    if not manifest.is_file():
        raise CorpusError(f"{folder}: no prepared text here; run train on the text again")
    facts = json.loads(manifest.read_text(encoding="utf-8"))
    vocabulary = Vocabulary.load(folder)
    streams = {
        side: TokenStream(
            [folder / f"{side}-{number:05d}.ds" for number in range(facts["shards"])],
            len(vocabulary),
            vocabulary.end_id,
        )
        for side in SIDES
    }
    return Prepared(folder, vocabulary, streams["train"], streams["holdout"], facts, was_cached)


def _learn(
    corpus: Corpus,
    split: Split,
    num_bytes: int,
    settings: VocabularySettings,
    folder: Path,
    report: Callable[[str], None],
) -> Vocabulary:
    """Learn the vocabulary and save it, or read what an interrupted preparation saved."""
    if (folder / "progress.json").is_file():
        return Vocabulary.load(folder)
    report("learning the vocabulary")
    texts = (part.piece.text for part in split.divide(corpus.pieces()) if part.side == "train")
    vocabulary = train_vocabulary(sample_texts(texts, num_bytes, settings), num_bytes, settings)
    vocabulary.save(folder)
    return vocabulary


def _encode(
    corpus: Corpus,
    split: Split,
    vocabulary: Vocabulary,
    folder: Path,
    limit: int | None,
    facts: dict[str, Any],
) -> None:
    progress = folder / "progress.json"
    if progress.is_file():
        done = json.loads(progress.read_text(encoding="utf-8"))
    else:
        vocabulary.save(folder)
        done = {
            "pieces": 0,
            "shards": 0,
            "train_tokens": 0,
            "holdout_tokens": 0,
            "unknown_tokens": 0,
        }
        write_json(progress, done)
    parts = islice(split.divide(corpus.pieces()), done["pieces"], None)
    while (batch := list(islice(parts, BATCH_PIECES))) or not done["shards"]:
        _write_shard(_then(batch, parts), vocabulary, folder, limit, done)
        write_json(progress, done)
    if done["train_tokens"] < 2 or done["holdout_tokens"] < 1:
        raise CorpusError(f"{corpus.name}: the text is too short to train on; give more text")
    write_json(
        folder / "manifest.json",
        {**facts, **done, "vocabulary": vocabulary.kind, "entries": len(vocabulary)},
    )


def _then(first: list[Part], rest: Iterator[Part]) -> Iterator[list[Part]]:
    """Yield batches, the one already read first."""
    while first:
        yield first
        first = list(islice(rest, BATCH_PIECES))


def _write_shard(
    batches: Iterable[list[Part]],
    vocabulary: Vocabulary,
    folder: Path,
    limit: int | None,
    done: dict[str, int],
) -> None:
    """Write one shard of either side; end it at a document's end once it is large enough."""
    writers = {
        side: ShardWriter(folder / f"{side}-{done['shards']:05d}.ds", len(vocabulary))
        for side in SIDES
    }
    unknown = vocabulary.unknown_id
    num_bytes = 0
    for batch in batches:
        all_ids = vocabulary.encode_many([part.piece.text for part in batch])
        for part, ids in zip(batch, all_ids, strict=True):
            writer = writers[part.side]
            size = len(part.piece.text.encode("utf-8", "replace"))
            num_bytes += size
            full = part.side == "holdout" and limit is not None
            if full and done["holdout_tokens"] + writer.num_tokens + len(ids) >= limit:  # type: ignore[operator]
                writer.end_document(vocabulary.end_id)
                continue  # dropped, not trained on: it may repeat what is held out
            writer.add(ids, size, vocabulary.end_id if part.piece.is_last else None)
            if unknown is not None:
                done["unknown_tokens"] += ids.count(unknown)
        done["pieces"] += len(batch)
        if num_bytes >= SHARD_BYTES and batch[-1].piece.is_last:
            break
    for side, writer in writers.items():
        writer.close()
        done[f"{side}_tokens"] += writer.num_tokens
    done["shards"] += 1
