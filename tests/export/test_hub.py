"""A model goes to a Hub and comes back, with its card; what a run takes from there is pinned."""

import json
import re
import shlex
import shutil
import sys
import xml.etree.ElementTree
from types import SimpleNamespace

import pytest

import nextword
from nextword.base.errors import NextwordError
from nextword.corpus.hub import model_on_hub
from nextword.export.card import CARD, CURVE, card_files, card_text, read_card
from nextword.export.hub import gather, signed, was_edited
from nextword.prediction.loading import open_model
from tests.export.stub import SECRET, serving
from tests.serve.conftest import running


@pytest.fixture
def hub(place, monkeypatch):
    """A Hub that all processes of a place speak to."""
    with serving() as stub:
        monkeypatch.setenv("HF_ENDPOINT", stub.address)
        monkeypatch.setenv("HF_HOME", str(place.folder / "hf"))
        monkeypatch.setenv("HF_TOKEN", SECRET)
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
        monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
        for name in ("HF_HUB_OFFLINE", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
            monkeypatch.delenv(name, raising=False)
        yield stub


def files_of(hub, name):
    return hub.commits[f"models/{name}"][-1][1]


def test_it_is_pushed_and_comes_back(place, run, hub):
    done = place.process("push", "small", "me/little", "--private", "--license", "mit")
    assert done.returncode == 0, done.stderr
    assert f"{hub.address}/me/little/commit/" in done.stdout
    files = files_of(hub, "me/little")
    folder = run / "checkpoints" / "step-000012"
    assert hub.private["models/me/little"]
    assert files["model.safetensors"] == (folder / "model.safetensors").read_bytes()
    assert not [name for name in files if name.startswith("training/")]
    assert {CARD, CURVE, "config.json", "tokenizer.json"} <= set(files)
    assert b'license: "mit"' in files[CARD]
    # It comes back under its name, and is the same model.
    there = place.process("predict", "me/little", "We are all", "--json")
    assert there.returncode == 0, there.stderr
    here = place.process("predict", "small@12", "We are all", "--json")
    told, known = json.loads(there.stdout), json.loads(here.stdout)
    assert told["candidates"] == known["candidates"]
    # And a run goes on from it, with the commit written down.
    few = ["--training.steps", "2", "--corpus.stories", "400", "--quiet"]
    begun = place.process("train", "--from", "me/little", "--name", "on", *few)
    assert begun.returncode == 0, begun.stderr
    facts = json.loads((place.folder / "runs" / "on" / "run.json").read_text())
    commit = hub.commits["models/me/little"][-1][0]
    assert facts["hub"] == {"models": {"me/little": commit}}
    assert facts["warm_start"].endswith(commit)
    again = place.process("push", "on", "me/other", "-o", "folder")
    assert again.returncode == 0, again.stderr
    assert 'base_model: ["me/little"]' in (place.folder / "folder" / CARD).read_text()


def test_an_edited_card_stays_and_all_of_it_can_be_pushed(place, run, hub):
    for words in ((), ("--whole",)):
        done = place.process("push", "small", "me/little", *words)
        assert done.returncode == 0, done.stderr
        assert "edited" not in done.stderr
    assert "training/optimizer.safetensors" in files_of(hub, "me/little")
    edited = files_of(hub, "me/little")[CARD].replace(b"## Limits", b"## Its limits")
    hub.commit("models/me/little", {CARD: edited})
    done = place.process("push", "small@6", "me/little")
    assert done.returncode == 0, done.stderr
    assert "the card there was edited, so it stays" in done.stderr
    assert files_of(hub, "me/little")[CARD] == edited
    folder = run / "checkpoints" / "step-000006"
    pushed = files_of(hub, "me/little")["model.safetensors"]
    assert pushed == (folder / "model.safetensors").read_bytes()


def test_text_from_a_hub_is_pinned(place, hub):
    lines = "".join(f"the {n} cat sat on the mat and the dog ran\n" for n in range(400))
    hub.commit("datasets/me/text", {"data/a.txt": lines.encode()})
    first = hub.commits["datasets/me/text"][-1][0]
    few = ["--training.steps", "2", "--vocabulary.kind", "byte", "--quiet"]
    for name, path in (
        ("one", "hf://datasets/me/text/data/a.txt"),
        ("two", "hf://datasets/me/text"),
    ):
        done = place.process("train", path, "--name", name, *few)
        assert done.returncode == 0, done.stderr
        facts = json.loads((place.folder / "runs" / name / "run.json").read_text())
        inside = path.removeprefix("hf://datasets/me/text")
        assert facts["paths"] == [f"hf://datasets/me/text@{first}{inside}"]
        assert facts["hub"] == {"datasets": {"me/text": first}}
        hub.commit("datasets/me/text", {"data/b.txt": b"something else\n"})
        first = hub.commits["datasets/me/text"][-1][0]
    assert any(f"resolve/{facts['hub']['datasets']['me/text']}" in one for one in hub.asked)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ("predict", "me/nothing", "We"),
            "me/nothing: no such folder or run here, and from the Hub",
        ),
        (("train", "--from", "hf://me/nothing"), "me/nothing: no such folder or run here"),
        (("train", "hf://datasets/me/nothing"), "hf://datasets/me/nothing"),
        (("push", "small", "nothing"), "'nothing' is no name of a repository; write OWNER/NAME"),
        (("push", "nobody", "me/it"), "nobody"),
        (("push", "small", "me/it", "--watts", "0"), "--watts 0.0: above 0"),
        (("push", "small", "me/it", "-o", "runs"), "runs: is there already"),
    ],
)
def test_what_cannot_be_is_one_line(place, run, hub, words, told):
    done = place.process(*words)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert told in done.stderr


