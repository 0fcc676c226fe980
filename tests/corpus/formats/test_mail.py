"""Mail as the standard library's own mailboxes keep it."""

import mailbox
from email.message import EmailMessage

from tests.corpus.formats.reading import read


def message(text, subject="mistakes", **how):
    made = EmailMessage()
    made["From"], made["Subject"] = "ann@example.org", subject
    made.set_content(text, **how)
    return made


REPLY = (
    "I think so.\n\nOn Mon, 1 Jan 2024 at 10:00, Ben <ben@example.org> wrote:\n\n> Are we born to\n"
    ">> make mistakes?\n\nBye\n\n-- \nAnn\nTel. 1234\n"
)


def test_a_message_is_a_document_without_what_it_quotes(tmp_path):
    box = mailbox.mbox(tmp_path / "a.mbox")
    box.add(message(REPLY, "Re: mistakes"))
    box.add(message("<p>Only <b>HTML</b></p><p>two</p>", "één", subtype="html"))
    both = message("in plain words")
    both.add_alternative("<p>in HTML</p>", subtype="html")
    both.add_attachment(b"\x00\x01", maintype="application", subtype="zip", filename="a.zip")
    box.add(both)
    box.add(message("From here on, a line begins so.\n> all quoted", "latin", charset="latin-1"))
    box.add(message("> all quoted\n", "nothing of one's own"))
    box.close()
    documents, counted = read(tmp_path / "a.mbox")
    assert documents == [
        "Re: mistakes\n\nI think so.\n\nBye",
        "één\n\nOnly HTML\n\ntwo",
        "mistakes\n\nin plain words",
        "latin\n\nFrom here on, a line begins so.",
    ]
    assert counted == {"empty": 1, "quoted": 8}


def test_one_message_in_a_file(tmp_path):
    (tmp_path / "a.eml").write_bytes(message(REPLY).as_bytes())
    assert read(tmp_path / "a.eml") == (["mistakes\n\nI think so.\n\nBye"], {"quoted": 6})


def test_a_character_set_that_nobody_knows_is_read_as_far_as_it_can_be(tmp_path):
    raw = message("We are all humans.").as_bytes().replace(b'charset="utf-8"', b'charset="x-none"')
    assert b"x-none" in raw
    (tmp_path / "a.eml").write_bytes(raw)
    assert read(tmp_path / "a.eml")[0] == ["mistakes\n\nWe are all humans."]
