"""The pages of docs/ideas are what the tour's functions write today, but for the run's numbers."""

import importlib.util
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import nextword
from tests.compared import PACKAGES, RESULTS, power

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture
def build():
    spec = importlib.util.spec_from_file_location("build", DOCS / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def words_of(page):
    """A page without its drawings and what differs from run to run: numbers, names, pieces."""
    prose = re.sub(r"```text\n.*?```", "", page, flags=re.S)
    prose = re.sub(r'"[^"]*"|\b(stories-\d+|tour)\b', "~", prose)
    prose = re.sub(r" In the training that made.*?other answers\.", "", prose, flags=re.S)
    return re.sub(r"[-+]?\d[\d,.]*(?:e-\d+)?", "#", prose).split()


def test_the_pages_say_what_the_tour_says(build, shared_environment, default_run):
    pages = build.pages(nextword.load("stories-1").tour())
    assert sorted(pages) == sorted(file.name for file in (DOCS / "ideas").glob("*.md"))
    for name, page in pages.items():
        written = (DOCS / "ideas" / name).read_text(encoding="utf-8")
        assert words_of(written) == words_of(page), name


def test_the_page_of_settings_is_what_the_program_says(build):
    page = (DOCS / "settings.md").read_text(encoding="utf-8")
    assert page == build.settings_markdown(build.all_options())


def test_the_manual_page_is_what_the_program_says(build):
    assert (DOCS / "nextword.1").read_text(encoding="utf-8") == build.manual(build.app)


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
def test_the_manual_page_is_good_roff():
    command = ["groff", "-man", "-Tutf8", "-ww", "-P-cbou", str(DOCS / "nextword.1")]
    done = subprocess.run(command, capture_output=True, check=True)
    assert done.stderr == b""
    page = " ".join(done.stdout.decode().split())  # lines are filled by the width there is
    for words in ("Write text, one token at a time", "--temperature", "EXIT STATUS"):
        assert words in page


def test_every_page_stands_in_the_sites_navigation():
    nav = (DOCS.parent / "zensical.toml").read_text(encoding="utf-8")
    named = re.findall(r'= "([\w/-]+\.md)"', nav)
    assert all((DOCS / page).is_file() for page in named)
    assert len(named) == len(set(named))
    there = {file.relative_to(DOCS).as_posix() for file in DOCS.rglob("*.md")}
    assert {page for page in there if not page.startswith("decisions/")} <= {*named}


def benchmark(name):
    file = DOCS.parent / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"{name}_benchmark", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module, json.loads(module.RESULTS.read_text(encoding="utf-8"))


def test_the_page_on_the_loss_has_the_tables_that_were_measured():
    (cpu, on_cpu), (gpu, on_gpu) = benchmark("loss"), benchmark("gpu")
    page = (DOCS / "loss.md").read_text(encoding="utf-8")
    for table in (*cpu.tables(on_cpu), gpu.table(on_gpu)):
        assert table in page


def test_links_lead_somewhere():
    for file in [*DOCS.rglob("*.md"), DOCS.parent / "README.md"]:
        for target in re.findall(r"\]\(([^)#\s]+)", file.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (file.parent / target).exists(), f"{file.name}: {target}"


def test_what_a_page_says_holds_something_is_a_test():
    for file in DOCS.glob("*.md"):
        for test in re.findall(r"`(tests/[\w/]+\.py)`", file.read_text(encoding="utf-8")):
            assert (DOCS.parent / test).is_file(), f"{file.name}: {test}"


def test_what_works_with_what_is_what_was_measured():
    """Each row that tests noted stands in the table with its figure and version, and no other."""
    rows = {}
    for line in (DOCS / "compatibility.md").read_text("utf-8").splitlines():
        if line.startswith("| ") and not line.startswith(("| tool", "|---")):
            tool, version, _, figure = (cell.strip() for cell in line.strip("|").split("|"))
            rows[tool] = (version, figure)
    measured = json.loads(RESULTS.read_text("utf-8"))
    versions = measured["versions"]
    for name, found in measured["rows"].items():
        tool = name.partition(",")[0]
        assert rows[name] == (versions[PACKAGES.get(tool, tool)], power(found["apart"])), name
        assert found["apart"] <= found["allowed"]
    figures = {name for name, (_, figure) in rows.items() if "10⁻" in figure}
    assert figures <= measured["rows"].keys()
    listed = subprocess.run(
        ["git", "grep", "-hoE", 'near\\(\\s*f?"[^"]+"|row = "[^"]+"', "--", "."],
        cwd=DOCS.parent / "tests", capture_output=True, text=True,
    )  # fmt: skip
    if not listed.returncode:  # a checkout: whatever is compared there has been measured
        names = {one.split('"')[1] for one in listed.stdout.splitlines()}
        plain = {one for one in names if "{" not in one and "," in one}
        assert len(plain) > 12
        assert plain <= measured["rows"].keys()


@pytest.mark.parametrize(
    ("value", "words"),
    [(0, "none"), (1e-5, "10⁻⁵"), (9.2e-6, "10⁻⁵"), (2.01e-7, "3·10⁻⁷"), (3e-4, "3·10⁻⁴")],
)
def test_differences_are_rounded_up(value, words):
    assert power(value) == words
