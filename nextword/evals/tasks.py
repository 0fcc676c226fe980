"""Tasks of this program's own: texts whose bits a byte the harness counts by itself."""

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from nextword.base.errors import EvaluationError
from nextword.corpus.builtin.python import read_python_prose
from nextword.corpus.builtin.stories import default_grammar
from nextword.prediction.loading import Opened, prepared_folder, run_facts
from nextword.vocabulary.prepared import Prepared, open_prepared

DOCUMENTS = 200
"""Of a task, where nothing is said."""
LONGEST = 20_000
"""Characters of a document that are asked about."""
OTHER_SEED = 20_261_129
"""Of stories that no training draws by itself."""


def prepared_of(opened: Opened) -> Prepared | None:
    """Open the text that a run has read; None where it is not known or no longer there."""
    if opened.run is None:
        return None
    facts = run_facts(opened.run)
    if "prepared" not in facts or not prepared_folder(opened.run, facts).is_dir():
        return None
    return open_prepared(prepared_folder(opened.run, facts))


def _holdout(opened: Opened) -> Iterator[str]:
    prepared = prepared_of(opened)
    if prepared is None:
        raise EvaluationError(
            f"{opened.name}: nextword_holdout asks about the run's own held-out text, which is not "
            "there"
        )
    for number in range(prepared.holdout.num_documents):
        ids = prepared.holdout.document(number)
        end = prepared.holdout.end_id
        yield prepared.vocabulary.decode([id_ for id_ in ids.tolist() if id_ != end])


def _stories(opened: Opened) -> Iterator[str]:
    del opened
    grammar = default_grammar()
    return (grammar.draw(OTHER_SEED, number).text for number in itertools.count())


def _python(opened: Opened) -> Iterator[str]:
    del opened
    return read_python_prose()


OWN_BEGIN = "nextword_"
OWN: dict[str, Callable[[Opened], Iterator[str]]] = {
    "nextword_holdout": _holdout,
    "nextword_stories": _stories,
    "nextword_python": _python,
}
"""The run's own held-out text; stories of another seed; the prose of Python's library."""


def own_task(name: str, opened: Opened, folder: Path, limit: int | None) -> dict[str, Any]:
    """Write a task's documents, and describe it as the harness reads tasks.

    Args:
        name: one of `OWN`.
        opened: the model that will be asked.
        folder: where the documents are written.
        limit: documents at most.
    """
    texts = (text[:LONGEST] for text in OWN[name](opened) if text.strip())
    file = folder / f"{name}.jsonl"
    with open(file, "w", encoding="utf-8") as stream:
        for text in itertools.islice(texts, limit or DOCUMENTS):
            stream.write(json.dumps({"text": text}) + "\n")
    names = ("bits_per_byte", "byte_perplexity", "word_perplexity")
    return {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(file)}},
        "test_split": "test",
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": [{"metric": metric} for metric in names],
        "metadata": {"version": 1.0},
    }
