"""Settings of the corpus."""

from dataclasses import dataclass

from nextword.base.options import option

HOLDOUT_SHARE = 0.1
HOLDOUT_TOKENS = 1_000_000
STORIES, STORIES_MASKED = 7_500, 60_000


@dataclass(frozen=True, kw_only=True)
class CorpusSettings:
    """Which text, and how it is read."""

    builtin: str = option("stories", "the built-in corpus to train on when no path is given")
    stories: int | None = option(
        None,
        "how many stories to draw",
        minimum=20,
        rule="7,500; for masked models 60,000",
        of=("objective.name",),
    )
    field: str = option("text", "the field of a JSON line, or the column, that holds the text")
    format: str = option(
        "auto",
        "how files are read: auto goes by the name's ending; standard input has none, and is text",
        choices=(
            *("auto", "text", "jsonl", "csv", "tsv", "parquet", "json", "html", "pdf", "docx"),
            *("epub", "mbox", "eml", "srt", "vtt", "warc", "wet"),
        ),
    )
    errors: str = option(
        "strict",
        "what to do with bytes that are not UTF-8: stop, or put U+FFFD and count",
        choices=("strict", "replace"),
    )
    separator: str = option(
        "auto",
        "what parts the documents of a text file: a text, blank-lines, or none; auto takes a "
        "well-known mark (<|endoftext|>, </s>, a form feed) that stands alone on several lines",
    )
    holdout: float | None = option(
        None,
        "share of the text held out",
        above=0.0,
        maximum=0.5,
        unit="fraction",
        rule="0.1, and at most a million tokens",
        of=("the text",),
    )
    drop_duplicates: bool = option(
        False,
        "leave out of training what nearly repeats a held-out text or exactly an earlier one",
    )
    redact: bool = option(
        False,
        "put <EMAIL>, <PHONE> and <KEY> for e-mail addresses, telephone numbers and keys, by form",
    )
    seed: int = option(0, "of the built-in stories", minimum=0)

    @property
    def num_stories(self) -> int:
        """How many stories to draw where nothing more is known."""
        return STORIES if self.stories is None else self.stories
