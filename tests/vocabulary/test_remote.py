"""Shards at an address are read by ranges: the same run as on shards that lie here."""

import json
import urllib.request

import fsspec
import numpy as np
import pytest

from nextword.base.errors import CorpusError
from nextword.corpus.options import CorpusSettings
from nextword.targets.batch import read_batch
from nextword.targets.windows import Windows
from nextword.vocabulary import remote
from nextword.vocabulary.options import VocabularySettings
from nextword.vocabulary.prepared import open_prepared
from nextword.vocabulary.training_data import gather, holds_shards

LINES = [f"Person {n} lived in town {n % 7} and was kind to {n % 13} others." for n in range(2000)]
FEW = ("--training.steps", "6", "--training.evaluate-every", "3", "--model.context", "32")
OF = (CorpusSettings(), VocabularySettings())


@pytest.fixture
def shards(place, monkeypatch):
    """A folder of several shards, prepared from a text."""
    monkeypatch.setattr("nextword.vocabulary.encode.SHARD_BYTES", 9_000)
    rows = "".join(json.dumps({"text": line}) + "\n" for line in LINES)
    (place.folder / "rows.jsonl").write_text(rows)
    done = place.nextword("prepare", "rows.jsonl", "-o", "shards", "--vocabulary.size", "400")
    assert done.returncode == 0, done.stderr
    folder = place.folder / "shards"
    assert len(list(folder.glob("train-*.ds"))) > 2
    return folder


@pytest.fixture
def afar(shards):
    """The same at an address in memory."""
    system = fsspec.filesystem("memory")
    system.put(str(shards), "/afar", recursive=True)
    yield "memory://afar"
    system.rm("/afar", recursive=True)


@pytest.fixture
def bucket(monkeypatch):
    """A server that speaks as S3 does."""
    server = pytest.importorskip("moto.server", reason="moto is not installed")
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    forget = urllib.request.Request(f"http://{host}:{port}/moto-api/reset", method="POST")
    urllib.request.urlopen(forget, timeout=60).close()  # what a server before it was given
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    system = s3fs.S3FileSystem()
    system.mkdir("bucket")
    yield system
    s3fs.S3FileSystem.clear_instance_cache()
    running.stop()


def events(place, name):
    lines = (place.folder / "runs" / name / "metrics.jsonl").read_text().splitlines()
    read = [json.loads(line) for line in lines]
    return [(one["event"], one["step"], one.get("loss"), one.get("nats_per_token"))
            for one in read if one["event"] in ("step", "evaluation")]  # fmt: skip


def test_a_run_on_s3_is_the_run_on_a_disk(place, shards, bucket):
    bucket.put(str(shards), "bucket/texts/shards", recursive=True)
    assert holds_shards("s3://bucket/texts/shards")
    for name, path in (("here", "shards"), ("there", "s3://bucket/texts/shards")):
        done = place.nextword("train", path, "--name", name, *FEW)
        assert done.returncode == 0, done.stderr
    assert len(events(place, "here")) >= 8
    assert events(place, "here") == events(place, "there")
    last = ("train", "--resume", "there", "--training.steps", "8")
    assert place.nextword(*last).returncode == 0
    mixed = place.nextword(
        "train", "s3://bucket/texts/shards=2", "rows.jsonl=1", "--name", "m", *FEW
    )
    assert mixed.returncode == 0, mixed.stderr


def test_a_step_reads_its_own_rows_and_nothing_else(shards, afar, monkeypatch):
    prepared, here = gather([afar], *OF), open_prepared(shards)
    assert not list(prepared.folder.rglob("train-*.ds"))  # no token of them came along
    asked, real = [], remote.read_ranges
    monkeypatch.setattr(remote, "read_ranges", lambda of: asked.append(list(of)) or real(of))
    windows = Windows(len(here.train), 32, 16, 0)
    for step in (0, 10**6):
        asked.clear()
        batch = read_batch([prepared.train], windows, step)
        np.testing.assert_array_equal(batch.inputs, read_batch([here.train], windows, step).inputs)
        (together,) = asked  # all at once
        size = sum(stop - start for _, start, stop in together)
        assert size <= 16 * 33 * 2
    assert prepared.train.document_ends.tolist() == here.train.document_ends.tolist()
    assert prepared.holdout.document_bytes.tolist() == here.holdout.document_bytes.tolist()


