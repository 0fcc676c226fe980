"""Shards that lie at an address, as s3://bucket/shards: read by ranges, never as a whole.

A small folder of the cache holds all but their tokens (manifest, vocabulary, indexes); beside each
index a file that ends in .at says where the tokens lie. What a step reads is asked for at once.
"""

import hashlib
import json
import os
import shutil
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import Annotated, Any, NamedTuple

import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from nextword.base.errors import CorpusError
from nextword.base.files import cache_folder, publish
from nextword.base.records import Count, read_json, read_record
from nextword.corpus.addresses import (
    Listed,
    is_address,
    list_files,
    names_in_folder,
    read_ranges,
)

AT = ".at"
SHARD = ".ds"
MANIFEST, TOKENIZER = "manifest.json", "tokenizer.json"
HELD_OUT = "holdout-"
"""How shards begin that are read again and again, and are small: they are fetched whole."""
SMALL = (".json", ".txt", ".model", ".index", ".bytes")
"""How files end that are fetched whole."""
BLOCK_BYTES, BLOCKS = 1 << 20, 64
"""What is read where nothing was asked for ahead, and how many of them are kept."""
MOST_AHEAD = 1 << 14


class _At(Struct):
    """Where a shard's tokens lie."""

    address: Annotated[str, Meta(max_length=1 << 14)]
    size: Count
    """Bytes."""


class Wanted(NamedTuple):
    """A part of a shard, in tokens."""

    tokens: "RemoteTokens"
    start: int
    stop: int


class RemoteTokens:
    """The tokens of a shard that lies at an address; what of a mapped one is used, is there too."""

    def __init__(self, file: Path, kind: np.dtype[np.unsignedinteger]) -> None:
        """Look where they are.

        Args:
            file: the shard, as it would be called here; what lies beside it says where it is.
            kind: of a token.

        Raises:
            CorpusError: that is damaged.
        """
        self.at = read_record(Path(f"{file}{AT}"), _At, CorpusError)
        self.filename, self.dtype = self.at.address, kind
        self._ahead: dict[tuple[int, int], bytes] = {}
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._lock = Lock()  # whoever reads batches, and whoever counts

    def __len__(self) -> int:
        """Count the tokens."""
        return self.at.size // self.dtype.itemsize

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Return tokens start to stop.

        Raises:
            CorpusError: they cannot be read.
        """
        data = self._ahead.pop((start, stop), None)
        if data is None:
            size = self.dtype.itemsize
            data = self._from_blocks(start * size, stop * size)
        return np.frombuffer(data, dtype=self.dtype)

    def _from_blocks(self, start: int, stop: int) -> bytes:
        """Read bytes by whole blocks, the last of which are kept."""
        numbers = range(start // BLOCK_BYTES, -(-stop // BLOCK_BYTES))
        with self._lock:
            here = {number: self._blocks[number] for number in numbers if number in self._blocks}
        missing = [number for number in numbers if number not in here]
        asked = [
            (self.filename, n * BLOCK_BYTES, min((n + 1) * BLOCK_BYTES, self.at.size))
            for n in missing
        ]
        here.update(zip(missing, read_ranges(asked), strict=True))
        with self._lock:
            for number in numbers:
                self._blocks[number] = here[number]
                self._blocks.move_to_end(number)
            while len(self._blocks) > BLOCKS:
                self._blocks.popitem(last=False)
        first = numbers.start * BLOCK_BYTES
        return b"".join(here[number] for number in numbers)[start - first : stop - first]

    def keep(self, start: int, stop: int, data: bytes) -> None:
        """Keep what was asked for ahead until it is read, once."""
        if len(self._ahead) >= MOST_AHEAD:  # nobody came for it
            self._ahead.clear()
        self._ahead[start, stop] = data


def ask_ahead(wanted: Iterable[Wanted]) -> None:
    """Read parts of shards, all at once, for who reads them next.

    Raises:
        CorpusError: one cannot be read.
    """
    each = list(dict.fromkeys(wanted))
    asked = [
        (one.tokens.filename, one.start * size, one.stop * size)
        for one in each
        for size in (one.tokens.dtype.itemsize,)
    ]
    for one, data in zip(each, read_ranges(asked), strict=True):
        one.tokens.keep(one.start, one.stop, data)


def is_remote(file: Path) -> bool:
    """Whether a shard lies at an address, by what `mirror` has written into the cache."""
    if file.exists() or not Path(f"{file}{AT}").is_file():
        return False
    return file.resolve().is_relative_to(cache_folder().resolve())


def holds_remote_shards(path: str) -> bool:
    """Whether an address is a folder of shards.

    Raises:
        CorpusError: it cannot be reached.
    """
    if not is_address(path):
        return False
    names = names_in_folder(path)
    return any(name.endswith(SHARD) for name in names) or {MANIFEST, TOKENIZER} <= {*names}


def mirror(address: str) -> Path:
    """Fetch all of a folder of shards but its tokens.

    Returns:
        a folder of the cache: another one, should anything there have changed.

    Raises:
        CorpusError: it cannot be reached, or says that its shards lie elsewhere.
    """
    found = list_files(address)
    known = [[name, *one] for name, one in found.items()]
    digest = hashlib.blake2b(json.dumps(known).encode(), digest_size=12).hexdigest()
    folder = cache_folder() / digest
    if not folder.is_dir():
        # Aside first: another process may do the same, and one that is killed leaves half of it.
        aside = folder.with_name(f".{digest}.{os.getpid()}")
        shutil.rmtree(aside, ignore_errors=True)
        try:
            _write(found, aside, address)
            publish(aside, folder)
        except OSError:
            if not folder.is_dir():  # nobody else was first
                raise
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return folder


def _write(found: dict[str, Listed], folder: Path, address: str) -> None:
    """Write what is fetched whole, and of the rest where it lies."""
    small = {name: one for name, one in found.items() if _is_small(name)}
    full = [(one.address, 0, one.size) for one in small.values() if one.size]
    data = iter(read_ranges(full))
    folder.mkdir(parents=True)
    for name, one in found.items():
        if name in small:
            file, content = folder / name, next(data) if one.size else b""
        elif name.endswith(SHARD):
            where = {"address": one.address, "size": one.size}
            file, content = folder / f"{name}{AT}", json.dumps(where).encode()
        else:
            continue
        if not file.resolve().is_relative_to(folder.resolve()):
            raise CorpusError(f"{address}: holds {name!r}, which leads out of it")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    _refuse_elsewhere(folder, address)


def _is_small(name: str) -> bool:
    last = PurePosixPath(name).name
    return last.endswith(SMALL) or (last.startswith(HELD_OUT) and last.endswith(SHARD))


def _refuse_elsewhere(folder: Path, address: str) -> None:
    """Refuse a manifest that names files of the machine where it was written."""
    for file in folder.rglob(MANIFEST):
        facts = read_json(file, CorpusError)
        portions: Sequence[Any] = (facts.get("portions") if isinstance(facts, dict) else None) or ()
        places = [one.get("folder", "") for one in portions if isinstance(one, dict)]
        if (isinstance(facts, dict) and facts.get("files")) or any(
            str(place).startswith("/") or ".." in str(place) for place in places
        ):
            raise CorpusError(
                f"{address}: its {MANIFEST} names shards on the machine that wrote it; put those "
                "there, or prepare the text into one folder with -o"
            )
