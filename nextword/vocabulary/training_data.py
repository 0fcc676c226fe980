"""Training data from what the command line names: text, mixtures, shards, datasets.

Paths of text, a built-in corpus, a folder that `nextword prepare` or datatrove made, or several of
these with weights.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from nextword.base.errors import CorpusError
from nextword.base.files import cache_folder, write_json
from nextword.corpus.addresses import is_address
from nextword.corpus.documents import find_files
from nextword.corpus.open import is_builtin, open_corpus
from nextword.corpus.options import CorpusSettings
from nextword.corpus.shares import Share, read_shares
from nextword.corpus.split import Corpus, Scan, Split, plan_split, scan
from nextword.corpus.tally import join_readings
from nextword.vocabulary.encode import Report, make_folder, prepare, silent
from nextword.vocabulary.foreign import open_foreign, shards_in
from nextword.vocabulary.options import VocabularySettings
from nextword.vocabulary.prepared import MANIFEST, Prepared, is_prepared, open_prepared
from nextword.vocabulary.remote import holds_remote_shards, mirror
from nextword.vocabulary.source import load_source
from nextword.vocabulary.tokenizer import Vocabulary
from nextword.vocabulary.train import sample_texts, train_vocabulary


def gather(
    paths: Sequence[str],
    corpus_settings: CorpusSettings,
    settings: VocabularySettings,
    report: Report = silent,
    folder: Path | None = None,
) -> Prepared:
    """Prepare what paths name, or open it where it is ready.

    Args:
        paths: text, prepared folders, or several with weights; none for a built-in corpus.
        corpus_settings: how to read and split.
        settings: which vocabulary.
        report: told in a line what is being done.
        folder: where to put what is prepared (default: in the cache).

    Raises:
        CorpusError: something cannot be read, or does not fit together.
    """
    # A path folds the two strokes of an address into one; a drive's name is one letter.
    if folder is not None and folder.parts and re.fullmatch(r"\w{2,}:", folder.parts[0]):
        raise CorpusError(f"{folder}: shards are written to a folder of this machine; name one")
    shares = read_shares(paths)
    if shares:
        return _Mix(shares, corpus_settings, settings, report).prepare(folder)
    ready = [path for path in paths if holds_shards(path)]
    if ready and (len(paths) > 1 or folder is not None):
        raise CorpusError(
            f"{ready[0]}: is prepared already; to train on several texts give each a weight, as in "
            f"{ready[0]}=1 other.txt=1"
        )
    if ready:
        return open_ready(ready[0], corpus_settings, settings)
    corpus = open_corpus(paths, corpus_settings)
    return prepare(corpus, corpus_settings, settings, report=report, folder=folder)


def check_paths(paths: Sequence[str]) -> None:
    """Refuse what is not there, before anything heavy is imported or read.

    Raises:
        CorpusError: a path does not exist, or holds nothing that can be read.
    """
    for path in [share.path for share in read_shares(paths)] or paths:
        if not is_builtin(path) and not holds_shards(path):
            find_files([path])


def holds_shards(path: str) -> bool:
    """Whether a path or address is a folder of prepared text or of shards made elsewhere."""
    if is_address(path):
        return holds_remote_shards(path)
    folder = Path(path)
    if not folder.is_dir() or is_prepared(folder) or any(folder.glob("*.ds")):
        return folder.is_dir()
    if not shards_in(folder):
        return False
    try:
        find_files([path])  # text with shards somewhere below it is text
    except CorpusError:
        return True
    return False


def open_ready(
    path: str, corpus_settings: CorpusSettings, settings: VocabularySettings
) -> Prepared:
    """Open a folder of shards.

    Raises:
        CorpusError: it is damaged, or a vocabulary was asked for that is not its own.
    """
    if is_address(path):
        mirrored = mirror(path)
        try:
            prepared = open_ready(str(mirrored), corpus_settings, settings)
            name = path.rstrip("/").rpartition("/")[2]
            known = prepared.facts["corpus"]
            facts = {**prepared.facts, "corpus": name if known == mirrored.name else known}
            return replace(prepared, facts=facts)
        except CorpusError as error:  # it is the address that something is wrong with
            raise CorpusError(str(error).replace(str(mirrored), path)) from None
    folder = Path(path)
    if not is_prepared(folder):
        return open_foreign(folder, settings.source, corpus_settings)
    prepared = open_prepared(folder)
    check_same(path, prepared, settings)
    return prepared


def check_same(path: str, prepared: Prepared, settings: VocabularySettings) -> None:
    """Refuse text that was prepared with another vocabulary than the one asked for.

    Raises:
        CorpusError: it was.
    """
    if settings.source is None:
        return
    asked = load_source(Path(settings.source), as_it_is=settings.as_it_is)
    known = prepared.vocabulary
    same = asked.tokenizer.get_vocab(with_added_tokens=True) == known.tokenizer.get_vocab(
        with_added_tokens=True
    )
    if not same or asked.end_id != known.end_id:
        raise CorpusError(
            f"{path}: was prepared with another vocabulary than that of {settings.source}; prepare "
            "the text again with --vocabulary.source and that folder"
        )


class _Raw(NamedTuple):
    """A text of a mixture that is not prepared yet."""

    corpus: Corpus
    found: Scan
    split: Split
    weight: float


class _Mix:
    """Several texts with weights, one vocabulary."""

    def __init__(
        self,
        shares: Sequence[Share],
        corpus_settings: CorpusSettings,
        settings: VocabularySettings,
        report: Report,
    ) -> None:
        self.shares, self.corpus_settings, self.settings = shares, corpus_settings, settings
        self.report = report
        self.ready: dict[str, Prepared] = {}
        self.raw: dict[str, _Raw] = {}
        for share in shares:
            if holds_shards(share.path):
                self.ready[share.path] = opened = open_ready(share.path, corpus_settings, settings)
                if len(opened.portions) > 1:
                    raise CorpusError(
                        f"{share.path}: is a mixture itself; name its texts one by one"
                    )
            else:
                corpus = open_corpus([share.path], corpus_settings)
                found = scan(corpus.pieces())
                split = plan_split(found, corpus_settings)
                self.raw[share.path] = _Raw(corpus, found, split, share.weight)

    def prepare(self, folder: Path | None) -> Prepared:
        """Prepare what is not ready, and write down what belongs together."""
        folder = folder or cache_folder() / self._digest()
        if is_prepared(folder):
            opened = open_prepared(folder)
            if opened.facts.get("key") != self._digest():
                raise CorpusError(f"{folder}: holds another text; choose another folder")
            return opened
        if folder.exists() and not (folder / "tokenizer.json").is_file() and any(folder.iterdir()):
            raise CorpusError(f"{folder}: is not empty; choose another folder")
        make_folder(folder)
        vocabulary = self._vocabulary(folder)
        vocabulary.save(folder)
        parts = []
        for number, share in enumerate(self.shares):
            place = f"portion-{number}"
            if share.path in self.ready:
                part = self.ready[share.path]
                place = str(part.folder.absolute())
            else:
                self.report(f"preparing {share.path}")
                part = prepare(
                    self.raw[share.path].corpus,
                    self.corpus_settings,
                    self.settings,
                    vocabulary,
                    self.report,
                    folder / place,
                )
            parts.append((share, place, part))
        write_json(folder / MANIFEST, self._facts(parts))
        return open_prepared(folder, was_cached=False)

    def _digest(self) -> str:
        entries = [
            [
                share.path,
                share.weight,
                str(self.ready[share.path].facts.get("key") or self.ready[share.path].folder)
                if share.path in self.ready
                else self.raw[share.path].found.digest,
            ]
            for share in self.shares
        ]
        described = [entries, repr(self.corpus_settings), repr(replace(self.settings, fast=True))]
        return hashlib.blake2b(json.dumps(described).encode(), digest_size=12).hexdigest()

    def _vocabulary(self, folder: Path) -> Vocabulary:
        if self.ready:
            return self._shared_vocabulary()
        if self.settings.source is not None:
            return load_source(Path(self.settings.source), as_it_is=self.settings.as_it_is)
        if (folder / "tokenizer.json").is_file():  # from a preparation that was interrupted
            return Vocabulary.load(folder)
        self.report("learning one vocabulary for all")
        num_bytes = sum(raw.found.num_bytes for raw in self.raw.values())
        return train_vocabulary(self._samples(), num_bytes, self.settings)

    def _shared_vocabulary(self) -> Vocabulary:
        first, *others = self.ready.items()
        for path, other in others:
            if other.vocabulary.tokenizer.to_str() != first[1].vocabulary.tokenizer.to_str():
                raise CorpusError(
                    f"{path} and {first[0]} were prepared with different vocabularies; prepare "
                    "one again with --vocabulary.source and the other's folder"
                )
        return first[1].vocabulary

    def _samples(self) -> Iterator[str]:
        """Yield each text's sample, as large as its weight says."""
        total = sum(raw.weight for raw in self.raw.values())
        for raw in self.raw.values():
            size = int(self.settings.sample_bytes * raw.weight / total)
            settings = replace(self.settings, sample_bytes=max(size, 1))
            parts = raw.split.divide(raw.corpus.pieces())
            texts = (part.piece.text for part in parts if part.side == "train")
            yield from sample_texts(texts, raw.found.num_bytes, settings)

    def _facts(self, parts: Sequence[tuple[Share, str, Prepared]]) -> dict[str, Any]:
        facts = [part.facts for _, _, part in parts]

        def total(name: str) -> int:
            return sum(found.get(name) or 0 for found in facts)

        reasons = [part.bits_withheld for _, _, part in parts if part.bits_withheld]
        scripts: dict[str, float] = {}
        for found in facts:
            scripts = {**(found.get("scripts") or {}), **scripts}
        counted = ("documents", "bytes", "duplicate_documents")
        tokens = ("train_tokens", "holdout_tokens", "unknown_tokens", "dropped_tokens")
        return {
            "corpus": " + ".join(Path(share.path).name or share.path for share in self.shares),
            "key": self._digest(),
            **{name: total(name) for name in (*counted, *tokens)},
            "vocabulary": facts[0]["vocabulary"],
            "entries": facts[0]["entries"],
            "entries_asked": None if self.ready or self.settings.source else self.settings.size,
            "scripts": scripts,
            "reading": join_readings([found.get("reading") for found in facts]),
            "bits_withheld": reasons[0] if reasons else "",
            "portions": [
                {
                    "name": share.path,
                    "weight": share.weight,
                    "folder": place,
                    "train_tokens": len(part.train),
                }
                for share, place, part in parts
            ],
        }
