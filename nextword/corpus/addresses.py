"""Remote files through fsspec: s3://, hf://, https:// and all the other addresses it knows.

An address is a path with "://" in it. What is found is named by its full address again.
"""

import contextlib
import glob
import io
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any, NamedTuple
from urllib.parse import urlsplit

from nextword.base.errors import CorpusError
from nextword.corpus.packages import import_package, missing_package, one_line

BUFFER_BYTES = 1 << 20


def is_address(path: str) -> bool:
    """Say whether a path is an address."""
    return "://" in path


def file_name(path: str) -> str:
    """Return the part of a path or address whose end tells the format.

    Of a chain ("zip://a.txt::s3://bucket/b.zip") the first link; of a web address what stands
    before its query.
    """
    if not is_address(path):
        return path
    _, link, _ = _links(path)
    return urlsplit(link).path if link.startswith(("http://", "https://")) else link


def find_at(address: str, is_readable: Callable[[str], bool]) -> list[str]:
    """Resolve an address to files: itself, a folder's readable files (recursively), or a glob's.

    Args:
        address: of a file or folder, or a glob.
        is_readable: says of a name whether a folder's file of that name is taken.

    Raises:
        CorpusError: there is nothing, it cannot be reached, or a package is missing.
    """
    with _reported(address):
        system, inner = _open_system(address)
        kind = _kind(system, inner)
        if kind == "file":
            return [address]
        if kind == "folder":
            names = [
                name for name in system.find(inner) if is_readable(_full(address, inner, name))
            ]
        elif glob.has_magic(inner):
            matches = system.glob(inner, detail=True)
            names = [name for name, info in matches.items() if info["type"] != "directory"]
            if not names:
                raise CorpusError(f"{address}: no file matches this pattern")
        else:
            raise FileNotFoundError
        return sorted(_full(address, inner, name) for name in names)


def open_address(address: str) -> IO[bytes]:
    """Open the file at an address, to be read from its start to its end.

    Raises:
        CorpusError: it is not there, cannot be reached, or a package is missing; also later, where
            reading on fails.
    """
    with _reported(address):
        system, inner = _open_system(address)
        stream = system.open(inner, "rb")
        return io.BufferedReader(_Remote(address, system, stream), BUFFER_BYTES)


class Listed(NamedTuple):
    """A file at an address."""

    address: str
    size: int
    """Bytes."""
    version: str
    """What its place says that changes when it does; "" where it says nothing."""


VERSIONS = (
    *("ETag", "etag", "sha256", "sha", "blob_id", "lfs", "mtime", "LastModified"),
    *("last_modified", "created"),
)
"""What drivers call that."""
WEB = ("http://", "https://")
"""Places whose folders are pages: to look into one is to follow what links there are."""


def names_in_folder(address: str) -> list[str]:
    """List the names in a folder at an address; nothing where there is none, or it is a page.

    Raises:
        CorpusError: it cannot be reached, or a package is missing.
    """
    if address.startswith(WEB) or glob.has_magic(address) or "::" in address:
        return []
    with _reported(address):
        system, inner = _open_system(address)
        if _kind(system, inner) != "folder":
            return []
        return [str(name).rstrip("/").rpartition("/")[2] for name in system.ls(inner, detail=False)]


def list_files(address: str) -> dict[str, Listed]:
    """List the files below a folder at an address, by their names from there on.

    Raises:
        CorpusError: it cannot be reached, a package is missing, the place does not say how large a
            file is, or a name would lead out of the folder.
    """
    with _reported(address):
        system, inner = _open_system(address)
        below = inner.strip("/") + "/"
        listed = {}
        for full, info in system.find(inner, detail=True).items():
            name = full.lstrip("/").removeprefix(below)
            if not name or name.endswith("/"):  # what stands for the folder itself
                continue
            if not full.lstrip("/").startswith(below) or not _stays_below(name):
                raise CorpusError(f"{address}: holds {full!r}, which leads out of it")
            if info.get("size") is None:
                raise CorpusError(f"{address}: does not say how large {name} is; copy it to a disk")
            version = next((str(info[key]) for key in VERSIONS if info.get(key)), "")
            listed[name] = Listed(_full(address, inner, full), int(info["size"]), version)
        return dict(sorted(listed.items()))


