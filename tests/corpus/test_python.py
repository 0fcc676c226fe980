from nextword.corpus.builtin.python import read_python_prose


def test_there_are_about_two_megabytes_of_prose():
    size = sum(len(text.encode()) for text in read_python_prose())
    assert 1_000_000 < size < 4_000_000


def test_topics_and_docstrings_are_read_and_nothing_is_imported(tmp_path):
    (tmp_path / "pydoc_data").mkdir()
    (tmp_path / "pydoc_data" / "topics.py").write_text(
        "topics = {'a': 'About a.', 'b': 'About b.'}"
    )
    words = (
        "A module that would stop the program if it were imported, and says so at some length here."
    )
    (tmp_path / "danger.py").write_text(f'"""{words}"""\nraise SystemExit(3)\n')
    (tmp_path / "broken.py").write_text("def (:")
    assert list(read_python_prose(tmp_path)) == [words + "\n\n", "About a.\n", "About b.\n"]