def test_a_wrong_token_and_a_hub_that_is_away_are_one_line(place, run, hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    done = place.process("push", "small", "me/little")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "set HF_TOKEN to a token that may write" in done.stderr
    assert "hf_wrong" not in done.stderr
    assert not hub.commits
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    done = place.process("push", "small", "me/little")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "me/little: cannot be pushed" in done.stderr


def test_the_card_says_what_the_run_knows(run):
    pytest.importorskip("huggingface_hub")
    from huggingface_hub import ModelCard

    card = read_card("small", "me/little", watts=65.0)
    events = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    last = [one for one in events if one["event"] == "evaluation"][-1]
    text = dict(card_files(card))[CARD]
    read = ModelCard(text).data
    assert read.pipeline_tag == "text-generation"
    assert read.library_name == "transformers"
    values = {one.metric_type: one.metric_value for one in read.eval_results}
    assert values["nats_per_token"] == last["nats_per_token"]
    assert values["bits_per_byte"] == last["bits_per_byte"]
    ruler = next(one for one in events if one["event"] == "ruler")
    for mark in ruler["marks"]:
        assert f"| {mark['name']} | {mark['value']:.4f} |" in text
    floor = next(one for one in events if one["event"] == "floor")
    assert f"{floor['nats_per_token']:.4f} nats a token" in text
    seconds = max(one["seconds"] for one in events if one["event"] == "step")
    assert f"About {65 * seconds / 3.6e6:.3g} kWh" in text
    assert (run / "settings.toml").read_text().splitlines()[0] in text
    picture = xml.etree.ElementTree.fromstring(dict(card_files(card))[CURVE])
    assert picture.tag == "{http://www.w3.org/2000/svg}svg"
    # An earlier checkpoint was not measured by the ruler, and is not said to have been.
    early = card_text(read_card("small@6", "me/little"))
    assert "ruler" not in early
    assert "5-gram" not in early
    assert f"{last['nats_per_token']:.3f}" not in early
    assert "in 6 steps" in early


def libraries(text):
    return re.findall(r"^With \[([^]]+)\]", text, re.M)


FEW = ("--corpus.stories", "100", "--training.steps", "3", "--quiet")
MADE = {
    "small": None,
    "words": ("train", "--vocabulary.kind", "word", *FEW),
    "both": ("train", "--objective", "masked", *FEW),
    "labels": ("finetune", "small", "l.jsonl", "--finetune.steps", "3", "--quiet"),
}
VERBS = {"small": "generate explain", "words": "generate explain"}
VERBS |= {"both": "fill", "labels": "classify"}


@pytest.mark.parametrize("name", MADE)
def test_what_the_card_shows_in_five_libraries_works(place, run, monkeypatch, name):
    """Word for word, with the folder in the place of the name."""
    for package in ("transformers", "onnxruntime", "sentence_transformers", "openai", "gguf"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    rows = [{"text": f"the {['dog', 'cat'][n % 2]} {n}", "label": "ab"[n % 2]} for n in range(20)]
    (place.folder / "l.jsonl").write_text("\n".join(map(json.dumps, rows)))
    if MADE[name]:
        done = place.nextword(*MADE[name], "--name", name)
        assert done.returncode == 0, done.stderr
    folder = place.folder / "me" / "little"
    shutil.copytree(open_model(name).folder, folder)
    shutil.rmtree(folder / "training")
    text = card_text(read_card(name, "me/little"))
    assert len(set(libraries(text))) == 5
    assert "onnxruntime" in libraries(text) if name != "small" else "llama.cpp" in libraries(text)
    monkeypatch.chdir(place.folder)
    ran = set()
    for language, block in re.findall(r"```(console|python)\n(.*?)```", text, re.S):
        if language == "console":
            ran |= {line.split()[2] for line in block.splitlines() if _run(place, line)}
        elif "127.0.0.1:8000" in block:
            with running("me/little") as server:
                assert last_value(block.replace("http://127.0.0.1:8000", server.address))
        else:
            assert last_value(block)
    assert ran == {"export", *VERBS[name].split()}


def _run(place, line):
    """Run a line of the card that this program can run here and now."""
    words = shlex.split(line.removeprefix("$ "))
    if words[0] != "nextword" or words[1] == "serve":  # that one goes on for ever
        return False
    done = place.nextword(*words[1:])
    assert done.returncode == 0, done.stderr
    return True


def last_value(code):
    *lines, last = code.strip().splitlines()
    known = {}
    exec("\n".join([*lines, f"found = {last}"]), known)
    return len(known["found"]) if hasattr(known["found"], "__len__") else known["found"]


def test_a_card_of_an_earlier_checkpoint_counts_its_own_time(run):
    events = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    spent = {one["step"]: one["seconds"] for one in events if one["event"] == "step"}
    assert read_card("small@6", "a/b").seconds == spent[6] < spent[12]
    assert read_card("small", "a/b").seconds == spent[12]


def test_somebodys_own_card_goes_with_their_model(run, place):
    import shutil

    shutil.copytree(run / "checkpoints" / "step-000012", place.folder / "model")
    shutil.rmtree(place.folder / "model" / "training")
    (place.folder / "model" / CARD).write_text("# Theirs\n")
    done = place.nextword("push", "model", "me/it", "-o", "copy")
    assert done.returncode == 0, done.stderr
    assert "somebody's own card, which is pushed as it is" in done.stderr
    assert (place.folder / "copy" / CARD).read_text() == "# Theirs\n"


def test_weights_of_a_mixture_and_what_has_no_commit_pass_the_pin(monkeypatch):
    from nextword.corpus import hub
    from nextword.corpus.shares import read_shares

    commit = "0123456789" * 4
    monkeypatch.setattr(hub, "_commit", lambda *_: commit)
    there = SimpleNamespace(
        repo_id="o/m", repo_type="dataset", revision="main", path_in_repo="a.txt"
    )
    resolve = "huggingface_hub.HfFileSystem.resolve_path"
    monkeypatch.setattr(resolve, lambda _, address: there)
    given = ["dataset:o/n=0.7", "hf://datasets/o/m/a.txt=2", "dataset:o/k?split=test", "here=1"]
    pinned = [hub.pin(path) for path in given]
    assert pinned == [
        f"dataset:o/n?revision={commit}=0.7",
        f"hf://datasets/o/m@{commit}/a.txt=2",
        f"dataset:o/k?split=test&revision={commit}",
        "here=1",
    ]
    assert [share.weight for share in read_shares(pinned)] == [0.7, 2.0, 1.0, 1.0]
    assert read_shares(pinned)[0].path == f"dataset:o/n?revision={commit}"
    monkeypatch.setattr(resolve, lambda _, address: SimpleNamespace(bucket="b"))
    assert hub.pin("hf://buckets/o/b/a.txt") == "hf://buckets/o/b/a.txt"


def test_hostile_names_stay_text(run):
    facts = json.loads((run / "run.json").read_text())
    facts["corpus"]["corpus"] = "<script>|a\n# b ![x](y) `z`"
    (run / "run.json").write_text(json.dumps(facts))
    recipe = (run / "settings.toml").read_text().replace("# source is", 'source = "/home/me"\n#')
    (run / "settings.toml").write_text(recipe + "# ``` and more\n")
    text = card_text(read_card("small", "me/little"))
    assert "<script>" not in text.split("---\n", 2)[2]
    assert "\n# b !" not in text
    assert "![x]" not in text.split("---\n", 2)[2]
    assert "/home/me" not in text
    assert "````toml" in text


def test_a_card_knows_whether_it_was_edited():
    whole = signed("a card\n")
    assert not was_edited(whole)
    for other in (whole + "x", whole.replace("a card", "b card"), "a card\n", ""):
        assert was_edited(other)


def test_a_folder_of_no_run_has_a_card_of_what_is_known(run, place):
    import shutil

    shutil.copytree(run / "checkpoints" / "step-000012", place.folder / "model")
    shutil.rmtree(place.folder / "model" / "training")
    card = read_card("model", "me/it")
    text = card_text(card)
    assert "What it read and how it was judged is not known" in text
    assert set(gather("model", card, whole=False)) >= {CARD, "model.safetensors"}
    assert CURVE not in gather("model", card, whole=False)


def test_names_on_a_hub_and_paths_of_this_machine(place):
    assert model_on_hub("me/it") == ("me/it", None)
    assert model_on_hub("me/it@v1") == ("me/it", "v1")
    assert model_on_hub("hf://me/it@refs/pr/1") == ("me/it", "refs/pr/1")
    for path in (
        "it",
        "me/tokenizer.json",
        "/me/it",
        "./me/it",
        "me/it/more",
        "runs/../it",
        "~/it",
        "me/it@",
        "",
    ):
        assert model_on_hub(path) is None, path
    (place.folder / "me").mkdir()
    assert model_on_hub("me/it") is None  # a path that was mistyped asks nobody
    assert model_on_hub("hf://me/it") == ("me/it", None)


def test_without_the_package_it_is_named(place, run, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    done = place.nextword("push", "small", "me/it")
    assert done.returncode == 2
    assert "pip install 'nextword[hub]'" in done.stderr
    with pytest.raises(NextwordError, match=r"nextword\[hub\]"):
        nextword.load("me/it")


def test_a_dataset_by_its_name_is_pinned(place, hub):
    rows = "".join(json.dumps({"text": f"the {n} cat sat on the mat"}) + "\n" for n in range(400))
    hub.commit("datasets/me/rows", {"data/train.jsonl": rows.encode()})
    few = ["--training.steps", "2", "--vocabulary.kind", "byte", "--quiet"]
    done = place.process("train", "dataset:me/rows", "--name", "one", *few)
    assert done.returncode == 0, done.stderr
    facts = json.loads((place.folder / "runs" / "one" / "run.json").read_text())
    commit = hub.commits["datasets/me/rows"][-1][0]
    assert facts["paths"] == [f"dataset:me/rows?revision={commit}"]
    assert facts["hub"] == {"datasets": {"me/rows": commit}}
    # The same commit is read again, whatever stands there by then.
    hub.commit("datasets/me/rows", {"data/train.jsonl": b'{"text": "other"}\n'})
    again = place.process("train", facts["paths"][0], "--name", "two", *few)
    assert again.returncode == 0, again.stderr
    later = json.loads((place.folder / "runs" / "two" / "run.json").read_text())
    assert later["corpus"]["digest"] == facts["corpus"]["digest"]
