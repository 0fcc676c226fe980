"""Write docs/ideas/, docs/settings.md and the manual page, and what README shows of a run.

docs/ideas/ has one page an idea, drawn by the tour's own functions from a real run; below
README's commands stands what they say of the same run.

    nextword train 2> said.txt; python docs/build.py stories-1 --said said.txt

Every number on the pages is that run's. Run it again when the words or the default run change.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

import nextword
from nextword.cli.manual import manual
from nextword.cli.program import app
from nextword.rendering.settings import settings_markdown
from nextword.rendering.tour_page import Stop, stop_markdown
from nextword.settings import all_options

FOLDER = Path(__file__).parent / "ideas"
README = FOLDER.parents[1] / "README.md"
SHOWN = re.compile(r"(```console\n((?:\$ nextword [^\n]*\n)+)```\n```text\n).*?```", re.S)
"""Commands with what they print below them."""


def pages(stops: list[Stop]) -> dict[str, str]:
    """Return each page by its file's name."""
    names = [f"{number:02d}-{stop.anchor}.md" for number, stop in enumerate(stops, start=1)]
    index = "".join(
        f"{number}. [{stop.title}]({name})\n"
        for number, (stop, name) in enumerate(zip(stops, names, strict=True), start=1)
    )
    found = {
        "README.md": "# The ideas, one by one\n\nShort pages, in the order in which the ideas "
        "build on each other. All numbers come from one run of the default `nextword train`; "
        "`nextword tour` shows the same with yours.\n\n" + index
    }
    for number, (stop, name) in enumerate(zip(stops, names, strict=True), start=1):
        before = f"[← {stops[number - 2].title}]({names[number - 2]})" if number > 1 else ""
        after = f"[{stops[number].title} →]({names[number]})" if number < len(stops) else ""
        links = " · ".join(filter(None, (before, "[all ideas](README.md)", after)))
        found[name] = f"{stop_markdown(stop, number)}\n---\n\n{links}\n"
    return found


def main() -> None:
    """Read the run's name and write the pages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help="the default run, whose name is stories-1")
    parser.add_argument("--said", type=Path, help="what its training said")
    given = parser.parse_args()
    run = given.run
    FOLDER.mkdir(exist_ok=True)
    for name, page in pages(nextword.load(run).tour()).items():
        (FOLDER / name).write_text(page, encoding="utf-8")
    write_settings()
    write_manual()
    write_readme(given.said)


def write_readme(said: Path | None) -> None:
    """Write below README's commands what they say now."""
    page = README.read_text(encoding="utf-8")
    page = SHOWN.sub(lambda shown: f"{shown[1]}{_output(shown[2])}```", page)
    if said is not None:
        words = said.read_text(encoding="utf-8").strip() + "\n"
        page = re.sub(
            r"(?<=```text\n)learning the vocabulary\n.*?(?=```)", lambda _: words, page, flags=re.S
        )
    README.write_text(page, encoding="utf-8")


def _output(commands: str) -> str:
    """Return what some lines that begin with `$ nextword` print, one after the other."""
    found = ""
    for line in commands.splitlines():
        command = ["bash", "-c", f"{sys.executable} -m {line.removeprefix('$ ')}"]
        found += subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return "\n".join(line.rstrip() for line in found.strip("\n").splitlines()) + "\n"


def write_settings() -> None:
    """Write docs/settings.md from the options' declarations."""
    page = settings_markdown(all_options())
    (FOLDER.parent / "settings.md").write_text(page, encoding="utf-8")


def write_manual() -> None:
    """Write docs/nextword.1 from the verbs' own declarations."""
    (FOLDER.parent / "nextword.1").write_text(manual(app), encoding="utf-8")


if __name__ == "__main__":
    main()
