"""Subtitles of films, in each of their forms."""

import pytest

from tests.corpus.formats.reading import read, refusal

SAID = "We are all humans\nborn to make mistakes, {}\nare we not?"
SRT = (
    "1\r\n00:00:01,000 --> 00:00:02,000\r\n<i>We are</i>\r\nall humans\r\n\r\n"
    "2\r\n00:00:03,000 --> 00:00:04,000\r\nborn to make mistakes, {}\r\n\r\n"
    "3\r\n00:00:04,000 --> 00:00:05,000\r\n<font color=red>are we not?</font>\r\n"
)
VTT = (
    "WEBVTT\n\nNOTE of the translator\n\n00:01.000 --> 00:02.000 align:start\n<v Ann>We are all "
    "humans\n\n00:03.000 --> 00:04.000\nborn to make mistakes, {}\n\n00:04.000 --> 00:05.000\n"
    "are we not?\n"
)
SSA = (
    "[Script Info]\nScriptType: v4.00+\n\n[V4+ Styles]\nFormat: Name, Fontname\n\n[Events]\n"
    "Format: Layer, Start, End, Style, Name, "
    "MarginL, MarginR, MarginV, Effect, Text\n"
    "Dialogue: 0,0:00:01.00,0:00:02.00,Default,,0,0,0,,{\\i1}We are{\\i0}\\Nall humans\n"
    "Comment: 0,0:00:02.00,0:00:03.00,Default,,0,0,0,,not said\n"
    "Dialogue: 0,0:00:03.00,0:00:04.00,Default,,0,0,0,,born to make mistakes, WORD\n"
    "Dialogue: 0,0:00:04.00,0:00:05.00,Default,,0,0,0,,are we not?\n"
)


@pytest.mark.parametrize("ending", ["srt", "vtt", "ass"])
def test_what_is_said_is_read_without_times_and_marks(ending, tmp_path):
    text = {"srt": SRT, "vtt": VTT, "ass": SSA}[ending].replace("{}", "één").replace("WORD", "één")
    (tmp_path / f"a.{ending}").write_bytes(text.encode())
    assert read(tmp_path / f"a.{ending}") == ([SAID.format("één")], {})


def test_captions_that_roll_are_said_once(tmp_path):
    (tmp_path / "a.vtt").write_text(
        "WEBVTT\n\n00:00:01.000 --> 00:00:02.000 align:start\n \nwe<00:00:01.500><c> are</c>\n\n"
        "00:00:02.000 --> 00:00:02.010\nwe are\n \n\n00:00:02.010 --> 00:00:04.000\nwe are\n"
        "all<00:00:03.000><c> humans &amp; more</c>\n"
    )
    assert read(tmp_path / "a.vtt")[0] == ["we are\nall humans & more"]


def test_what_is_none_is_said_in_one_line(tmp_path):
    (tmp_path / "a.srt").write_text("We are all humans.")
    assert "no subtitles" in refusal(tmp_path / "a.srt")
