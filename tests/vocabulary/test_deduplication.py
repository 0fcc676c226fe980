from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nextword.vocabulary import deduplication
from nextword.vocabulary.deduplication import merge_ranges, remove_ranges
from nextword.vocabulary.shards import TokenStream

END = 0
VOCAB = 70_000


def write(folder, documents, cuts, sidecar=True):
    """Write shards whose borders stand anywhere; token t spells t bytes."""
    tokens = [token for document in documents for token in [*document, END]]
    ends = np.cumsum([len(document) + 1 for document in documents]).astype(np.int64)
    sizes = np.array([sum(document) for document in documents], dtype=np.int64)
    borders = [0, *sorted(min(cut, len(tokens)) for cut in cuts), len(tokens)]
    files = []
    for number, (start, stop) in enumerate(pairwise(borders)):
        file = folder / f"train-{number:05d}.ds"
        np.array(tokens[start:stop], dtype="<u4").tofile(file)
        inside = (ends > start) & (ends <= stop)
        (ends[inside] - start).astype("<u8").tofile(f"{file}.index")
        if sidecar:
            sizes[inside].astype("<u8").tofile(f"{file}.bytes")
        files.append(file)
    return files, borders


def model(documents, ranges):
    """Remove by plain Python: what stays of each document, which is whole or nothing or between."""
    stays, position = [], 0
    gone = {place for start, stop in ranges for place in range(start, stop)}
    for document in documents:
        kept = [token for at, token in enumerate(document) if position + at not in gone]
        touched = any(at in gone for at in range(position, position + len(document) + 1))
        if kept or not touched:
            stays.append(kept)
        position += len(document) + 1
    return stays


documents = st.lists(st.lists(st.integers(1, VOCAB - 1), max_size=8), min_size=1, max_size=8)
cuts = st.lists(st.integers(0, 70), max_size=4)
ranges = st.lists(
    st.tuples(st.integers(0, 70), st.integers(0, 20)).map(lambda pair: (pair[0], sum(pair))),
    max_size=6,
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(documents, cuts, ranges, st.sampled_from([1, 3, 1000]))
def test_what_remains_is_the_complement(tmp_path_factory, documents, cuts, ranges, chunk):
    folder = tmp_path_factory.mktemp("shards")
    files, borders = write(folder, documents, cuts)
    ranges = [(start, min(stop, borders[-1])) for start, stop in ranges]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deduplication, "CHUNK_TOKENS", chunk)
        remove_ranges(files, VOCAB, np.array(ranges).reshape(-1, 2), lambda ids: int(ids.sum()))
    expected = model(documents, ranges)
    stream = TokenStream(files, VOCAB, END)
    assert [stream.document(number).tolist() for number in range(stream.num_documents)] == [
        [*document, END] for document in expected
    ]
    assert len(stream) == sum(len(document) + 1 for document in expected)
    assert stream.document_bytes.tolist() == [sum(document) for document in expected]
    assert len(list(folder.iterdir())) == 3 * len(files)  # nothing written aside is left
    gone = {place for start, stop in ranges for place in range(start, stop)}
    for file, start, stop in zip(files, borders, borders[1:], strict=False):
        if gone >= set(range(start, stop)):  # at most an end-of-text remains of this shard
            assert file.stat().st_size <= 4


@settings(deadline=None)
@given(ranges)
def test_merged_ranges_cover_the_same_and_touch_nowhere(ranges):
    merged = merge_ranges(np.array(ranges).reshape(-1, 2)).tolist()
    covered = {place for start, stop in ranges for place in range(start, stop)}
    assert {place for start, stop in merged for place in range(start, stop)} == covered
    assert all(stop < start for (_, stop), (start, _) in pairwise(merged))
    assert all(start < stop for start, stop in merged)


def test_a_shard_left_empty_is_an_empty_file_with_an_empty_index(tmp_path):
    files, _ = write(tmp_path, [[1, 2], [3, 4], [5, 6]], [3, 6])
    remove_ranges(files, VOCAB, np.array([[3, 5]]), len)
    assert [file.stat().st_size for file in files] == [12, 0, 12]
    assert (tmp_path / "train-00001.ds.index").stat().st_size == 0
    assert (tmp_path / "train-00001.ds.bytes").stat().st_size == 0


def test_an_open_end_and_absent_sidecars_are_no_trouble(tmp_path):
    files, _ = write(tmp_path, [[1, 2], [3, 4]], [], sidecar=False)
    with open(files[0], "ab") as stream:
        stream.write(np.array([7, 8, 9], dtype="<u4").tobytes())
    remove_ranges(files, VOCAB, np.array([[1, 2], [7, 8]]), len)
    stream = TokenStream(files, VOCAB, END)
    assert stream.read(0, 100).tolist() == [1, END, 3, 4, END, 7, 9]
    assert stream.document_ends.tolist() == [2, 5]
    assert stream.document_bytes is None


def test_bytes_never_fall_below_zero(tmp_path):
    files, _ = write(tmp_path, [[1, 2, 3]], [])
    remove_ranges(files, VOCAB, np.array([[0, 1]]), lambda ids: 1000)
    assert TokenStream(files, VOCAB, END).document_bytes.tolist() == [0]
