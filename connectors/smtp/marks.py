"""Headers that a relay wants with each mail, so that its events name it: put before the others as the mail leaves."""

from __future__ import annotations

from collections.abc import Mapping

from hub.sdk.content import sound
from hub.sdk.relay import Offer, Reply, Source, token_of


class Marked:
    """A source whose mails have these headers. Who gave a mail gets it back as it was: it may be offered to another relay."""

    def __init__(self, source: Source, marks: Mapping[str, str]) -> None:
        self._source = source
        self._marks = tuple(marks.items())
        self._given: dict[int, Offer] = {}

    def next(self) -> Offer | None:
        offer = self._source.next()
        if offer is None:
            return None
        self._given[offer.id] = offer
        token = token_of(offer.return_path)
        if not token:
            return offer
        head = "".join(f"{name}: {value.format(token=token)}\r\n" for name, value in self._marks)
        return offer._replace(content=sound(head.encode("ascii")) + offer.content)

    async def more(self) -> bool:
        return await self._source.more()

    def begun(self, offer: Offer) -> None:
        self._source.begun(self._given[offer.id])

    def answered(self, offer: Offer, reply: Reply) -> None:
        self._source.answered(self._given.pop(offer.id), reply)

    def unsent(self, offer: Offer, reason: str) -> None:
        self._source.unsent(self._given.pop(offer.id), reason)

    def unknown(self, offer: Offer, reason: str) -> None:
        self._source.unknown(self._given.pop(offer.id), reason)