def test_what_nobody_asked_for_ahead_comes_in_blocks_that_stay(shards, afar, monkeypatch):
    prepared, here = gather([afar], *OF), open_prepared(shards)
    monkeypatch.setattr(remote, "BLOCK_BYTES", 1000)
    monkeypatch.setattr(remote, "BLOCKS", 4)
    asked, real = [], remote.read_ranges
    monkeypatch.setattr(remote, "read_ranges", lambda of: asked.extend(of) or real(of))
    for start, stop in ((0, 400), (100, 300), (-1, 5), (6_000, 9_000), (3, len(here.train))):
        expected = here.train.read(start, stop)
        np.testing.assert_array_equal(prepared.train.read(start, stop), expected)
    first = len(asked)
    prepared.train.read(len(here.train) - 20, len(here.train))
    assert len(asked) == first
    for shard in prepared.train._shards:
        assert len(shard._blocks) <= 4


def test_shards_of_datatroves_layout_are_read_there_too(place, shards, afar):
    system = fsspec.filesystem("memory")
    for name in ("manifest.json", "progress.json", "leaks.json"):
        system.rm(f"/afar/{name}")
    for file in system.glob("/afar/*.bytes"):
        system.rm(file)
    found = gather([afar], *OF)
    assert found.train.is_afar
    assert len(found.train) + len(found.holdout) == sum(
        size // 2 for file in shards.glob("*.ds") for size in [file.stat().st_size]
    )
    done = place.nextword("train", afar, "--name", "there", *FEW)
    assert done.returncode == 0, done.stderr
    assert "were not looked for" in done.stderr + done.stdout
    assert "text        afar: 2,000 documents" in done.stderr + done.stdout


def test_what_changes_there_is_looked_up_again(shards, afar):
    before = remote.mirror(afar)
    assert remote.mirror(afar) == before
    system = fsspec.filesystem("memory")
    system.pipe("/afar/train-00000.ds", (shards / "train-00000.ds").read_bytes() + b"\1\0")
    assert remote.mirror(afar) != before


def test_a_mirror_that_was_cut_off_is_made_again(afar, monkeypatch):
    def fails(*_):
        raise CorpusError("cut off")

    fsspec.filesystem("memory").pipe("/afar/remote.json", b"{}")
    with monkeypatch.context() as patch:
        patch.setattr(remote, "_refuse_elsewhere", fails)
        for _ in range(2):
            with pytest.raises(CorpusError, match="cut off"):
                remote.mirror(afar)
    assert len(gather([afar], *OF).train)


def test_what_vanishes_or_shrinks_meanwhile_is_one_line(place, afar):
    prepared = gather([afar], *OF)
    system = fsspec.filesystem("memory")
    system.pipe("/afar/train-00001.ds", b"\1\0")
    for shard in prepared.train._shards:
        shard._blocks.clear()  # what was looked at as it was opened
    second = prepared.train._starts[1]
    with pytest.raises(CorpusError, match=r"train-00001\.ds: gave 2 of the .* shorter than it was"):
        prepared.train.read(second + 5, second + 9)
    system.rm("/afar/train-00000.ds")
    with pytest.raises(CorpusError, match=r"memory://.*train-00000\.ds: no such file"):
        prepared.train.read(0, 5)


def test_what_is_wrong_there_names_the_address(afar):
    system = fsspec.filesystem("memory")
    system.rm("/afar/manifest.json")
    with pytest.raises(CorpusError, match=f"^{afar}: an unfinished preparation"):
        gather([afar], *OF)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("manifest.json", {"files": ["/etc/passwd"]}, "names shards on the machine that wrote it"),
        ("manifest.json", {"portions": [{"folder": "../x"}]}, "names shards on the machine"),
        ("manifest.json", {"portions": [{"folder": "/x"}]}, "names shards on the machine"),
    ],
)
def test_a_manifest_that_points_elsewhere_is_refused(afar, name, content, said):
    fsspec.filesystem("memory").pipe(f"/afar/{name}", json.dumps(content).encode())
    with pytest.raises(CorpusError, match=said):
        gather([afar], *OF)


