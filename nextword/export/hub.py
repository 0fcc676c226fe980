"""Push a model to the Hub, or to whatever speaks as it does (`HF_ENDPOINT`), with a card."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import xxhash

from nextword.base.errors import RunError, SettingsError
from nextword.base.files import publish, refuse_runs_own
from nextword.corpus.packages import import_package, one_line
from nextword.export.card import CARD, Card, card_files
from nextword.prediction.loading import find_model_folder
from nextword.training.vouched import STATE

_MARK = re.compile(r"\n<!-- written by nextword [0-9a-f]{16}; a card that was edited stays -->\n\Z")


def signed(text: str) -> str:
    """End a card with a mark by which it is known whether somebody has edited it since."""
    digest = xxhash.xxh3_64(text.encode()).hexdigest()
    return f"{text}\n<!-- written by nextword {digest}; a card that was edited stays -->\n"


def was_edited(text: str) -> bool:
    """Whether a card is not as this program wrote it."""
    found = _MARK.search(text)
    return found is None or signed(text[: found.start()]) != text


def gather(
    target: str, card: Card, *, whole: bool, say: Callable[[str], None] = lambda _: None
) -> dict[str, bytes | Path]:
    """Return what will be pushed, by its name there: the model folder, the card, its picture.

    Args:
        target: a run, RUN@500 or a model folder.
        card: of the same model.
        whole: the state of training too, so that it can be gone on with.
        say: tells the user what is left as it is.
    """
    folder = find_model_folder(target)[0]
    files: dict[str, bytes | Path] = {
        file.relative_to(folder).as_posix(): file
        for file in sorted(folder.rglob("*"))
        if file.is_file() and (whole or file.relative_to(folder).parts[0] != STATE)
    }
    own = folder / CARD
    if own.is_file() and was_edited(own.read_text(encoding="utf-8", errors="replace")):
        say(f"{own}: somebody's own card, which is pushed as it is")
        return files
    for name, text in card_files(card):
        files[name] = (signed(text) if name == CARD else text).encode("utf-8")
    return files


def write_copy(files: dict[str, bytes | Path], folder: Path) -> None:
    """Write what would be pushed into a new folder, and send nothing.

    Raises:
        RunError: there is something of that name, or it cannot be written.
    """
    if folder.exists():
        raise RunError(f"{folder}: is there already; name a folder to be made")
    refuse_runs_own(folder)
    aside = folder.with_name(f".{folder.name}.aside")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        for name, content in files.items():
            file = aside / name
            file.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, Path):
                shutil.copyfile(content, file)
            else:
                file.write_bytes(content)
        publish(aside, folder)
    except OSError as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise RunError(f"{folder}: cannot be written ({error.strerror})") from None


def push(
    files: dict[str, bytes | Path],
    repository: str,
    *,
    private: bool,
    revision: str | None,
    say: Callable[[str], None],
) -> str:
    """Make a repository, if there is none, and commit the files to it at once.

    Args:
        files: by their names there.
        repository: OWNER/NAME.
        private: where it is made now, let nobody else see it.
        revision: branch; default: the main one.
        say: tells the user what is left as it is.

    Returns:
        the address of the commit.

    Raises:
        SettingsError: the name is none, or the package is missing.
        RunError: the Hub refused, or cannot be reached; a commit is whole or is none.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise SettingsError(f"{repository!r} is no name of a repository; write OWNER/NAME")
    hub = import_package("huggingface_hub", repository)
    try:
        api = hub.HfApi()
        api.create_repo(repository, private=private or None, exist_ok=True)
        if revision is not None:
            api.create_branch(repository, branch=revision, exist_ok=True)
        if (theirs := _card_there(api, repository, revision)) is not None and was_edited(theirs):
            say(f"the card there was edited, so it stays; {CARD} is not pushed")
            files = {name: content for name, content in files.items() if name != CARD}
        done = api.create_commit(
            repository,
            operations=[hub.CommitOperationAdd(*one) for one in files.items()],
            commit_message="Push by nextword",
            revision=revision,
        )
    except Exception as error:  # HTTP, sockets, tokens, names: they share no kind
        words = f"{one_line(error)}){_hint(error)}"
        raise RunError(f"{repository}: cannot be pushed ({words}") from None
    return str(done.commit_url)


def _card_there(api: Any, repository: str, revision: str | None) -> str | None:
    if not api.file_exists(repository, CARD, revision=revision):
        return None
    file = api.hf_hub_download(repository, CARD, revision=revision)
    return Path(file).read_text(encoding="utf-8", errors="replace")


def _hint(error: Exception) -> str:
    words = f"{type(error).__name__} {error}"
    if any(sign in words for sign in ("401", "403", "LocalToken", "token")):
        return "; log in with `hf auth login`, or set HF_TOKEN to a token that may write"
    return ""
