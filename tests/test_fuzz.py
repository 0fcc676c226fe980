"""Damaged files, read by every reader and by the verbs, in children under limits."""

import contextlib
import functools
import json
import os
import random
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.configuration import set_hypothesis_home_dir

from nextword.base.errors import NextwordError
from nextword.corpus.documents import read_pieces
from nextword.corpus.options import CorpusSettings
from tests import children, fuzz
from tests.damage import places_in
from tests.documents import DOCUMENTS
from tests.good_files import MODEL, make_good

ALL = 1000
"""Files whose readers are called here."""
THROUGH_VERBS = 12
"""Files that verbs read, in children of a process of its own, which is small and forks fast."""


def read_folder(place: Path) -> None:
    from nextword.model.folder import read_model
    from nextword.vocabulary.reading import read_tokenizer_config
    from nextword.vocabulary.tokenizer import Vocabulary

    for name in (MODEL, "masked", "labelled"):
        for read in (read_model, read_tokenizer_config, Vocabulary.load):
            with contextlib.suppress(NextwordError):
                read(place / name)


def read_run(place: Path) -> None:
    from nextword.explanation.replay import read_replay
    from nextword.prediction.loading import find_checkpoint, run_facts
    from nextword.settings import read_recipe, resolve
    from nextword.training.journal import Journal

    run = place / "runs" / "it"
    journal = Journal(run)
    journal.curve()
    assert len(list(journal.latest())) == len(list(journal.read()))
    journal.has_ended()
    journal.forget_after(3)
    assert all(event["step"] <= 3 for event in journal.read())
    for read in (
        lambda: restore(place / fuzz.CHECKPOINT),
        lambda: run_facts(run),
        lambda: read_replay(run),
        lambda: find_checkpoint(run, "last", whole=True),
        lambda: resolve(read_recipe(run / "settings.toml")),
    ):
        with contextlib.suppress(NextwordError):
            read()


def restore(checkpoint: Path) -> None:
    """Go on from a checkpoint's state of the optimizers."""
    from nextword.model.folder import read_model
    from nextword.training.checkpoint import restore_optimizers
    from nextword.training.optimizers import build_optimizers, groups_of
    from nextword.training.options import TrainingSettings
    from nextword.training.vouched import find_damage

    if find_damage(checkpoint, whole=True):
        return
    model = read_model(checkpoint)
    restore_optimizers(checkpoint, model, build_optimizers(groups_of(model), TrainingSettings()))


def read_text(place: Path) -> None:
    from nextword.vocabulary.prepared import open_prepared

    for name in ("prepared", "several"):
        with contextlib.suppress(NextwordError):
            opened = open_prepared(place / name)
            for stream in (opened.train, opened.holdout):
                for number in range(stream.num_documents):
                    stream.document(number)


def read_rows(place: Path) -> None:
    from nextword.corpus.documents import read_pieces
    from nextword.corpus.options import CorpusSettings

    for name in ("rows.jsonl", *fuzz.TEXTS):
        with contextlib.suppress(NextwordError):
            list(read_pieces([str(place / name)], CorpusSettings()))


def read_saved(place: Path) -> None:
    from nextword.corpus.documents import read_pieces
    from nextword.corpus.options import CorpusSettings

    list(read_pieces([f"dataset:{place / 'saved'}"], CorpusSettings()))


def read_archive(place: Path) -> None:
    from nextword.prediction import archive

    archive.read_archive((place / "text.nw").read_bytes())


def read_index(place: Path) -> None:
    from nextword.model.folder import weight_files

    weight_files(place / "sharded")


def read_settings(place: Path) -> None:
    from nextword.settings import read_recipe, resolve

    resolve(read_recipe(place / "recipe.toml"))


def read_examples(place: Path) -> None:
    from nextword.corpus.examples import read_rows as rows_of
    from nextword.corpus.options import CorpusSettings

    for name in ("labels", "chat"):
        with contextlib.suppress(NextwordError):
            list(rows_of([str(place / f"{name}.jsonl")], CorpusSettings()))


def read_documents(place: Path, file: str) -> None:
    with contextlib.suppress(NextwordError):
        list(read_pieces([str(place / file)], CorpusSettings(redact=True)))