@pytest.mark.parametrize(
    "name",
    ["/afar/../../x.json", "/afar//tmp/x.json", "/afar/./x.json", "/other/x.json", "/afar/c:x.json",
     "/afar/..\\x.json"],
)  # fmt: skip
def test_names_that_lead_out_are_refused(afar, monkeypatch, name):
    system = fsspec.filesystem("memory")
    with monkeypatch.context() as patch:
        patch.setattr(type(system), "find", lambda *_, **__: {name: {"size": 1, "type": "file"}})
        with pytest.raises(CorpusError, match="leads out of it"):
            remote.mirror(afar)


def test_a_file_whose_size_nobody_says_is_refused(afar, monkeypatch):
    system = fsspec.filesystem("memory")
    with monkeypatch.context() as patch:
        found = {"/afar/manifest.json": {"size": None, "type": "file"}}
        patch.setattr(type(system), "find", lambda *_, **__: found)
        with pytest.raises(CorpusError, match=r"does not say how large manifest\.json is"):
            remote.mirror(afar)


def test_what_says_where_shards_lie_is_believed_in_the_cache_alone(shards, afar):
    """A folder from elsewhere could make training read whatever address it names."""
    for file in shards.glob("train-*.ds"):
        told = {"address": f"{afar}/{file.name}", "size": file.stat().st_size}
        file.with_name(f"{file.name}.at").write_text(json.dumps(told))
    assert not open_prepared(shards).train.is_afar  # where it lies here, too
    (shards / "train-00000.ds").unlink()
    with pytest.raises(CorpusError, match="no such token shard"):
        open_prepared(shards)


def test_two_that_fetch_at_once_do_not_meet(afar, monkeypatch):
    """The second finds the first's folder whole, and leaves it as it is."""
    real, first = remote._write, []

    def slowly(found, folder, address):
        real(found, folder, address)
        if not first:
            first.append(1)
            first.append(remote.mirror(afar))

    monkeypatch.setattr(remote, "_write", slowly)
    assert remote.mirror(afar) == first[1]
    assert not list(first[1].parent.glob(".*"))
    assert len(gather([afar], *OF).train)


def test_the_file_that_failed_is_named(place, shards, bucket):
    """With S3's own driver, which reads several at once."""
    bucket.put(str(shards), "bucket/shards", recursive=True)
    prepared = gather(["s3://bucket/shards"], *OF)
    bucket.rm("bucket/shards/train-00001.ds")
    second = prepared.train._starts[1]
    with pytest.raises(CorpusError, match=r"^s3://bucket/shards/train-00001\.ds: no such file"):
        prepared.train.ask_ahead([(3, 9), (second + 3, second + 9)])


def test_a_folders_own_mark_and_names_with_dots_do_not_hide_shards(shards, bucket):
    bucket.put(str(shards), "bucket/shards-v1.0", recursive=True)
    bucket.pipe("bucket/shards-v1.0/", b"")  # as the console leaves one
    bucket.pipe("bucket/texts/README", b"We are all humans.")
    assert holds_shards("s3://bucket/shards-v1.0")
    assert len(gather(["s3://bucket/shards-v1.0"], *OF).train)
    assert not holds_shards("s3://bucket/texts/README")
    assert not holds_shards("s3://bucket/texts")


def test_pages_are_not_crawled(monkeypatch):
    monkeypatch.setattr("nextword.corpus.addresses._open_system", lambda _: 1 / 0)
    assert not holds_shards("http://host/ebooks/1342")


def test_text_at_an_address_is_text(afar):
    system = fsspec.filesystem("memory")
    system.pipe("/texts/a.txt", "\n".join(LINES).encode())
    assert not holds_shards("memory://texts")
    assert not holds_shards("memory://texts/a.txt")
    assert not holds_shards("memory://afar/*.ds")
    assert holds_shards(afar)
    assert len(gather(["memory://texts"], *OF).train)
    system.rm("/texts", recursive=True)
