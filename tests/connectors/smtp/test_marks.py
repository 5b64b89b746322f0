"""Headers for the relay's events: on the wire and nowhere else."""

from __future__ import annotations

from connectors.smtp.marks import Marked
from hub.sdk.relay import Offer, Reply

OFFERS = [
    Offer(1, "bounce+abc123@m.example", "ann@example.com", b"Subject: Hi\r\n\r\nHi\r\n", plain=True),
    Offer(2, "bounce@m.example", "bob@example.com", b"Subject: Hi\r\n\r\nHi\r\n"),
]


class Giver:
    def __init__(self) -> None:
        self.left, self.told = list(OFFERS), list[tuple[str, Offer]]()

    def next(self) -> Offer | None:
        return self.left.pop(0) if self.left else None

    async def more(self) -> bool:
        return False

    def begun(self, offer: Offer) -> None:
        self.told.append(("begun", offer))

    def answered(self, offer: Offer, reply: Reply) -> None:
        self.told.append(("answered", offer))

    def unsent(self, offer: Offer, reason: str) -> None:
        self.told.append(("unsent", offer))

    def unknown(self, offer: Offer, reason: str) -> None:
        self.told.append(("unknown", offer))


async def test_the_mail_that_leaves_is_marked_and_the_one_that_comes_back_is_not() -> None:
    giver = Giver()
    marked = Marked(giver, {"X-SMTPAPI": '{{"unique_args": {{"mailyard": "{token}"}}}}', "X-Tag": "{token}"})
    first = marked.next()
    assert first is not None
    assert first.content == (
        b'X-SMTPAPI: {"unique_args": {"mailyard": "abc123"}}\r\nX-Tag: abc123\r\nSubject: Hi\r\n\r\nHi\r\n'
    )
    assert first.plain
    second = marked.next()
    assert second == OFFERS[1]  # without a token there is nothing to say
    assert marked.next() is None
    marked.begun(first)
    marked.unsent(first, "lost")
    marked.answered(second, Reply(250, "ok", "data"))
    assert giver.told == [("begun", OFFERS[0]), ("unsent", OFFERS[0]), ("answered", OFFERS[1])]
