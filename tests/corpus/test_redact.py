"""Personal data by its form: what is found, what is not, and that chunks make no difference."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nextword.corpus.redact import REACH, Redactor, personal
from nextword.corpus.tally import Tally
from tests.corpus.formats.reading import read

PEM = (
    "-----BEGIN RSA PRIVATE KEY-----\n"
    + "MIIEpAIBAAKC+/8=\n" * 60
    + "-----END RSA PRIVATE KEY-----"
)
FOUND = {
    "emails": [
        "ann@example.org",
        "ann.b+news@mail.example.co.uk",
        "o'neil@example.org",
        "jürgen@müller.example",
    ],
    "phones": [
        "+44 20 7946 0958",
        "+1 (555) 010-9999",
        "+49 (0)30 901820",
        "0049 30 901820",
        "(555) 010-9999".replace("010", "210"),
        "555-210-9999",
        "1-800-555-0199",
        "030 901820-12",
        "0171/2345678",
        "06 12 34 56 78",
        "020 7946 0958",
    ],
    "keys": [
        PEM,
        "AKIAIOSFODNN7EXAMPLE",
        "ghp_" + "a1B2" * 9,
        "hf_" + "a1B2" * 9,
        "sk-proj-" + "a1B2" * 8,
        "xoxb-123456789012-abcdefghij",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9",
    ],
}
KEPT = [
    "on 2024-01-31 at 10:15:00, or 31.12.2023, or 12/31/2023",
    "ISBN 978-0-306-40615-7 and 0-306-40615-2",
    "3.14159265358979, 1,000,000,000 and 100 000 000 people",
    "from 1914-1918 to 1939-1945",
    "version 10.0.19045.3803, 192.168.100.200, a [12345678] and 0x7fff12345678",
    "see @ann and user@localhost, or a @ b.c",
    "the risk-averse task-force, sk-learn, the password is long, secret: yes",
    "password = input('the password')",
    "10 000 20 000 30 000",
    "@pytest.fixture\n@pytest.mark.slow\nx = 1\n@app.route('/')",
    "05-12-2023 14:30, 01-01-1970 00:00:00, 01-15-2023 2023-01-15",
    "sk-toggleable__content-arrow",
]


@pytest.mark.parametrize(
    ("kind", "text"), [(kind, text) for kind, texts in FOUND.items() for text in texts]
)
def test_what_is_personal_is_found_whole(kind, text):
    for around in ("write {} now", "{}", "({}).", "at:\n{}\nor", '"{}",'):
        whole = around.format(text)
        start = whole.index(text)
        assert list(personal(whole)) == [(start, start + len(text), kind)], whole


@pytest.mark.parametrize("text", KEPT)
def test_what_only_looks_so_is_kept(text):
    assert list(personal(text)) == []


def test_of_what_is_assigned_the_value_alone_goes(tmp_path):
    lines = [
        'API_KEY = "{}"', "password: '{}'", 'SECRET_KEY = "{}"', 'aws_secret_access_key = "{}"'
    ]  # fmt: skip
    text = "\n".join(lines)
    (tmp_path / "a.txt").write_text(text.replace("{}", "abcd1234efgh"))
    documents, counted = read(tmp_path / "a.txt", redact=True)
    assert documents == [text.replace("{}", "<KEY>")]
    assert counted == {"keys": 4}


def test_nothing_is_replaced_where_nobody_asked(tmp_path):
    (tmp_path / "a.txt").write_text("write to ann@example.org\n")
    assert read(tmp_path / "a.txt") == (["write to ann@example.org\n"], {})
    assert read(tmp_path / "a.txt", redact=True) == (["write to <EMAIL>\n"], {"emails": 1})


def in_chunks(text, sizes):
    tally, parts, place = Tally(), [], 0
    redactor = Redactor(tally)
    for size in sizes:
        parts.append(redactor.take(text[place : place + size], "here", is_last=False))
        place += size
    parts.append(redactor.take(text[place:], "here", is_last=True))
    return "".join(parts), {kind: found.count for kind, found in tally.findings.items()}


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.lists(st.integers(0, 3 * REACH), max_size=6))
def test_chunks_make_no_difference(seed, sizes):
    draw = random.Random(seed)
    every = [text for texts in FOUND.values() for text in texts] + KEPT
    text = " ".join(
        draw.choice(every) if draw.random() < 0.2 else "word " * draw.randrange(900)
        for _ in range(60)
    )
    assert in_chunks(text, sizes) == in_chunks(text, [])


def test_a_text_without_blanks_is_not_held_for_ever():
    redactor = Redactor(Tally())
    given = "".join(redactor.take("x" * REACH, "here", is_last=False) for _ in range(20))
    assert len(given) >= 17 * REACH


@pytest.mark.parametrize(
    "part",
    [
        "-----BEGIN PRIVATE KEY-----",
        "1",
        "1 ",
        "+1 ",
        "a.",
        "a@",
        "@a.",
        "0123 ",
        "eyJaaaaaaaaaaa.",
        "password = ",
        "(555) ",
    ],
)
def test_no_text_takes_very_long(part):
    list(personal(part * (60_000 // len(part))))  # a pattern that tries all ways would never end
