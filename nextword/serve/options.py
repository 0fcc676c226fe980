"""Settings of the endpoint."""

from dataclasses import dataclass

from nextword.base.options import option


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """Who may ask, how much, and how many at once."""

    host: str = option("127.0.0.1", "address to listen on; others than this machine's need a key")
    port: int = option(8000, "to listen on; 0 takes any that is free", minimum=0, maximum=65_535)
    api_key: str | None = option(
        None, "whoever asks must send it as a bearer token", rule="NEXTWORD_API_KEY, else none"
    )
    insecure: bool = option(False, "listen on other addresses without a key")
    allow_hosts: tuple[str, ...] = option(
        (), "names by which this server may be called, beside its own address"
    )
    allow_origins: tuple[str, ...] = option(
        (), "pages that may ask from a browser, as https://example.org; * for all (CORS)"
    )
    slots: int = option(
        None,
        "texts that are written side by side, for each model",
        minimum=1,
        maximum=1024,
        rule="64, or as many as a quarter of what memory is free holds",
        of=("the machine",),
    )
    queue: int = option(256, "texts that may wait; beyond, 429 is answered", minimum=0)
    timeout_seconds: float = option(
        600.0, "the longest that a request may take", above=0, unit="seconds"
    )
    body_bytes: int = option(
        4 << 20, "the largest request", minimum=1024, maximum=1 << 30, unit="bytes"
    )
    most_choices: int = option(128, "texts that one request may ask for", minimum=1, maximum=4096)
    grace_seconds: float = option(
        30.0, "what is under way may take so long when the server ends", minimum=0, unit="seconds"
    )