READERS = {
    "folder/": read_folder, "runs/": read_run, "prepared/": read_text, "rows": read_rows,
    "text.txt": read_rows, "text.nw": read_archive, "sharded/": read_index, "recipe": read_settings,
    "labels.": read_examples, "chat": read_examples, "several/": read_text,
    "masked/": read_folder, "labelled/": read_folder, "saved/": read_saved,
}  # fmt: skip


def reader_of(kind: fuzz.Kind) -> Callable[[Path], None]:
    """Return what reads files of a kind."""
    if kind.file in DOCUMENTS:
        return functools.partial(read_documents, file=kind.file)
    (reader,) = (READERS[key] for key in READERS if kind.file.startswith(key))
    return reader


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """One good file of every kind, made once."""
    root = tmp_path_factory.mktemp("fuzz")
    place = root / "good"
    place.mkdir()
    here, before = Path.cwd(), dict(os.environ)
    os.chdir(place)
    os.environ.update(NEXTWORD_RUNS=str(place / "runs"), NEXTWORD_CACHE=str(place / "cache"))
    make_good(place)
    for kind in fuzz.KINDS:
        reader_of(kind)(place)  # imports what the children need, once
    yield place
    os.chdir(here)
    os.environ.clear()
    os.environ.update(before)


def prepare_child(place: Path) -> None:
    """Compute on one core, and remember things in the place."""
    torch.set_num_threads(1)
    os.environ["NEXTWORD_CACHE"] = str(place / "cache")


def restore_from(good: Path, place: Path, names: list[str]) -> None:
    """Bring back what was damaged, and the log, of which a reader forgets the end."""
    for name in names:
        shutil.copy(good / name, place / name)


def has_digest(kind: fuzz.Kind) -> bool:
    """Whether another file says what this one's digest must be."""
    of_checkpoint = kind.file.startswith(fuzz.CHECKPOINT) and "manifest" not in kind.file
    return of_checkpoint or kind.file.endswith((".index", ".bytes"))


@pytest.mark.parametrize("kind", fuzz.KINDS, ids=[kind.file for kind in fuzz.KINDS])
def test_damaged_files_are_read_or_refused_in_one_line(good, tmp_path, kind):
    place = tmp_path / "read"
    shutil.copytree(good, place)
    files = -(-ALL // len(fuzz.KINDS))

    def work() -> int:
        prepare_child(place)
        for seed in range(files):
            dice = random.Random(f"{kind.file} {seed}")
            raw = fuzz.damaged(kind, good, dice)
            written = fuzz.with_digest(kind, raw, good, dice)
            for name, changed in written.items():
                (place / name).write_bytes(changed)
            try:
                reader_of(kind)(place)
            except NextwordError:
                pass
            except BaseException:
                traceback.print_exc()
                print(f"seed {seed} of {kind.file}")
                return 1
            restore_from(good, place, [*written, "runs/it/metrics.jsonl"])
        print("all read or refused")
        return 0

    status, said = children.child(work, inside=place)
    assert status == 0, said
    assert "all read or refused\n" in said


WORDS = st.text(alphabet="aZ0 ./-\\\n\x00\x1bé\u202e\ud800\U0001f600", max_size=12)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)


def with_value(raw: bytes, number: int, value: object) -> bytes:
    """Put a value into a place of a JSON text, or of a line of such."""
    lines = raw.splitlines() if b"\n{" in raw.strip() else [raw]
    line = number % len(lines)
    changed = json.loads(lines[line])
    path, key = (places := list(places_in(changed)))[number % len(places)]
    where = changed
    for step in path:
        where = where[step]
    where[key] = value
    lines[line] = json.dumps(changed).encode()
    return b"\n".join(lines)


