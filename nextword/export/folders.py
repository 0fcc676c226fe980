"""A folder for another program, written whole or not at all."""

import shutil
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError

from nextword.base.errors import RunError
from nextword.base.files import publish, refuse_runs_own


def check_folder(output: Path, mark: str, kind: str, *, force: bool) -> None:
    """Refuse a folder that is in the way.

    Args:
        output: the folder to make.
        mark: a file in it by which its kind is known: with `force` only such folders are replaced.
        kind: what it would be, for the message.
        force: whether one that is there may be replaced.

    Raises:
        RunError: something else is there, or it would lie in a run's folder.
    """
    refuse_runs_own(output)
    if output.exists() and not (force and (output / mark).is_file()):
        raise RunError(
            f"{output}: is there already; choose another -o"
            + (f", for it is no {kind}" if force else f", or --force to replace {_a(kind)}")
        )


def _a(kind: str) -> str:
    return f"{'an' if kind[0] in 'aeiouAEIOU' else 'a'} {kind}"


def write_folder(output: Path, fill: Callable[[Path], object]) -> None:
    """Write a folder beside its place, then give it its name; the old one stands until then.

    Args:
        output: the folder to make; `check_folder` has looked at it.
        fill: writes what is in it into the folder that it is given.

    Raises:
        RunError: it cannot be written; what was there is left.
    """
    output = output.absolute()
    aside = output.with_name(f".{output.name}.aside")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir(parents=True)
        fill(aside)
        old = output.with_name(f".{output.name}.old")
        if output.is_dir():
            shutil.rmtree(old, ignore_errors=True)
            output.rename(old)
        publish(aside, output)
        shutil.rmtree(old, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(aside, ignore_errors=True)
        why = getattr(error, "strerror", None) or str(error)
        raise RunError(f"{output}: cannot be written ({why})") from None
