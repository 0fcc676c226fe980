"""Pages of the Web: what they are about, without what stands around it."""

import pytest

from tests.corpus.formats.reading import read, refusal

SENTENCES = " ".join(f"We are all humans born to make mistake number {n}." for n in range(30))
PAGE = f"""<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>On mistakes</title>
<script>var menu = "Subscribe";</script></head><body>
<nav><ul><li><a href="/">Home</a><li><a href="/a">About us</a><li><a href="/b">Log in</a></ul>
</nav>
<main><article><h1>On mistakes</h1><p>{SENTENCES}</p><h2>Why</h2><p>Because é {SENTENCES}</p>
</article></main><aside>Subscribe to our newsletter! We use cookies.</aside>
<footer>Copyright 2020. All rights reserved. <a href="/p">Privacy policy</a></footer></body>
</html>"""


@pytest.mark.parametrize("charset", ["utf-8", "latin-1"])
def test_a_page_gives_its_article(charset, tmp_path):
    (tmp_path / "a.html").write_bytes(PAGE.replace("utf-8", charset).encode(charset))
    (document,), counted = read(tmp_path / "a.html")
    assert document.split("\n") == ["On mistakes", SENTENCES, "Why", f"Because é {SENTENCES}"]
    assert counted == {"boilerplate": 19}


def test_a_short_page_is_all_text(tmp_path):
    (tmp_path / "a.html").write_text("<p>We are all humans,<p>born to make mistakes.")
    assert read(tmp_path / "a.html")[0] == ["We are all humans,\n\nborn to make mistakes."]


def test_a_page_of_nothing_holds_no_text(tmp_path):
    for content in ("", "<!-- -->", "<html><script>1</script></html>"):
        (tmp_path / "a.html").write_text(content)
        assert "holds no text" in refusal(tmp_path / "a.html")


def test_scripts_without_an_end_take_no_longer_than_others(tmp_path):
    (tmp_path / "a.html").write_text("<p>We are all humans.</p>" + "<script>x " * 50_000)
    assert read(tmp_path / "a.html")[0] == ["We are all humans."]


@pytest.mark.parametrize(
    ("said", "raw", "text"),
    [
        ("undefined", "é".encode(), "é"),
        ("iso-8859-1", b"\x93so\x94", "“so”"),
        ("", b"caf\xe9", "café"),
        ("utf-8", b"caf\xe9", "café"),
        ("x\0y", "é".encode(), "é"),
    ],
)
def test_pages_are_decoded_as_browsers_do(said, raw, text, tmp_path):
    (tmp_path / "a.html").write_bytes(f'<meta charset="{said}"><p>'.encode() + raw + b" is it")
    assert read(tmp_path / "a.html")[0] == [f"{text} is it"]


def test_pages_as_deep_as_old_ones_are_read_to_their_end(tmp_path):
    (tmp_path / "a.html").write_text("".join(f"<p><font>word {n} " for n in range(600)))
    assert "word 599" in read(tmp_path / "a.html")[0][0]
