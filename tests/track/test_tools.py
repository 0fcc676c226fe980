"""Each tracker itself says what it was told: a run that stopped, went on, and came to its end."""

import json
import os
import re
import struct
import subprocess
import sys

import pytest

from tests.compared import near
from tests.track.conftest import (
    assert_is_the_heat_map,
    events_of,
    in_words,
    series_of,
    settings_of,
)


def read_tensorboard(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    read = EventAccumulator(str(run / "tracked" / "tensorboard"), {"tensors": 0, "scalars": 0})
    read.Reload()
    tags = read.Tags()
    scalars = {
        name: [(one.step, one.value) for one in read.Scalars(name)] for name in tags["scalars"]
    }
    texts = {
        name.removesuffix("/text_summary"): [
            (one.step, one.tensor_proto.string_val[0].decode()) for one in read.Tensors(name)
        ]
        for name in tags["tensors"]
        if name.endswith("/text_summary")
    }
    assert "_hparams_/session_start_info" in read.summary_metadata
    begun = read.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    told = HParamsPluginData.FromString(begun).session_start_info.hparams
    settings = {name: getattr(one, one.WhichOneof("kind")) for name, one in told.items()}
    return scalars, texts, settings, None


def wandb_records(raw):
    """Yield the records of a log, framed as leveldb does: blocks of 32 kB, whole or in parts."""
    from wandb.proto.wandb_internal_pb2 import Record

    place, whole = 7, b""
    while place < len(raw):
        left, kind = 32_768 - place % 32_768, 0
        if left >= 7:
            _, size, kind = struct.unpack("<IHB", raw[place : place + 7])
        if not kind:
            place += left
            continue
        whole += raw[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):
            yield Record.FromString(whole)
            whole = b""


def read_wandb(run):
    scalars, texts, ids, config = {}, {}, set(), {}
    files = sorted((run / "tracked" / "wandb" / "wandb").glob("offline-run-*/*.wandb"))
    assert files
    for file in files:
        for page in file.parent.glob("files/media/html/*.html"):
            name, step, _ = page.name.split("_")
            texts.setdefault(name, []).append((int(step), page.read_text()))
        for record in wandb_records(file.read_bytes()):
            if record.WhichOneof("record_type") == "run":
                ids.add(record.run.run_id)
                config |= {one.key: one.value_json for one in record.run.config.update}
            for item in record.history.item:
                name = item.key or "/".join(item.nested_key)
                if isinstance(value := json.loads(item.value_json), int | float):
                    scalars.setdefault(name, []).append((record.history.step.num, value))
    return scalars, texts, {name: json.loads(value) for name, value in config.items()}, ids


def read_mlflow(run):
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{run.parent / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("nextword")
    found = client.search_runs([experiment.experiment_id])
    (one,) = found
    assert one.info.status == "FINISHED"
    names = [*one.data.metrics]
    scalars = {
        name: [(m.step, m.value) for m in client.get_metric_history(one.info.run_id, name)]
        for name in names
    }
    texts = {}
    for name in ("sentences", "it writes"):
        for file in client.list_artifacts(one.info.run_id, name):
            step = int(file.path.split("-")[-1].split(".")[0])
            folder = run.parent / "mlartifacts" / one.info.run_id / "artifacts"
            texts.setdefault(name, []).append((step, (folder / file.path).read_text()))
    return scalars, texts, one.data.params, {one.info.run_id}


def read_trackio(run):
    """Ask the database by SQL, for the package reads its folder's name when it is imported."""
    import sqlite3

    scalars, texts = {}, {}
    with sqlite3.connect(run.parents[1] / "trackio" / "nextword.db") as base:
        rows = base.execute("select run_name, step, metrics from metrics order by step").fetchall()
        (config,) = base.execute("select config from configs").fetchone()
    for _, step, metrics in rows:
        for name, value in json.loads(metrics).items():
            if isinstance(value, int | float):
                scalars.setdefault(name, []).append((step, value))
            else:
                texts.setdefault(name, []).append((step, json.dumps(value)))
    return scalars, texts, json.loads(config), {row[0] for row in rows}


@pytest.mark.filterwarnings("default")
def test_mlflow_reports_to_nobody_and_shows_no_password(tmp_path):
    pytest.importorskip("mlflow", reason="trackers are not installed")
    code = (
        "import nextword.track.mlflow as m, mlflow.telemetry as t, pathlib\n"
        "assert t.get_telemetry_client() is None, 'it reports'\n"
        "from nextword.track.tracker import Known\n"
        "one = m.MLflow(Known(pathlib.Path('r'), 'r', 0.0, {}), pathlib.Path('r'), None)\n"
        "print(one.where)"
    )
    outside = ("CI", "PYTEST_CURRENT_TEST", "GITHUB_ACTIONS")
    environment = {name: value for name, value in os.environ.items() if name not in outside}
    environment["MLFLOW_TRACKING_URI"] = f"sqlite:///{tmp_path}/secret.db"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "secret" not in done.stdout
    assert '"$MLFLOW_TRACKING_URI"' in done.stdout


READERS = {
    "tensorboard": read_tensorboard,
    "wandb": read_wandb,
    "mlflow": read_mlflow,
    "trackio": read_trackio,
}


def alone(monkeypatch, place):
    """Take away what this machine tells trackers, and let each keep what it is told here."""
    for name in [name for name in os.environ if name.startswith(("WANDB_", "MLFLOW_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TRACKIO_DIR", str(place.folder / "trackio"))


@pytest.mark.parametrize("tool", READERS)
@pytest.mark.filterwarnings("default")
def test_a_training_is_told_of_to_its_last_word(place, tool, monkeypatch):
    """While it learns, by a process beside: at its end the tool knows all that the log does."""
    pytest.importorskip(tool, reason="trackers are not installed")
    alone(monkeypatch, place)
    options = ("--training.steps", "4", "--corpus.stories", "100", "--quiet")
    done = place.process("train", "--name", "told", "--track", tool, *options)
    assert done.returncode == 0, done.stderr
    run = place.folder / "runs" / "told"
    note = json.loads((run / "tracked" / f"{tool}.json").read_text())
    assert note["last"]["end"] == 4
    assert note["place"] == (run / "metrics.jsonl").stat().st_size
    scalars, texts, settings, _ = READERS[tool](run)
    for name in ("train/loss", "train/gradient_norm", "holdout/nats_per_token"):
        theirs = [(step, pytest.approx(value, rel=1e-6)) for step, value in scalars[name]]
        assert series_of(run)[name] == theirs
    assert texts["sentences"]
    assert in_words(settings["training.steps"]) == "4.0"


@pytest.mark.parametrize("tool", READERS)
@pytest.mark.filterwarnings("default")
def test_it_shows_what_the_journal_says(place, run, tool, monkeypatch):
    pytest.importorskip(tool, reason="trackers are not installed")
    alone(monkeypatch, place)
    journal, whole = run / "metrics.jsonl", (run / "metrics.jsonl").read_bytes()
    stopped = [one for one in whole.splitlines(keepends=True) if json.loads(one)["step"] <= 6]
    journal.write_bytes(b"".join(stopped))  # as where it was stopped after a checkpoint
    for _ in range(2):
        done = place.process("track", "small", "--to", tool)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"{tool} was told of small: ")
        assert done.stdout.count("\n") == 1
        assert done.stderr == "" or tool == "mlflow"  # which says that it makes its database
        journal.write_bytes(whole)
    again = place.process("track", "small", "--to", tool)
    assert "0 new events" in again.stdout
    scalars, texts, settings, ids = READERS[tool](run)
    expected = series_of(run)
    if tool == "mlflow":  # which allows fewer signs in a name
        expected = {re.sub(r"[^\w. /-]", "_", name): points for name, points in expected.items()}
    for name, points in expected.items():
        assert [step for step, _ in scalars[name]] == [step for step, _ in points], name
        theirs, ours = ([value for _, value in some] for some in (scalars[name], points))
        near(f"{tool}, figures", ours, theirs, most=1e-6, relative=True)
    assert any(name.startswith("ruler/") for name in expected)
    words = {name: in_words(value) for name, value in settings.items()}
    assert len(asked := settings_of(run)) > 30
    assert {name: words.get(name) for name in asked} == asked
    assert ids is None or len(ids) == 1
    if tool == "wandb":  # one log for each process that told it
        assert len([*(run / "tracked" / "wandb" / "wandb").glob("offline-run-*/*.wandb")]) == 2
    events = events_of(run)
    samples = [(one["step"], one["sample"]) for one in events if one["event"] == "evaluation"]
    moments = {one["step"]: one for one in events if one["event"] == "replay"}
    assert [step for step, _ in sorted(texts["sentences"])] == list(moments)
    for step, told in texts["sentences"]:
        told = json.loads(told)["_value"] if tool == "trackio" else told
        assert_is_the_heat_map(told, run, moments[step])
    for (step, told), (when, sample) in zip(sorted(texts["it writes"]), samples, strict=True):
        assert step == when
        assert sample.split()[0] in told
