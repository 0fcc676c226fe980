"""The notebooks in examples/ run from their first cell to their last."""

from pathlib import Path

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
    outputs = [one for cell in book.cells for one in cell.get("outputs", [])]
    told = "".join(one.get("text", "") for one in outputs)
    for words in SAID[file.stem]:
        assert words in told
    drawn = [one for one in outputs if "text/html" in one.get("data", {})]
    assert len(drawn) == DRAWN.get(file.stem, 0)
    assert not [one for one in outputs if one.output_type == "error"]
