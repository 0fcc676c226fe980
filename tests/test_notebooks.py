"""The notebooks in examples/ run from their first cell to their last."""

import contextlib
import importlib.util
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

BOOKS = sorted((Path(__file__).parents[1] / "examples").glob("*.ipynb"))
STEPS = "STEPS = 200"
SAID = {
    "1_first_model": ("training    20 steps", "nats a piece, as unsure as among"),
    "2_own_text": ("1 document in 1 file", "nats a piece: the bird has flown"),
    "3_explain": (),
    "4_finetune": ("warm", "cold"),
    "5_serve": ("http://127.0.0.1", "ended with 0"),
}
"""What stands in a notebook's outputs."""
DRAWN = {"3_explain": 4}
"""How many outputs draw themselves."""

pytestmark = pytest.mark.filterwarnings("ignore")


def test_there_are_five_and_none_holds_outputs():
    nbformat = pytest.importorskip("nbformat", reason="notebooks' tools are not installed")
    assert {book.stem for book in BOOKS} == SAID.keys()
    for file in BOOKS:
        book = nbformat.read(file, 4)
        nbformat.validate(book)
        code = [cell for cell in book.cells if cell.cell_type == "code"]
        assert sum(STEPS in cell.source for cell in code) == 1, file
        assert not any(cell.outputs or cell.execution_count for cell in code)


@contextlib.contextmanager
def jupyterlab(folder):
    """Serve a folder to this machine alone; give the address."""
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        port = door.getsockname()[1]
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1"),
        *(f"--port={port}", "--ServerApp.port_retries=0", "--IdentityProvider.token=known"),
        f"--ServerApp.root_dir={folder}",
    ]
    own = {name: str(folder / ".own") for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR")}
    environment = {**os.environ, **own, "PYTHONPATH": str(Path(__file__).parents[1])}
    log = folder / ".log"
    with log.open("wb") as stream:
        process = subprocess.Popen(command, env=environment, stdout=stream, stderr=stream)
    try:
        until = time.monotonic() + 120
        while f"127.0.0.1:{port}/lab" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)


def code_of(file):
    """The cells of a notebook that are code, as its file has them; none while it is written."""
    import nbformat

    try:
        book = nbformat.read(file, 4)
    except nbformat.reader.NotJSONError:  # JupyterLab writes it in place
        return []
    return [cell for cell in book.cells if cell.cell_type == "code"]


def outputs_of(cells):
    return [one for cell in cells for one in cell.get("outputs", [])]


def errors_of(cells):
    return [one for one in outputs_of(cells) if one.output_type == "error"]


def drawn_of(cells):
    return [one for one in outputs_of(cells) if "text/html" in one.get("data", {})]


def run_all_cells(page):
    """Choose it in the menu, again where nothing began: a page still laid out closes its menus."""
    from playwright.sync_api import TimeoutError as TooLate

    begun = (
        "[...document.querySelectorAll('.jp-InputPrompt')].some(p => /[*0-9]/.test(p.innerText))"
    )
    for _ in range(5):
        page.click(".lm-MenuBar-item >> text=/^Run$/")
        page.click(".lm-Menu-item >> text=/^Run All Cells$/")
        with contextlib.suppress(TooLate):
            page.wait_for_function(begun, timeout=20_000)
            return
    raise AssertionError(page.locator("body").inner_text())


QUEUE_LOST_SECONDS = 20
"""For which the kernel has nothing to do, and cells are left, before a person goes on by hand."""


class Hand:
    """Goes on with the next cell where JupyterLab has forgotten which were to be run.

    On a machine that does much else it began the first of "Run All Cells" now and then, and no
    other: the page had asked for them while its line to the kernel was being made.
    """

    def __init__(self, page, address, kept):
        self.page, self.kept = page, kept
        self.kernels = f"{address}/api/kernels?token=known"
        self.idle_since = None

    def look(self):
        told = httpx.get(self.kernels, timeout=60).json()
        states = {kernel["execution_state"] for kernel in told}
        if states != {"idle"}:
            self.idle_since = None
            return
        self.idle_since = self.idle_since or time.monotonic()
        if time.monotonic() - self.idle_since < QUEUE_LOST_SECONDS:
            return
        self.idle_since = None
        counts = [cell.execution_count for cell in code_of(self.kept)]
        if None in counts:
            cell = self.page.locator(".jp-NotebookPanel .jp-CodeCell").nth(counts.index(None))
            cell.locator(".jp-InputPrompt").click()
            self.page.keyboard.press("Shift+Enter")


def test_jupyterlab_opens_all_and_runs_them(place, browser):
    """Every cell is shown as it is written; one of them is run to its end by JupyterLab's menu."""
    if importlib.util.find_spec("jupyterlab") is None:
        pytest.skip("JupyterLab is not installed")
    import nbformat

    for file in BOOKS:
        words = file.read_text().replace(STEPS, "STEPS = 20").replace("1000", "200")
        (place.folder / file.name).write_text(words)
    with jupyterlab(place.folder) as address:
        page = browser.new_page(viewport={"width": 1300, "height": 1000})
        for file in BOOKS:
            book = nbformat.read(file, 4)
            page.goto(f"{address}/lab/workspaces/{file.stem}/tree/{file.name}?token=known")
            page.wait_for_selector(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-Cell", timeout=90_000)
            kinds = [cell.cell_type for cell in book.cells]
            page.wait_for_function(
                "(many) => document.querySelectorAll('.jp-MarkdownCell h1').length >= 1 && "
                "document.querySelectorAll('.jp-Cell').length >= many",
                arg=len(kinds), timeout=60_000,
            )  # fmt: skip
            assert page.locator(".jp-Dialog").count() == 0  # as where a kernel is missing
            shown = page.locator(".jp-Notebook").inner_text()
            assert book.cells[0].source.splitlines()[0].lstrip("# ") in shown
        page.goto(f"{address}/lab/workspaces/run/tree/3_explain.ipynb?token=known")
        page.wait_for_selector(".jp-NotebookPanel .jp-CodeCell", timeout=90_000)
        page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status=idle]", timeout=90_000)
        run_all_cells(page)
        kept = place.folder / "3_explain.ipynb"
        hand, until = Hand(page, address, kept), time.monotonic() + 400
        while len(drawn_of(code_of(kept))) < DRAWN["3_explain"]:
            assert not errors_of(code_of(kept))
            assert time.monotonic() < until, page.locator("body").inner_text()
            page.wait_for_timeout(1000)
            hand.look()
            page.keyboard.press("Control+s")  # what a person finds in the file is what counts
        shown = ".jp-OutputArea-output.jp-RenderedHTMLCommon"
        page.wait_for_selector(shown, timeout=60_000)
        page.close()


@pytest.mark.parametrize("file", BOOKS, ids=lambda file: file.stem)
def test_it_runs(file, place, monkeypatch):
    pytest.importorskip("ipykernel", reason="notebooks' tools are not installed")
    nbclient = pytest.importorskip("nbclient", reason="notebooks' tools are not installed")
    import nbformat

    book = nbformat.read(file, 4)
    for cell in book.cells:  # fewer steps: that it runs is the claim, not how well it writes
        cell.source = cell.source.replace(STEPS, "STEPS = 20").replace("1000", "200")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    at = {"metadata": {"path": str(place.folder)}}
    nbclient.NotebookClient(book, timeout=300, resources=at).execute()
    told = "".join(one.get("text", "") for one in outputs_of(book.cells))
    for words in SAID[file.stem]:
        assert words in told
    assert len(drawn_of(book.cells)) == DRAWN.get(file.stem, 0)
    assert not errors_of(book.cells)
