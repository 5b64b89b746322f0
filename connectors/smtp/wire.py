"""The connection under a session: aiosmtplib's transport, taken over. All is driven by what arrives, without coroutine
or future per mail; only a source that has nothing at the moment is awaited.

Before anything is written, nothing may be left unread: so an answer is never taken for one to what came after it.
"""

from __future__ import annotations

import asyncio

from connectors.smtp.conversation import NOTHING, Closing, Conversation, OutOfStep
from connectors.smtp.envelope import Extensions
from connectors.smtp.learning import Learning
from connectors.smtp.replies import Replies
from hub.sdk.relay import NotSent, Source

GOODBYE_SECONDS = 5.0


class Wire(asyncio.Protocol):
    """One session. `why` is None while it can be used, then it says why not."""

    def __init__(
        self,
        relay: str,
        extensions: Extensions,
        learning: Learning,
        *,
        timeout_seconds: float = 60.0,
        messages: int = 0,
    ) -> None:
        self.relay, self.timeout_seconds, self.messages = relay, timeout_seconds, messages
        self.why: str | None = None
        self._talk = Conversation(extensions, learning, messages)
        self._replies = Replies()
        self._loop = asyncio.get_running_loop()
        self._gone: asyncio.Future[None] = self._loop.create_future()  # the connection is closed
        self._turn: asyncio.Future[None] | None = None  # done when all is answered and the source has no next
        self._paused = self._held = False
        self._seen, self._unwritten = self._loop.time(), 0

    def attach(self, transport: asyncio.Transport, early: bytes = b"") -> None:
        """Take over an open session; `early` came behind the last answer and was not read yet."""
        self._transport = transport
        self._talk.write = transport.write
        transport.set_protocol(self)
        self._timer = self._loop.call_later(self.timeout_seconds / 4, self._tick)
        if transport.is_closing():
            self._over("connection lost")
        elif early:
            self.data_received(early)

    @property
    def level(self) -> str:
        """How far ahead of the answers it goes now: `off`, `envelope` or `full`."""
        return self._talk.level

    # -- from the hub -------------------------------------------------------------------------------------------

    async def run(self, source: Source) -> None:
        """See `hub.sdk.relay.RelaySession.run`."""
        if self._talk.source is not None:
            raise RuntimeError("a session runs one source at a time")
        if self.why is not None:
            raise NotSent(self._worded(self.why))
        self._talk.source = source
        try:
            while True:
                self._turn = self._loop.create_future()
                self._seen = self._loop.time()
                self._step(source)
                await self._turn
                if not self._talk.left:
                    await self.quit()
                    if await source.more():
                        raise NotSent(self._worded(f"enough messages on this connection ({self.messages})"))
                    return
                if not await self._more(source):
                    return
        except BaseException as error:
            self._turn = None
            self._over(f"the session was ended ({type(error).__name__})")
            raise
        finally:
            self._talk.source = self._turn = None

    async def _more(self, source: Source) -> bool:
        """Wait for the source, and for the end of the connection."""
        waiting = asyncio.ensure_future(source.more())
        try:
            await asyncio.wait((waiting, self._gone), return_when=asyncio.FIRST_COMPLETED)
            more = waiting.result() if waiting.done() else True
        finally:
            if not waiting.done():
                waiting.cancel()
                await asyncio.wait((waiting,))
        if more and self.why is not None:
            raise NotSent(self._worded(self.why))
        return more

    async def quit(self) -> None:
        """Take leave if nothing is outstanding, and close the connection."""
        idle = self._talk.due == NOTHING and not self._replies.begun
        if self.why is None and idle and not self._transport.is_closing():
            self._talk.leave()
            await asyncio.wait((self._gone,), timeout=min(self.timeout_seconds, GOODBYE_SECONDS))
        self._over("the session was ended")
        if not self._gone.done():
            self._transport.abort()
            await asyncio.wait((self._gone,), timeout=GOODBYE_SECONDS)

    # -- from the connection ------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self.why is not None:
            return
        self._seen = self._loop.time()
        talk, replies = self._talk, self._replies
        try:
            if replies.begun or not talk.hear_round(data):
                for code, text in replies.feed(data):
                    talk.hear(code, text)
                if replies.broken:
                    raise OutOfStep(replies.broken)
            if talk.due == NOTHING and talk.source is not None and not replies.begun:
                self._step(talk.source)
        except OutOfStep as error:
            self._out_of_step(str(error))
        except Closing as error:
            self._over(str(error), polite=True)
        except Exception as error:  # of the source
            self._over(f"the session was ended ({type(error).__name__})", error)

    def _step(self, source: Source) -> None:
        if self._paused:
            self._held = True
        elif self._turn is None or self._turn.done() or self._transport.is_closing():
            return  # idle, or connection_lost is about to say so
        elif not self._talk.step(source):
            self._turn.set_result(None)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        if self._held and self.why is None and (source := self._talk.source) is not None:
            self._held = False
            try:
                self._step(source)
            except Exception as error:  # of the source
                self._over(f"the session was ended ({type(error).__name__})", error)

    def connection_lost(self, exc: Exception | None) -> None:
        self._over("connection lost" + (f" ({type(exc).__name__})" if exc else ""))
        if not self._gone.done():
            self._gone.set_result(None)

    def _tick(self) -> None:
        """One timer a session: four times within the time that an answer may take, while one is awaited."""
        now, unwritten = self._loop.time(), self._transport.get_write_buffer_size()
        if unwritten != self._unwritten or self._turn is None or self._turn.done():
            self._seen, self._unwritten = now, unwritten
        if now - self._seen < self.timeout_seconds:
            self._timer = self._loop.call_later(self.timeout_seconds / 4, self._tick)
        elif self._talk.misses_answers:
            self._out_of_step(f"no answer within {self.timeout_seconds:g} s")
        else:
            self._over(f"no answer within {self.timeout_seconds:g} s")

    # -- the end ------------------------------------------------------------------------------------------------

    def _worded(self, why: str) -> str:
        return f"relay {self.relay}: {why}"

    def _out_of_step(self, what: str) -> None:
        talk = self._talk
        if talk.level != "off":
            talk.learning.stumbled(talk.level)
        self._over(f"out of step: {what}", in_step=False)

    def _over(
        self, why: str, error: Exception | None = None, *, in_step: bool = True, polite: bool = False
    ) -> None:
        """The session ends, once: every message that was taken gets its fate."""
        if self.why is not None:
            return
        self.why = why
        self._timer.cancel()
        if polite:
            self._transport.close()
        else:
            self._transport.abort()
            if self._talk.tries_too_much:
                self._talk.learning.stumbled("full")
        failed = self._talk.settle(self._worded(why), in_step=in_step)
        if self._turn is not None and not self._turn.done():
            self._turn.set_exception(error or failed or NotSent(self._worded(why)))
