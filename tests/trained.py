"""Models that are trained once, for all tests, all processes and all runs of the suite.

Each lies in a folder named by a digest of what makes it: the command, the program's files, the
versions of what it computes with, the processor and the threads. Nobody works on what lies there: a
test gets a copy. It is trained in a process of its own, under a lock, and compared with the digests
of its files before it is copied.
"""

import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

from filelock import FileLock

PROGRAM = Path(__file__).parents[1] / "nextword"
COMPUTES_WITH = ("numpy", "safetensors", "tokenizers", "torch")
KEPT_SECONDS = 3 * 24 * 3600
_SAID = "said.json"


def code_digest() -> str:
    """Return a digest of the program and of what it runs on, which decide what training gives."""
    from nextword.machine.device import processor_name

    whole = hashlib.sha256()
    for file in sorted(PROGRAM.rglob("*")):
        if file.suffix in (".py", ".toml"):
            whole.update(str(file.relative_to(PROGRAM)).encode() + b"\0" + file.read_bytes())
    versions = [f"{name} {importlib.metadata.version(name)}" for name in COMPUTES_WITH]
    machine = [sys.version, platform.platform(), processor_name()]
    whole.update(" ".join([*versions, *machine]).encode())
    return whole.hexdigest()


def digests(folder: Path) -> dict[str, str]:
    """Return a digest of each file in a folder, by its path there."""
    return {
        file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


class Trained:
    """The folder of trained models."""

    def __init__(self, root: Path) -> None:
        """Open it; what nobody has asked for in days is removed."""
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        self.code = code_digest()
        for said in root.glob(f"*/{_SAID}"):
            if time.time() - said.stat().st_mtime > KEPT_SECONDS:
                shutil.rmtree(said.parent, ignore_errors=True)

    def copy_to(self, place, *arguments: str) -> subprocess.CompletedProcess:
        """Give a place the runs and the prepared text of a command, and what the command said.

        Args:
            place: where to; as if the command had been run there.
            *arguments: of `nextword`; it reads no file.
        """
        made_of = [self.code, os.environ.get("OMP_NUM_THREADS"), *arguments]
        key = hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:24]
        folder = self.root / key
        with FileLock(self.root / f"{key}.lock"):
            said = self._whole(folder) or self._train(type(place)(folder), arguments)
            for part in ("runs", "cache"):
                shutil.copytree(folder / part, place.folder / part, dirs_exist_ok=True)
        for file in (folder / "runs").glob("*/run.json"):
            copied = place.folder / file.relative_to(folder)
            copied.write_text(file.read_text("utf-8").replace(str(folder), str(place.folder)))
        out, err = (said[one].replace(str(folder), str(place.folder)) for one in ("out", "err"))
        return subprocess.CompletedProcess([*arguments], 0, out, err)

    def _whole(self, folder: Path) -> dict[str, str] | None:
        """Read what is there, unless it is not complete or no longer what it was."""
        file = folder / _SAID
        if not file.is_file():
            return None
        said = json.loads(file.read_text("utf-8"))
        found = digests(folder)
        del found[_SAID]
        if found != said["digests"]:
            return None
        file.touch()
        return said

    def _train(self, place, arguments: tuple[str, ...]) -> dict[str, str]:
        shutil.rmtree(place.folder, ignore_errors=True)
        place.folder.mkdir()
        done = place.process(*arguments, timeout=None, starts=True)  # a busy machine may need long
        assert done.returncode == 0, done.stderr
        said = {"out": done.stdout, "err": done.stderr, "digests": digests(place.folder)}
        (place.folder / _SAID).write_text(json.dumps(said), encoding="utf-8")
        return said
