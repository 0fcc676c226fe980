"""Each verb works on a model of each objective, or says why not in one line."""

import json
from importlib.util import find_spec

import pytest
import torch

import nextword
from nextword.cli import main
from nextword.finetune import finetune
from nextword.objectives import find_objective, names
from nextword.prediction.labels import NumberScores
from nextword.prediction.several import Always, score_several
from nextword.settings import resolve

TEXT = "the good cat sat on the warm mat. the bad dog ran to the cold sea.\n"
VERBS = {
    "generate": ("generate", "RUN", "the", "--max-tokens", "3"),
    "predict": ("predict", "RUN", "the"),
    "fill": ("fill", "RUN", "the [MASK] cat"),
    "evaluate": ("evaluate", "RUN", "t.txt"),
    "explain": ("explain", "RUN", "the good cat"),
    "attention": ("attention", "RUN", "the good cat"),
    "audit": ("audit", "RUN", "the good cat"),
    "replay": ("replay", "RUN"),
    "ruler": ("ruler", "RUN"),
    "report": ("report", "RUN", "-o", "out.html"),
    "tour": ("tour", "RUN"),
    "compress": ("compress", "RUN", "t.txt", "-o", "out.nw", "--force"),
    "classify": ("classify", "RUN", "the good cat"),
    "compare": ("compare", "RUN", "RUN", "the good cat"),
    "export": ("export", "RUN", "-o", "out.gguf", "--force"),
    "benchmark": ("benchmark", "RUN", "--tasks", "nextword_stories", "--limit", "2"),
    "push": ("push", "RUN", "me/RUN", "-o", "RUN-pushed"),
}

pytestmark = pytest.mark.usefixtures("one_thread")


def make(objective, folder):
    """Train a little, by the objective's own way."""
    options = {"training.steps": 2, "vocabulary.kind": "byte", "model.context": 64}
    if not find_objective(objective).supervised:
        options["objective.name"] = objective
        nextword.train(folder / "t.txt", name=objective, options=options)
        return
    nextword.train(folder / "t.txt", name="begun", options=options)
    rows = {
        "labelled": [{"text": f"the {n} cat", "label": "ab"[n % 2]} for n in range(12)],
        "answer": [{"prompt": f"the {n}", "answer": "cat"} for n in range(12)],
        "preference": [
            {"prompt": f"the {n}", "chosen": "cat", "rejected": "dog"} for n in range(12)
        ],
    }[objective]
    file = folder / "examples.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    finetune("begun", [str(file)], resolve(given={"finetune.steps": 2}), name=objective)


@pytest.mark.parametrize("objective", names())
def test_every_verb_works_or_says_why_not(place, capsys, objective):
    (place.folder / "t.txt").write_text(TEXT * 60)
    make(objective, place.folder)
    cannot = find_objective(objective).cannot
    assert cannot.keys() - VERBS.keys() <= {"decompress", "score"}
    assert nextword.load(objective).opened.objective.name == objective
    for verb, words in VERBS.items():
        if verb == "benchmark" and verb not in cannot and find_spec("lm_eval") is None:
            continue  # of the extra `clients`, which .ci/run installs
        arguments = [word.replace("RUN", objective) for word in words]
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main(arguments)
        said = capsys.readouterr()
        if verb in cannot:
            assert left.value.code == 2, verb
            assert cannot[verb] in said.err
            assert not said.out, verb
        else:
            assert not left.value.code, said.err
            assert said.out.strip(), verb


@pytest.mark.parametrize("objective", names())
def test_the_figures_that_are_declared_are_given(place, objective):
    (place.folder / "t.txt").write_text(TEXT * 60)
    make(objective, place.folder)
    run = place.folder / "runs" / objective
    events = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    given = set([event for event in events if event["event"] == "evaluation"][-1])
    if objective == "labelled":  # this run learned classes; the other kinds have their own
        given |= NumberScores(2, 1.0, 2.0, 2.0).as_dict().keys()
        said = torch.zeros(1, 1, dtype=torch.float64)
        given |= score_several(said, [(0,)], ("a",), Always((0,), (0,))).as_dict().keys()
    assert set(find_objective(objective).metrics) <= given


@pytest.mark.parametrize("objective", names())
def test_the_layout_is_one_that_the_objective_declares(place, objective):
    (place.folder / "t.txt").write_text(TEXT * 60)
    make(objective, place.folder)
    folder = nextword.load(objective).opened.folder
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"][0] in find_objective(objective).layouts