def _stays_below(name: str) -> bool:
    """Whether a name, joined to a folder's path on any system, is a place below that folder."""
    parts = name.split("/")
    return not any(part in ("", ".", "..") or set(part) & set("\\:") for part in parts)


def read_ranges(parts: Sequence[tuple[str, int, int]]) -> list[bytes]:
    """Read parts of files at addresses, several at once where the driver knows how.

    Args:
        parts: of each its address and the first byte and the one after its last; all of one kind
            of place.

    Raises:
        CorpusError: one cannot be read, or is shorter than that.
    """
    if not parts:
        return []
    with _reported(parts[0][0]):
        places = [_open_system(address) for address, _, _ in parts]
        system, inner = places[0][0], [one for _, one in places]
        starts, stops = [part[1] for part in parts], [part[2] for part in parts]
        # Whatever is asked for, some versions return what went wrong among the results.
        found: list[Any] = system.cat_ranges(inner, starts, stops, on_error="return")
    for (address, start, stop), data in zip(parts, found, strict=True):
        with _reported(address):
            if isinstance(data, BaseException):
                raise data
        if len(data) != stop - start:
            raise CorpusError(
                f"{address}: gave {len(data):,} of the {stop - start:,} bytes from {start:,} on; "
                "it is shorter than it was"
            )
    return found


class _Remote(io.RawIOBase):
    """A driver's stream, whose every failure is one clear line."""

    def __init__(self, address: str, system: Any, stream: Any) -> None:
        # An archive's driver closes the archive when nobody holds the driver any more.
        self._address, self._system, self._stream = address, system, stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with _reported(self._address):
            block = self._stream.read(len(buffer))
        buffer[: len(block)] = block
        return len(block)

    def close(self) -> None:
        self._stream.close()
        super().close()


def _open_system(address: str) -> tuple[Any, str]:
    system, inner = import_package("fsspec.core", address).url_to_fs(address)
    return system, inner


def _kind(system: Any, inner: str) -> str:
    """Return "file", "folder", or "" where there is nothing of that name."""
    try:
        info = system.info(inner)
    except Exception as error:
        # Drivers refuse a pattern's letters in ways of their own; whatever else is wrong, the
        # pattern's own look-up says next.
        if isinstance(error, FileNotFoundError) or glob.has_magic(inner):
            return ""
        raise
    return "folder" if info["type"] == "directory" else "file"


def _links(address: str) -> tuple[str, str, str]:
    """Take a chain apart: what stands before its first link that names a place, that link, rest."""
    links = address.split("::")
    place = next(number for number, link in enumerate(links) if is_address(link))
    before, rest = links[:place], links[place + 1 :]
    return "".join(f"{link}::" for link in before), links[place], "".join(f"::{x}" for x in rest)


def _full(address: str, inner: str, name: str) -> str:
    """Write a name that the driver found as an address like the one it was found through.

    The driver's own way back loses the host of sftp:// and the branch of github://, so what it took
    off the front of the address is put back.
    """
    before, link, rest = _links(address)
    link, inner = link.rstrip("/"), inner.rstrip("/")
    if inner and link.endswith(inner):
        return f"{before}{link[: -len(inner)]}{name}{rest}"
    scheme = link.partition("://")[0]
    return f"{before}{scheme}://{name}{rest}"


@contextlib.contextmanager
def _reported(address: str) -> Iterator[None]:
    """Turn whatever a driver raises into one line: every driver has errors of its own."""
    try:
        yield
    except CorpusError:
        raise
    except ImportError as error:
        raise missing_package(address, f"a package ({one_line(error)})") from None
    except FileNotFoundError:
        # What the web's driver says of a host without a road to it, too.
        raise CorpusError(
            f"{address}: no such file or folder can be reached; check the spelling and the network"
        ) from None
    except PermissionError:
        raise CorpusError(f"{address}: no permission to read this; check your access") from None
    except Exception as error:
        raise CorpusError(
            f"{address}: cannot be read ({one_line(error)}); check the address and your access"
        ) from None