@pytest.mark.parametrize("kind", fuzz.KINDS, ids=[kind.file for kind in fuzz.KINDS])
def test_any_bytes_at_all_are_read_or_refused_in_one_line(good, tmp_path, kind):
    """Another beginning, something else in the middle, any value, as hypothesis thinks of it."""
    place = tmp_path / "any"
    shutil.copytree(good, place)
    raw, tried, digests = (good / kind.file).read_bytes(), [], []

    @hypothesis_settings(max_examples=15, deadline=None, database=None, phases=(Phase.generate,))
    @given(
        head=st.binary(max_size=24), cut=st.integers(0, 400), end=st.integers(0, 400),
        more=st.binary(max_size=40), number=st.integers(0, 1 << 20), value=JSON,
        is_json=st.booleans(),
    )  # fmt: skip
    def try_any(head, cut, end, more, number, value, is_json):
        changed = head + raw[cut : len(raw) - end] + more
        if kind.structured and is_json:
            changed = with_value(raw, number, value)
        # With a digest that fits half of the time, else none of it would be read beyond the digest.
        written = fuzz.with_digest(kind, changed, good, random.Random(len(tried)))
        digests.append(len(written) > 1)
        for name, content in written.items():
            (place / name).write_bytes(content)
        with contextlib.suppress(NextwordError):
            reader_of(kind)(place)
        restore_from(good, place, [*written, "runs/it/metrics.jsonl"])
        tried.append(number)

    def work() -> int:
        prepare_child(place)
        set_hypothesis_home_dir(place / "hypothesis")
        try_any()
        return 0 if len(tried) >= 15 and any(digests) == has_digest(kind) else 3

    status, said = children.child(work, inside=place)
    assert status == 0, said


def test_verbs_do_their_work_or_leave_with_one_line():
    command = [sys.executable, "-m", "tests.fuzz", "--files", str(THROUGH_VERBS), "--seed", "50"]
    root = Path(__file__).parent.parent
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{THROUGH_VERBS} files in" in done.stdout
    assert "refused" in done.stdout
    assert "taken" in done.stdout


def test_a_fault_would_be_seen(good, tmp_path, monkeypatch):
    from nextword.model import config

    monkeypatch.setattr(config, "read_record", lambda *_: {}["no such field"])
    kind = next(kind for kind in fuzz.KINDS if kind.file.endswith("/config.json"))
    how, fault = fuzz.try_one(kind, 0, good, tmp_path / "place", tmp_path)
    assert how == "fault"
    assert "KeyError" in fault.what


@pytest.mark.parametrize(
    "plant",
    [
        "open('../beside', 'w')",
        "open('../../../../further', 'a')",
        "os.mkdir('../folder')",
        "os.rename('line.txt', '../moved')",
        "os.symlink('line.txt', os.path.realpath('../link'))",
        "os.remove(elsewhere)",
        "open('out', 'w')",
        "subprocess.run(['touch', '../../child'])",
    ],
)
def test_what_is_written_outside_is_seen(good, tmp_path, monkeypatch, plant):
    place, kind = tmp_path / "a" / "b" / "place", fuzz.KINDS[0]
    place.parent.mkdir(parents=True)
    (elsewhere := tmp_path / "file").write_text("mine")

    def harm(_):
        Path("out").symlink_to("../target")
        exec(plant, {"os": os, "subprocess": subprocess, "elsewhere": str(elsewhere)})
        return 0

    monkeypatch.setattr(fuzz, "run_verb", harm)
    how, fault = fuzz.try_one(kind, 0, good, place, tmp_path)
    assert how == "outside"
    assert kind.file == fault.kind


def test_what_is_written_inside_is_no_fault(good, tmp_path, monkeypatch):
    def write(_):
        Path("new").mkdir()
        Path("new", "it").write_text("we")
        Path("new", "it").rename("new/that")
        shutil.rmtree("new")
        return 0

    monkeypatch.setattr(fuzz, "run_verb", write)
    assert fuzz.try_one(fuzz.KINDS[0], 0, good, tmp_path / "place", tmp_path) == ("taken", None)


def test_a_child_that_takes_too_much_is_ended(monkeypatch):
    monkeypatch.setattr(children, "SECONDS", 2)

    def greedy() -> int:
        kept = [bytearray(1 << 28) for _ in range(40)]
        return len(kept)

    def endless() -> int:
        while True:
            pass

    assert children.child(greedy)[0] not in (0, 1, 2)
    assert children.child(endless)[0] < 0
