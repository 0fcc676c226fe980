"""From a request to the engine and back: texts that are waited for without blocking anybody."""

import asyncio
import math
import threading
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from nextword.serve.engine import Engine, QueueFullError
from nextword.serve.errors import ApiError
from nextword.serve.growing import FAILED, LATE, UNSOUND, Event, Growing, Judged, Piece, Wish


class Courier:
    """Brings events from the engine's thread to the loop, many at a time."""

    def __init__(self) -> None:
        """Belong to the loop that runs now."""
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._parcels: list[tuple[asyncio.Queue[tuple[int, Event]], int, Event]] = []

    def post(self, queue: "asyncio.Queue[tuple[int, Event]]", number: int, event: Event) -> None:
        """Let an event arrive in a queue; from any thread."""
        with self._lock:
            self._parcels.append((queue, number, event))
            if len(self._parcels) > 1:
                return  # somebody is on the way already
        try:
            self._loop.call_soon_threadsafe(self._bring)
        except RuntimeError:  # the loop has ended, and nobody waits any more
            self._parcels.clear()

    def _bring(self) -> None:
        with self._lock:
            parcels, self._parcels = self._parcels, []
        for queue, number, event in parcels:
            queue.put_nowait((number, event))


@dataclass
class Written:
    """A text as far as it has come."""

    growing: Growing
    pieces: list[Piece] = field(default_factory=list)
    prompt: tuple[Judged, ...] = ()
    reason: str | None = None

    @property
    def text(self) -> str:
        """What was written."""
        return "".join(piece.text for piece in self.pieces)

    @property
    def judged(self) -> list[Judged]:
        """Its tokens, each with its log-probability where that was asked for."""
        return [piece.judged for piece in self.pieces]

    @property
    def mean(self) -> float:
        """The mean log-probability of its tokens, by which the best of several is found."""
        found = [one.log_probability or 0.0 for one in self.judged]
        return sum(found) / max(len(found), 1)


class Asking:
    """Texts that one request waits for."""

    def __init__(self, engine: Engine, courier: Courier, wishes: Sequence[Wish]) -> None:
        """Let them wait for their turn.

        Raises:
            ApiError: there is no room.
        """
        self._engine, self._began, self._first = engine, time.monotonic(), True
        self._queue: asyncio.Queue[tuple[int, Event]] = asyncio.Queue()
        numbers: dict[int, int] = {}

        def deliver(text: Growing, event: Event) -> None:
            courier.post(self._queue, numbers[id(text.wish)], event)

        numbers.update({id(wish): number for number, wish in enumerate(wishes)})
        self._wishes = wishes  # kept, for their identity names them
        try:
            texts = engine.submit(*wishes, deliver=deliver)
        except QueueFullError:
            raise ApiError(
                "too many texts wait; ask again later", status=429, code="queue_full"
            ) from None
        self.texts = [Written(text) for text in texts]

    async def events(self) -> AsyncIterator[tuple[int, Event]]:
        """Yield what becomes certain of each text, until all have ended.

        Raises:
            ApiError: it took too long, or the program made a mistake.
        """
        left = len(self.texts)
        try:
            while left:
                number, event = await self._queue.get()
                if event.reason == LATE:
                    self._engine.look_at_the_clock(-math.inf)  # says which time is over
                if event.reason == FAILED:
                    raise ApiError("a mistake of the server's own; its log says more", status=500)
                if event.reason == UNSOUND:
                    raise ApiError(
                        "after this text the model's scores are no numbers; it is damaged",
                        status=500,
                        code="model_damaged",
                    )
                if self._first:
                    self._first = False
                    self._engine.metrics.first_token(time.monotonic() - self._began)
                text = self.texts[number]
                text.pieces += event.pieces
                text.prompt = event.prompt or text.prompt
                text.reason = event.reason
                left -= event.reason is not None
                yield number, event
        finally:
            self.cancel()

    def cancel(self) -> None:
        """Let those go that have not ended."""
        for text in self.texts:
            if text.reason is None:
                self._engine.cancel(text.growing)

    async def all(self) -> list[Written]:
        """Wait until all have ended."""
        async for _ in self.events():
            pass
        return self.texts
