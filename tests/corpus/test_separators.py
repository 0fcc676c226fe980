"""Documents within one text file."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nextword.base.errors import CorpusError
from nextword.corpus.documents import find_files, read_pieces
from nextword.corpus.options import CorpusSettings
from nextword.corpus.separators import MARKS, asked, find_mark, line_of
from nextword.corpus.tally import Tally

END = "<|endoftext|>"


def documents(path, separator="auto", tally=None):
    found, held = [], ""
    asked_for = CorpusSettings(separator=separator)
    for piece in read_pieces(find_files([str(path)]), asked_for, tally):
        held += piece.text
        if piece.is_last:
            found.append(held)
            held = ""
    assert not held
    return found


def test_a_mark_on_lines_of_its_own_ends_a_document(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text(f"one\ntwo\n{END}\nthree\n{END}\n\nfour\n{END}\n")
    tally = Tally()
    assert documents(file, tally=tally) == ["one\ntwo\n", "three\n", "\nfour\n"]
    known = tally.as_dict()
    assert known["separators"] == {"count": 3, "first": f"{file}: '{END}'"}
    assert known["records"] == 3
    assert "empty" not in known


@pytest.mark.parametrize("mark", MARKS)
@pytest.mark.parametrize("end", ["\n", "\r\n", "  \n"])
def test_every_well_known_mark_is_found(tmp_path, mark, end):
    file = tmp_path / "a.txt"
    file.write_bytes(f"one\n{mark}{end}two\n{mark}{end}three".encode())
    assert documents(file) == ["one\n", "two\n", "three"]


def test_one_mark_alone_or_within_a_line_is_text(tmp_path):
    file = tmp_path / "a.txt"
    for text in (f"one\n{END}\ntwo", f"a {END} b {END} c\n{END} d\n", f"x{END}\nx{END}\n"):
        file.write_text(text)
        assert documents(file) == [text]


def test_none_reads_marks_as_text_and_a_text_asked_for_parts_anywhere(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text(text := f"one\n{END}\ntwo{END}three\n{END}\n")
    assert documents(file, "none") == [text]
    assert documents(file, END) == ["one\n", "two", "three\n"]
    file.write_text("one\n---\ntwo\n---\nthree -- - four")
    assert documents(file, r"\n---\n") == ["one", "two", "three -- - four"]
    assert documents(file, "---") == ["one\n", "two\n", "three -- - four"]


def test_blank_lines_part_paragraphs(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("\n\none\ntwo\n\n \t\nthree\r\n\r\nfour\n\n\n")
    tally = Tally()
    assert documents(file, "blank-lines", tally) == ["one\ntwo", "three\r", "four"]
    assert "empty" not in tally.as_dict()


def test_an_empty_part_is_counted(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text(f"{END}\none\n{END}\n{END}\n \n{END}\ntwo\n")
    tally = Tally()
    assert documents(file, tally=tally) == ["one\n", "two\n"]
    known = tally.as_dict()
    assert known["empty"] == {"count": 2, "first": f"{file}, document 2"}
    assert known["records"] == 4


def test_an_empty_separator_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("one")
    with pytest.raises(CorpusError, match=r"--corpus\.separator is empty; name"):
        documents(tmp_path / "a.txt", "")


def test_a_file_of_marks_alone_holds_no_text(tmp_path):
    (tmp_path / "a.txt").write_text(f"{END}\n" * 5)
    with pytest.raises(CorpusError, match="holds no text"):
        documents(tmp_path / "a.txt")


PARTS = st.sampled_from(
    [
        "a",
        "b\n",
        "\n",
        "\r\n",
        " ",
        "\t",
        END,
        END[:5],
        END[5:],
        "---",
        "--",
        "\f",
        "</s>",
        "x" * 50,
    ]
)


@given(st.lists(PARTS, max_size=60).map("".join), st.lists(st.integers(1, 9), max_size=40))
def test_how_the_text_arrives_changes_nothing(text, sizes):
    blocks, place = [], 0
    for size in sizes:
        blocks.append(text[place : place + size])
        place += size
    blocks.append(text[place:])
    for separator in (line_of(END), line_of("\f"), asked("---"), asked("blank-lines")):
        assert joined(separator, blocks) == joined(separator, [text])
        whole = "".join(part + (end or "") for part, end in separator.divide(blocks))
        assert whole == text
    first, second = find_mark(blocks), find_mark([text])
    assert (first and first.name) == (second and second.name)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    parts=st.lists(st.sampled_from(["one\n", "two\nlines\n", "", " \n"]), min_size=2, max_size=9)
)
def test_documents_and_empty_parts_add_up(tmp_path, parts):
    inner = parts[1:-1]
    parts = ["first\n", *inner, "last\n"]
    file = tmp_path / "a.txt"
    file.write_text(f"{END}\n".join(parts))
    tally = Tally()
    found = documents(file, END, tally)
    assert found == [part for part in parts if part.strip()]
    known = tally.as_dict()
    empty = known.get("empty", {"count": 0})["count"]
    assert empty == sum(not part.strip() for part in parts)
    assert known["records"] == len(parts) == len(found) + empty
    assert known["separators"]["count"] == len(parts) - 1


def joined(separator, blocks):
    found, held = [], ""
    for part, end in separator.divide(blocks):
        held += part
        if end is not None:
            found.append((held, end))
            held = ""
    return [*found, (held, None)]


def test_memory_holds_a_block_and_no_more():
    blocks = (f"{'word ' * 1000}\n" for _ in range(400))
    sizes = [len(part) for part, _ in line_of(END).divide(blocks)]
    assert sum(sizes) == 400 * 5001
    assert max(sizes) < 3 * 5001
