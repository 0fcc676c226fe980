"""What a manifest must vouch for, a step that is saved twice, and the memory that saving takes."""

import json
import re
import shutil

import pytest
import torch

from nextword import fit
from nextword.base.errors import RunError
from nextword.model.folder import read_model
from nextword.prediction.loading import find_model_folder, open_model
from nextword.training import checkpoint, dividing, plan, room
from nextword.training.checkpoint import list_checkpoints, mend_checkpoints
from nextword.training.vouched import ALWAYS, find_damage

SMALL = (
    *("--corpus.stories", "40", "--vocabulary.kind", "byte", "--training.steps", "2"),
    *("--model.depth", "1", "--model.hidden-size", "32", "--model.context", "32"),
    *("--training.optimizer", "muon"),
)


@pytest.mark.parametrize("how", ["gone", "empty", "less"])
def test_a_manifest_that_vouches_for_too_little_is_none(place, run, how):
    """By the run, by the step, and by the folder's path; the newest whole one is taken."""
    newest = list_checkpoints(run)[-1].folder
    manifest = newest / "training" / "manifest.json"
    told = json.loads(manifest.read_text())
    del told["model.safetensors"]
    if how == "gone":
        manifest.unlink()
    else:
        manifest.write_text(json.dumps(told if how == "less" else {}))
    assert "manifest.json" in find_damage(newest, whole=False)
    for target in (str(newest), "small@12"):
        with pytest.raises(RunError, match=r"manifest\.json"):
            find_model_folder(target)
    assert open_model("small").step == 6
    done = place.nextword("train", "t.txt", "--vocabulary.source", str(newest))
    assert done.returncode == 2


def test_each_file_that_always_is_there_is_vouched_for(run):
    folder = list_checkpoints(run)[-1].folder
    told = json.loads((folder / "training" / "manifest.json").read_text())
    assert set(ALWAYS) <= set(told)
    assert find_damage(folder, whole=True) == ""


def test_a_step_that_is_saved_twice_is_never_gone(run, monkeypatch):
    """Ended in the moment in which neither has the name: the old one comes back, whole."""
    folder = list_checkpoints(run)[-1].folder
    again = shutil.copytree(folder, folder.parent / "kept")
    shutil.copytree(folder, folder.with_name(f".{folder.name}.aside"))

    def killed(aside, final):
        assert not final.exists()
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "publish", killed)
    monkeypatch.setattr(checkpoint, "_write", lambda aside, *rest: shutil.copytree(again, aside))
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save_checkpoint(run, None, None, {"step": 12})
    assert not folder.exists()
    mend_checkpoints(run)
    assert find_damage(folder, whole=True) == ""
    assert not list(folder.parent.glob(".*"))


def test_the_copy_that_is_saved_is_foreseen(place, monkeypatch):
    """A run that fits until its first save would be ended by the system there."""
    monkeypatch.setattr(dividing, "free_memory", lambda device: 10**12)
    asked = place.nextword("train", "--name", "it", *SMALL)
    assert asked.returncode == 0, asked.stderr
    facts = json.loads((place.folder / "runs" / "it" / "run.json").read_text())
    kept = 4 * 2 * facts["parameters"]  # Muon's gradients and momentum; and as much that is saved
    monkeypatch.setattr(fit, "kept_bytes", lambda *_: 1)
    for free, refused in ((1.5 * kept, True), (2.5 * kept, False)):
        monkeypatch.setattr(dividing, "free_memory", lambda device, free=free: int(free))
        done = place.nextword("train", "--name", f"of-{refused}", *SMALL)
        assert (done.returncode == 2) is refused, done.stderr
        assert ("what is saved of them counted" in done.stderr) is refused
    monkeypatch.setattr(room, "free_memory", lambda device: 100)
    with pytest.raises(fit.SettingsError, match=r"copied to this machine's memory"):
        room.check_copys_memory(101)
    room.check_copys_memory(100)


def test_a_network_is_refused_with_its_copy_where_this_machine_holds_it(place, monkeypatch):
    needs = []
    for device in ("cpu", "cuda"):
        monkeypatch.setattr(plan, "free_memory", lambda device: 0)
        machine = type("M", (), {"device": torch.device(device)})
        shape = type("S", (), {"parameters": lambda self: 10**9, "num_hidden_layers": 1})()
        training = type("T", (), {"optimizer": "adamw"})
        with pytest.raises(fit.SettingsError, match="GB are free here") as refused:
            plan.check_memory(shape, training, machine)
        needs.append(float(re.search(r"needs ([\d.]+) GB", str(refused.value))[1]))
    assert needs == [28.0, 16.0]  # weights, gradients, two moments; weights and moments once more


def in_several_files(place, monkeypatch, name="several"):
    """Return a run's last checkpoint, whose weights stand in several files."""
    monkeypatch.setattr("nextword.model.folder.MOST_FILE_BYTES", 8_000)
    done = place.nextword("train", "--name", name, *SMALL)
    assert done.returncode == 0, done.stderr
    return list_checkpoints(place.folder / "runs" / name)[-1].folder


def test_weights_in_several_files_are_vouched_for_one_by_one(place, monkeypatch):
    folder = in_several_files(place, monkeypatch)
    files = sorted(folder.glob("model-*.safetensors"))
    assert len(files) > 2
    assert not (folder / "model.safetensors").exists()
    assert find_damage(folder, whole=True) == ""
    index = folder / "model.safetensors.index.json"
    for file in (*files, index):
        kept = file.read_bytes()
        file.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
        assert file.name in find_damage(folder, whole=False)
        file.unlink()
        assert file.name in find_damage(folder, whole=False)
        file.write_bytes(kept)
    manifest = folder / "training" / "manifest.json"
    told = json.loads(manifest.read_text())
    for file in (*files, index):
        rest = {name: digest for name, digest in told.items() if name != file.name}
        manifest.write_text(json.dumps(rest))
        assert file.name in find_damage(folder, whole=False)


def test_an_index_that_came_later_is_not_followed(run):
    """It would lead to other weights than those that were saved."""
    folder = list_checkpoints(run)[-1].folder
    shutil.copy(folder / "model.safetensors", folder / "model-other.safetensors")
    index = {"metadata": {}, "weight_map": {"model.norm.weight": "model-other.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "was not there when" in find_damage(folder, whole=False)


def test_a_run_in_several_files_goes_on_as_in_one(place, monkeypatch):
    in_several_files(place, monkeypatch)
    done = place.nextword("train", "--resume", "several", "--training.steps", "4")
    assert done.returncode == 0, done.stderr
    last = list_checkpoints(place.folder / "runs" / "several")[-1].folder
    assert len(list(last.glob("model-*.safetensors"))) > 2
    monkeypatch.setattr("nextword.model.folder.MOST_FILE_BYTES", 1 << 40)
    for words in (["--name", "one", *SMALL], ["--resume", "one", "--training.steps", "4"]):
        assert place.nextword("train", *words).returncode == 0
    ours, theirs = (
        read_model(list_checkpoints(place.folder / "runs" / name)[-1].folder).state_dict()
        for name in ("several", "one")
    )
    assert ours.keys() == theirs.keys()
    assert all(ours[name].equal(theirs[name]) for name in ours)
