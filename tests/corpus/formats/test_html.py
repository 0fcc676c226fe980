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
