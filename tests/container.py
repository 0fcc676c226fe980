"""Build what the Dockerfile says without Docker: its instructions, one by one, in a changed root.

    python -m tests.container STAGE ROOT --base FOLDER [--share PLACE ...] [-- COMMAND ...]

FOLDER is a root that the first FROM names (`debootstrap --variant=minbase trixie FOLDER`), copied
into ROOT. A PLACE of this machine can be read there too, as package mirrors and a copy of its
certificates, but not written: what is installed inside would change it outside. In the end COMMAND
runs there as a container of that stage would run it: in the folder, and with the environment, that
the instructions left. Needs root, and a system that lets it mount.
"""

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from string import Template
from typing import NamedTuple

PROJECT = Path(__file__).parent.parent
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""As Docker begins with."""


class Instruction(NamedTuple):
    """A line of a Dockerfile, with those that go on with it."""

    word: str
    rest: str


def instructions(text: str) -> list[Instruction]:
    """Take a Dockerfile apart."""
    joined = re.sub(r"\\\n\s*", "", re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE))
    lines = [line.split(None, 1) for line in joined.splitlines() if line.strip()]
    return [Instruction(word, rest) for word, rest in lines]


def stages(text: str) -> dict[str, list[Instruction]]:
    """Return what makes each stage, from the very base on."""
    found: dict[str, list[Instruction]] = {}
    name = ""
    for one in instructions(text):
        if one.word == "FROM":
            base, _, name = one.rest.partition(" AS ")
            found[name] = list(found.get(base, [one]))
        else:
            found[name].append(one)
    return found


def sent(project: Path = PROJECT) -> list[Path]:
    """List the files that .dockerignore lets through to a build, of those that git knows."""
    rules = (project / ".dockerignore").read_text().split()
    kept = [rule[1:] for rule in rules if rule.startswith("!")]
    listed = subprocess.run(
        ["git", "ls-files", *kept], cwd=project, capture_output=True, text=True, check=True
    )
    return [Path(line) for line in listed.stdout.splitlines()]


def build(stage: str, root: Path, base: Path, share: list[Path]) -> tuple[dict[str, str], str]:
    """Do what a stage's instructions say; return the environment and folder they leave."""
    subprocess.run(["cp", "-a", f"{base}/.", root], check=True)
    environment, arguments, folder = {"PATH": PATH}, {}, "/"
    for word, rest in stages((PROJECT / "Dockerfile").read_text())[stage]:
        print(word, rest[:90], flush=True)
        if word == "RUN":
            run(root, share, ["sh", "-c", rest], environment | arguments, folder)
        elif word == "ENV":
            written = Template(rest).safe_substitute(environment)
            environment |= dict(pair.split("=", 1) for pair in shlex.split(written))
        elif word == "ARG":
            arguments |= [rest.split("=", 1)]
        elif word == "WORKDIR":
            folder = rest
            (root / folder[1:]).mkdir(parents=True, exist_ok=True)
        elif word == "COPY":
            target = root / rest.split()[1][1:]
            for file in sent():
                (target / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(PROJECT / file, target / file)
        elif word not in ("FROM", "ENTRYPOINT", "CMD"):
            raise SystemExit(f"{word} is not known here")
    return environment, folder


def run(
    root: Path, share: list[Path], command: list[str], environment: dict[str, str], folder: str
) -> None:
    """Run something in a root, in namespaces of its own, where places of this machine are seen."""
    mounts = [f"mount -t proc proc {root}/proc"]
    for place in [Path("/dev"), Path("/etc/resolv.conf"), Path("/etc/hosts"), *share]:
        there = root / str(place)[1:]
        there.parent.mkdir(parents=True, exist_ok=True)
        there.mkdir(exist_ok=True) if place.is_dir() else there.touch()
        mounts.append(f"mount --bind {place} {there} && mount -o remount,bind,ro {there}")
    # As in every container: terminals, and memory that processes share.
    mounts += [
        f"mount -t devpts -o newinstance,ptmxmode=0666 devpts {root}/dev/pts",
        f"mount --bind {root}/dev/pts/ptmx {root}/dev/ptmx",
        f"mount -t tmpfs tmpfs {root}/dev/shm",
    ]
    kept = {
        name: value for name, value in os.environ.items() if re.search("PIP|CERT|SSL|_proxy", name)
    }
    known = {"HOME": "/root", **kept, **environment}
    told = [f"{name}={value}" for name, value in known.items()]
    inside = ["sh", "-c", f"cd {folder} && exec {shlex.join(command)}"]
    changed = shlex.join(["chroot", str(root), "env", "-i", *told, *inside])
    script = " && ".join([*mounts, f"exec {changed}"])
    subprocess.run(["unshare", "-m", "sh", "-c", script], check=True)


def main() -> None:
    """Build a stage, and run a command in it."""
    given, _, command = (" ".join(map(shlex.quote, sys.argv[1:]))).partition(" -- ")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage")
    parser.add_argument("root", type=Path)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--share", type=Path, nargs="*", default=[])
    asked = parser.parse_args(shlex.split(given))
    asked.root.mkdir(parents=True, exist_ok=True)
    environment, folder = build(asked.stage, asked.root, asked.base, asked.share)
    if command:
        run(asked.root, asked.share, shlex.split(command), environment, folder)


if __name__ == "__main__":
    main()
