"""The bulk transaction on an open session (RFC 5321, RFC 2920): driven by what arrives, without coroutine or future per mail.

Of two messages at most something is on the wire: `_body`, whose end was written and not yet answered, and `_head`,
whose envelope was written. One rule keeps both sides in step: before anything is written, nothing may be left
unread. Whoever answers what was not asked, or otherwise than can be, is out of step; then the session ends, and who
had no answer is told so.
"""

from __future__ import annotations

import asyncio

from connectors.smtp.envelope import Extensions, commands, reply, with_end
from connectors.smtp.learning import CLEAN, Learning
from connectors.smtp.replies import Replies
from hub.sdk.relay import NotSent, Offer, Pipelining, Reply, Source

NOTHING, RESET, MAIL, RCPT, DATA, END, DOT, QUIT = range(8)
"""Whose reply is due next."""
STAGES = {MAIL: "mail", RCPT: "rcpt", DATA: "data", END: "data"}
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
        self.relay, self.extensions, self.learning = relay, extensions, learning
        self.level: Pipelining = learning.level(extensions.pipelining)
        self.why: str | None = None
        self._timeout, self._messages, self._left = timeout_seconds, messages, messages or -1
        self._loop = asyncio.get_running_loop()
        self._gone: asyncio.Future[None] = self._loop.create_future()  # the connection is closed
        self._turn: asyncio.Future[None] | None = None  # done when all is answered and the source has no next
        self._source: Source | None = None
        self._body: Offer | None = None
        self._head: Offer | None = None
        self._next: Offer | None = None  # taken from the source, its envelope not written yet
        self._refusal: Reply | None = None  # of `_head`, while the rest of its envelope is unanswered
        self._script: list[
            tuple[int, bytes]
        ] = []  # commands that wait for an answer before them, the last is next
        self._due = NOTHING
        self._reset = False  # the relay may still hold a refused envelope
        self._clean = 0
        self._found = learning.found
        self._replies = Replies()
        self._paused = self._held = False
        self._seen, self._unwritten = self._loop.time(), 0

    def attach(self, transport: asyncio.Transport, early: bytes = b"") -> None:
        """Take over an open session; `early` came behind the last answer and was not read yet."""
        self._transport = transport
        transport.set_protocol(self)
        self._timer = self._loop.call_later(self._timeout / 4, self._tick)
        if transport.is_closing():
            self._over("connection lost")
        elif early:
            self.data_received(early)

    # -- from the hub -------------------------------------------------------------------------------------------

    async def run(self, source: Source) -> None:
        """See `hub.sdk.relay.RelaySession.run`."""
        if self._source is not None:
            raise RuntimeError("a session runs one source at a time")
        if self.why is not None:
            raise NotSent(self._worded(self.why))
        self._source = source
        try:
            while True:
                self._turn = self._loop.create_future()
                self._seen = self._loop.time()
                self._step()
                await self._turn
                if not self._left:
                    await self.quit()
                    if await source.more():
                        raise NotSent(self._worded(f"enough messages on this connection ({self._messages})"))
                    return
                if not await self._more(source):
                    return
        except BaseException as error:
            self._turn = None
            self._over(f"the session was ended ({type(error).__name__})")
            raise
        finally:
            self._source = self._turn = None

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
        if self.why is None and self._due == NOTHING and not self._replies.begun:
            self._due = QUIT
            self._transport.write(b"QUIT\r\n")
            await asyncio.wait((self._gone,), timeout=min(self._timeout, GOODBYE_SECONDS))
        self._over("the session was ended")
        if not self._gone.done():
            self._transport.abort()
            await asyncio.wait((self._gone,), timeout=GOODBYE_SECONDS)

    # -- from the connection ------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self.why is not None:
            return
        self._seen = self._loop.time()
        replies = self._replies
        try:
            for code, text in replies.feed(data):
                self._reply(code, text)
                if self.why is not None:
                    return
            if replies.broken:
                self._out_of_step(replies.broken)
            elif (
                self._due == NOTHING
                and self._turn is not None
                and not self._turn.done()
                and not replies.begun
            ):
                self._step()
        except Exception as error:  # of the source
            self._over(f"the session was ended ({type(error).__name__})", error)

    def connection_lost(self, exc: Exception | None) -> None:
        self._over("connection lost" + (f" ({type(exc).__name__})" if exc else ""))
        if not self._gone.done():
            self._gone.set_result(None)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        if self._held and self.why is None:
            self._held = False
            try:
                self._step()
            except Exception as error:  # of the source
                self._over(f"the session was ended ({type(error).__name__})", error)

    def _tick(self) -> None:
        """One timer a session: four times within the time that an answer may take, while one is awaited."""
        now, unwritten = self._loop.time(), self._transport.get_write_buffer_size()
        if unwritten != self._unwritten or self._turn is None or self._turn.done():
            self._seen, self._unwritten = now, unwritten
        if now - self._seen >= self._timeout:
            self._over(f"no answer within {self._timeout:g} s")
        else:
            self._timer = self._loop.call_later(self._timeout / 4, self._tick)

    # -- what is written ----------------------------------------------------------------------------------------

    def _step(self) -> None:
        """Nothing is due and nothing unread: write what comes next."""
        if self._paused:
            self._held = True
            return
        if self._transport.is_closing():
            return  # connection_lost is about to say so
        if self.learning.found is not self._found:
            self._adapt()
        source, head = self._source, self._head
        assert source is not None
        if self._script:
            self._due, command = self._script.pop()
            self._transport.write(command)
        elif head is not None:  # its 354 came
            behind = b""
            if self.level == "full" and (envelope := self._take(source)):
                behind = b"%b%bDATA\r\n" % envelope
            content = with_end(head.content, behind)
            source.begun(head)
            self._body, self._head, self._next = head, self._next, None
            self._due = END
            self._transport.write(content)
        elif envelope := self._take(source):
            self._head, self._next = self._next, None
            self._open(*envelope)
        elif self._turn is not None:
            self._turn.set_result(None)

    def _take(self, source: Source) -> tuple[bytes, bytes] | None:
        """MAIL and RCPT of the next message, which is then `_next`. What may not leave is answered here."""
        while self._left and (offer := source.next()) is not None:
            self._next = offer
            found = commands(offer, self.extensions)
            if not isinstance(found, Reply):
                self._left -= 1
                return found
            self._next = None
            source.answered(offer, found)
        return None

    def _open(self, mail: bytes, rcpt: bytes) -> None:
        """Write an envelope on its own; a refused one before it is cleared first (RFC 5321, 4.1.1.5)."""
        script = [(DATA, b"DATA\r\n"), (RCPT, rcpt), (MAIL, mail)]
        if self._reset:
            script.append((RESET, b"RSET\r\n"))
            self._reset = False
        if self.level == "off":
            self._script = script
            self._due, command = script.pop()
        else:
            self._due, command = script[-1][0], b"".join([each for _, each in reversed(script)])
        self._transport.write(command)

    # -- what is answered ---------------------------------------------------------------------------------------

    def _reply(self, code: int, text: bytes) -> None:
        """One whole reply. The usual ones first; `_script` holds what is not sent before this answer."""
        due = self._due
        if due == END and code == 250:
            self._taken(code, text)
            self._clean += 1
            if self._clean >= CLEAN:
                self._climb()
        elif due == MAIL and code == 250:
            self._due = NOTHING if self._script else RCPT
        elif due == RCPT and code in (250, 251) and self._refusal is None:
            self._due = NOTHING if self._script else DATA
        elif due == DATA and code == 354 and self._refusal is None:
            self._due = NOTHING
        else:
            self._unusual(due, code, text)

    def _unusual(self, due: int, code: int, text: bytes) -> None:
        if due == QUIT:
            self._over("the session was ended", polite=True)
        elif code == 421:  # at any time: the relay closes (RFC 5321, 3.8)
            if due == END:
                self._taken(code, text)
            words = b" ".join(word for word in text.split() if b"@" not in word)
            self._over(f"the relay closes the session: {reply(code, words, '').text[:200]}", polite=True)
        elif due == END and (code >= 400 or (code < 300 and code not in (220, 221))):
            self._clean = 0
            self._taken(code, text)
        elif due == DATA and code == 354:  # refused before: RFC 2920, 3.1 says how to get out
            self._due, self._script = NOTHING, [(DOT, b".\r\n")]
        elif due in (MAIL, RCPT, DATA) and code >= 400 and not self._blames_us(due, code, text):
            if self._refusal is None:
                self._refusal = reply(code, text, STAGES[due])
            if self._script or due == DATA:
                self._refused()
            else:
                self._due = due + 1
        elif due == DOT and code != 354:
            self._refused()
        elif due == RESET and code == 250:
            self._due = NOTHING if self._script else MAIL
        else:
            self._out_of_step(f"{code} in answer to {STAGES.get(due, 'nothing')}")

    def _taken(self, code: int, text: bytes) -> None:
        """The answer to the end of a message."""
        body, source = self._body, self._source
        assert body is not None
        assert source is not None
        self._body = None
        self._due = NOTHING if self._head is None else MAIL
        source.answered(body, reply(code, text, "data"))

    def _refused(self) -> None:
        """All of a refused envelope is answered."""
        head, refusal, source = self._head, self._refusal, self._source
        assert head is not None
        assert refusal is not None
        assert source is not None
        self._head = self._refusal = None
        self._script, self._due, self._reset = [], NOTHING, True
        source.answered(head, refusal)

    def _blames_us(self, due: int, code: int, text: bytes) -> bool:
        """Whether a refusal is about how we asked: of what was not to be asked so, or of commands that it never saw."""
        if self.level == "off" or code < 500:
            return False
        words = text.lower()
        lost_step = due == DATA and code == 503 and self._refusal is None
        return lost_step or b"pipelin" in words or b"synchroni" in words

    # -- how much at once ---------------------------------------------------------------------------------------

    def _climb(self) -> None:
        """So many messages went well."""
        self._clean = 0
        if self.level == "full":
            self.learning.proved()
        elif self.level == "envelope" and self.learning.try_full(self):
            self.level = "full"

    def _adapt(self) -> None:
        """Something was found in this session or another."""
        self._found = self.learning.found
        if self._found is not None and self._found != "full" and self._head is None:
            self.level = self.learning.level(self.extensions.pipelining)

    # -- the end ------------------------------------------------------------------------------------------------

    def _worded(self, why: str) -> str:
        return f"relay {self.relay}: {why}"

    def _out_of_step(self, what: str) -> None:
        if self.level != "off":
            self.learning.stumbled(self.level)
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
        behind = self._head is not None and self._due in (END, MAIL) and self.level == "full"
        if behind and in_step and not polite and self.learning.unproved(self):
            self.learning.stumbled(
                "full"
            )  # lost with an envelope behind a message: perhaps it bears none there
        self.learning.left(self)
        failed = self._settle(in_step)
        if self._turn is not None and not self._turn.done():
            self._turn.set_exception(error or failed or NotSent(self._worded(why)))

    def _settle(self, in_step: bool) -> Exception | None:
        """Tell the fate of whatever is left. Returns what the source raised, if it did."""
        source, words = self._source, self._worded(self.why or "")
        body, head, behind, refusal = self._body, self._head, self._next, self._refusal
        self._body = self._head = self._next = self._refusal = None
        failed: Exception | None = None
        for offer in (body, head, behind):
            if offer is None or source is None:
                continue
            try:
                if offer is body:
                    source.unknown(offer, f"{words}, no answer after the end of the message")
                elif offer is head and refusal is not None and in_step:
                    source.answered(offer, refusal)
                else:
                    source.unsent(offer, words)
            except Exception as error:
                failed = failed or error
        return failed
