"""Chats as messengers and assistants export them: a document a day, or a conversation."""

import json

import pytest

from tests.corpus.formats.reading import read, refusal

IPHONE = """\u200e[31.12.23, 23:59:01] Ann: \u200eMessages and calls are end-to-end encrypted.
[31.12.23, 23:59:10] Ann: Hello
you there: yes
[31.12.23, 23:59:11] ~ Ben: \u200eimage omitted
[01.01.24, 00:01:00] ~ Ben: Happy: new year
[01.01.24, 00:02:00] Ann left
"""
ANDROID = """12/31/23, 11:58\u202fPM - Messages and calls are end-to-end encrypted.
12/31/23, 11:59\u202fPM - Ann: Hello
you there: yes
12/31/23, 11:59\u202fPM - Ben: <Media omitted>
1/1/24, 12:01\u202fAM - Ben: Happy: new year
1/1/24, 12:02\u202fAM - Ann: This message was deleted
"""
SAID = ["Ann: Hello\nyou there: yes", "Ben: Happy: new year"]


@pytest.mark.parametrize("text", [IPHONE, ANDROID, IPHONE.replace("\n", "\r\n")])
def test_a_chat_of_whatsapp_is_a_document_a_day(text, tmp_path):
    (tmp_path / "_chat.txt").write_bytes(text.encode())
    assert read(tmp_path / "_chat.txt") == (SAID, {"notices": 3})


@pytest.mark.parametrize(
    "text",
    [
        "12/31/23, 11:59 PM - that is when it began.\nWe are all humans.\nBorn to make mistakes.\n",
        "[1] Ann: a note\n[2] Ben: another\n[3] Ann: a third\n",
        "Ann: Hello\nBen: Hello\n",
        "2024-01-05 10:15 - Woke up late.\n2024-01-06 10:15 - Again.\n2024-01-07 9:15 - Not.\n",
        "[2024-01-05 10:15:00] Server started\n" * 9,
        "12/05/2023 10:15 - Dear diary\nnothing: new\n",
    ],
)
def test_no_other_text_is_taken_for_a_chat(text, tmp_path):
    (tmp_path / "a.txt").write_text(text)
    assert read(tmp_path / "a.txt") == ([text], {})


def test_whoever_asks_for_no_separator_gets_the_text_as_it_stands(tmp_path):
    (tmp_path / "a.txt").write_text(IPHONE)
    assert read(tmp_path / "a.txt", separator="none") == ([IPHONE], {})


CHAT = {
    "name": "Ben",
    "type": "personal_chat",
    "id": 1,
    "messages": [
        {"id": 1, "type": "service", "date": "2023-12-31T23:58:00", "action": "x", "text": ""},
        {"id": 2, "type": "message", "date": "2023-12-31T23:59:00", "from": "Ann", "text": "Hello"},
        {
            "id": 3,
            "type": "message",
            "date": "2024-01-01T00:01:00",
            "from": "Ben",
            "text": ["see ", {"type": "link", "text": "https://example.org"}, " and rest"],
        },
        {"id": 4, "type": "message", "date": "2024-01-01T00:02:00", "from": None, "text": "gone"},
        {"id": 5, "type": "message", "date": "2024-01-01T00:03:00", "from": "Ben", "text": ""},
    ],
}


@pytest.mark.parametrize("whole", [False, True])
def test_a_chat_of_telegram_is_a_document_a_day(whole, tmp_path):
    value = {"about": "x", "chats": {"list": [CHAT, CHAT]}} if whole else CHAT
    (tmp_path / "result.json").write_text(json.dumps(value))
    said = ["Ann: Hello", "Ben: see https://example.org and rest\n?: gone"]
    assert read(tmp_path / "result.json") == (said * (1 + whole), {"notices": 2 * (1 + whole)})


def node(parent, role, *parts):
    content = {"content_type": "text", "parts": list(parts)}
    return {"parent": parent, "message": {"author": {"role": role}, "content": content}}


def test_conversations_with_assistants_are_documents(tmp_path):
    chatgpt = {
        "title": "t",
        "mapping": {
            "a": {"parent": None, "message": None},
            "b": node("a", "system", ""),
            "c": node("b", "user", "Who makes mistakes?"),
            "d": node("c", "assistant", "Nobody."),
            "e": node("c", "assistant", "All of us.", {"asset_pointer": "file"}),
        },
        "current_node": "e",
    }
    claude = {
        "name": "t",
        "chat_messages": [
            {"sender": "human", "text": "Who makes mistakes?"},
            {"sender": "assistant", "text": "All of us."},
        ],
    }
    plain = {
        "messages": [
            {"role": "user", "content": "Who makes mistakes?"},
            {"role": "assistant", "content": "All of us."},
        ]
    }
    (tmp_path / "a.json").write_text(json.dumps([chatgpt, claude, plain]))
    assert read(tmp_path / "a.json") == (
        ["user: Who makes mistakes?\n\nassistant: All of us."] * 3,
        {},
    )


def test_lists_of_texts_and_objects_and_what_is_none(tmp_path):
    file = tmp_path / "a.json"
    file.write_text(json.dumps(["one", {"text": "two"}, {"text": None}, ""]))
    assert read(file) == (["one", "two"], {"null": 1, "empty": 1})
    file.write_text(json.dumps([{"body": "one"}]))
    assert read(file, field="body") == (["one"], {})
    assert "entry 1: no text in the field" in refusal(file)
    assert "found: body" in refusal(file)
    file.write_text('{"text": "one"}\n{"text": "two"}\n')
    assert "the name ends in .jsonl" in refusal(file)
    file.write_text("[1, ")
    assert "line 1: not JSON" in refusal(file)
    file.write_text("[" * 100_000)
    assert "cannot be read as JSON" in refusal(file)


def test_settings_in_a_folder_are_no_text(tmp_path):
    (tmp_path / "package.json").write_text('{"name": "x", "version": "1"}')
    (tmp_path / "tokenizer.json").write_text('{"model": {"vocab": {"text": 1, "messages": 2}}}')
    (tmp_path / "words.json").write_text("[1, 2]")
    (tmp_path / "torn.json").write_text('{"messages": [')
    (tmp_path / "result.json").write_text(json.dumps(CHAT))
    documents, counted = read(tmp_path)
    assert len(documents) == 2
    assert counted["other_files"] == 4


def test_the_front_matter_of_markdown_is_no_text(tmp_path):
    text = "# One\n\nWe are all humans.\n\n---\n\nBorn to make mistakes.\n"
    (tmp_path / "a.md").write_text(f"---\ntitle: One\ntags:\n  - a\n- b\n---\n\n{text}")
    assert read(tmp_path / "a.md") == ([text], {"front_matter": 1})
    (tmp_path / "a.md").write_bytes(b"---\r\ntitle: One\r\n---\r\n\r\nTwo.\r\n")
    assert read(tmp_path / "a.md") == (["Two.\r\n"], {"front_matter": 1})
    for line in ("-a: b\n", "a: b\r\n", " - b\r\n", "\r\n"):  # and no end: in no time
        endless = "---\n" + line * 5000
        (tmp_path / "a.md").write_bytes(endless.encode())
        assert read(tmp_path / "a.md") == ([endless], {})
    for kept in (text, f"---\n\nA rule is no front matter.\n\n---\n{text}"):
        (tmp_path / "a.md").write_text(kept)
        assert read(tmp_path / "a.md") == ([kept], {})
