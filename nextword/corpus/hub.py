"""Names on the Hub, pinned to the commit that is read, so that a run can be repeated."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

from nextword.base.errors import CorpusError
from nextword.corpus.formats.dataset import SCHEME as DATASET
from nextword.corpus.packages import import_package, one_line
from nextword.corpus.shares import read_weight

HUB = "hf://"
_MODEL = re.compile(r"(?:hf://)?(?P<name>[\w.-]+/[\w.-]+?)(?:@(?P<revision>[\w./-]+))?")
_PINNED = re.compile(r"hf://datasets/(?P<name>[^/@]+/[^/@]+)@(?P<commit>[0-9a-f]{40})(/.*)?")
_FILES = (".json", ".jsonl", ".txt", ".csv", ".toml", ".safetensors", ".gguf", ".nw", ".ds")
_WEIGHTS = ("*.json", "*.safetensors", "*.jinja")


def pin(path: str) -> str:
    """Return an address on the Hub with the commit that its branch stands at now.

    Args:
        path: any; what is not on the Hub is returned as it is.

    Raises:
        CorpusError: there is no such repository, or it cannot be reached.
    """
    name, weight = read_weight(path)
    if weight is not None:
        return pin(name) + path[len(name) :]
    if path.startswith(HUB):
        return _pin_file(path)
    if path.startswith(DATASET):
        return _pin_dataset(path)
    return path


def _pin_file(address: str) -> str:
    hub = import_package("huggingface_hub", address)
    try:
        found = hub.HfFileSystem().resolve_path(address)
        if not hasattr(found, "repo_id"):  # a bucket, which has no commits
            return address
        commit = _commit(hub, found.repo_id, found.repo_type, found.revision)
    except Exception as error:  # HTTP, sockets, names: they share no kind
        raise CorpusError(f"{address}: cannot be read ({one_line(error)})") from None
    kind = "" if found.repo_type == "model" else f"{found.repo_type}s/"
    inside = f"/{found.path_in_repo}" if found.path_in_repo else ""
    return f"{HUB}{kind}{found.repo_id}@{commit}{inside}"


def _pin_dataset(address: str) -> str:
    name, _, query = address.removeprefix(DATASET).partition("?")
    words = dict(parse_qsl(query, keep_blank_values=True))
    if "/" not in name or Path(name).is_dir() or name.startswith((".", "/")):
        return address
    hub = import_package("huggingface_hub", address)
    try:
        words["revision"] = _commit(hub, name, "dataset", words.get("revision"))
    except hub.errors.OfflineModeIsEnabled:
        return address  # what the cache holds is read
    except Exception as error:
        raise CorpusError(f"{address}: cannot be read ({one_line(error)})") from None
    return f"{DATASET}{name}?{urlencode(words)}"


def _commit(hub: Any, name: str, kind: str, revision: str | None) -> str:
    return str(hub.HfApi().repo_info(name, repo_type=kind, revision=revision).sha)


def model_on_hub(target: str) -> tuple[str, str | None] | None:
    """Take a model's name on the Hub apart: OWNER/NAME or hf://OWNER/NAME, perhaps with @REVISION.

    What may be a path of this machine is none: where its first folder exists, or it names a file.
    """
    found = _MODEL.fullmatch(target)
    is_path = Path(target.split("/")[0]).exists() or Path(target).suffix in _FILES
    if found is None or (is_path and not target.startswith(HUB)):
        return None
    return found["name"], found["revision"]


def fetch_model(name: str, revision: str | None) -> Path:
    """Bring a model folder here, or find the one that was brought before.

    Args:
        name: OWNER/NAME.
        revision: branch, tag or commit; default: the main branch.

    Returns:
        the folder, whose name is the commit.

    Raises:
        CorpusError: there is no such model, it cannot be reached, or the package is missing.
    """
    hub = import_package("huggingface_hub", name)
    try:
        return Path(
            hub.snapshot_download(
                name, revision=revision, allow_patterns=_WEIGHTS, ignore_patterns="*/*"
            )
        )
    except Exception as error:
        raise CorpusError(
            f"{name}: no such folder or run here, and from the Hub it cannot be had "
            f"({one_line(error)})"
        ) from None


def hub_name(folder: Path) -> tuple[str, str] | None:
    """Return the name and the commit of a folder that the Hub's cache holds; None of another."""
    if folder.parent.name != "snapshots" or not folder.parents[1].name.startswith("models--"):
        return None
    return folder.parents[1].name.removeprefix("models--").replace("--", "/", 1), folder.name


def hub_sources(paths: Iterable[str], model: Path | None) -> dict[str, dict[str, str]]:
    """Return what a run took from the Hub, as `pin` and `fetch_model` named it, with its commits.

    Args:
        paths: of its text, pinned.
        model: the folder that it began with.
    """
    found: dict[str, dict[str, str]] = {}
    known = hub_name(model) if model else None
    if known:
        found["models"] = {known[0]: known[1]}
    for path in paths:
        if pinned := _PINNED.fullmatch(path):
            found.setdefault("datasets", {})[pinned["name"]] = pinned["commit"]
        elif path.startswith(DATASET):
            name, _, query = path.removeprefix(DATASET).partition("?")
            if commit := dict(parse_qsl(query)).get("revision"):
                found.setdefault("datasets", {})[name] = commit
    return found
