"""Write docs/ideas/, docs/settings.md and the manual page.

docs/ideas/ has one page an idea, drawn by the tour's own functions from a real run.

    nextword train && python docs/build.py stories-1

Every number on the pages is that run's. Run it again when the words or the default run change.
"""

import argparse
from pathlib import Path

import nextword
from nextword.cli.manual import manual
from nextword.cli.program import app
from nextword.rendering.settings import settings_markdown
from nextword.rendering.tour_page import Stop, stop_markdown
from nextword.settings import all_options

FOLDER = Path(__file__).parent / "ideas"


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
    parser.add_argument("run")
    run = parser.parse_args().run
    FOLDER.mkdir(exist_ok=True)
    for name, page in pages(nextword.load(run).tour()).items():
        (FOLDER / name).write_text(page, encoding="utf-8")
    write_settings()
    write_manual()


def write_settings() -> None:
    """Write docs/settings.md from the options' declarations."""
    page = settings_markdown(all_options())
    (FOLDER.parent / "settings.md").write_text(page, encoding="utf-8")


def write_manual() -> None:
    """Write docs/nextword.1 from the verbs' own declarations."""
    (FOLDER.parent / "nextword.1").write_text(manual(app), encoding="utf-8")


if __name__ == "__main__":
    main()
