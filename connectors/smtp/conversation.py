"""What is said on a session for each mail (RFC 5321), and how far ahead of the answers (RFC 2920).

Of two messages at most something is on the wire: `_body`, whose end was written and is not yet answered, and `_head`,
whose envelope was written. One rule keeps both sides in step: before anything is written, nothing may be left unread
(wire.py). Whoever answers what was not asked, or otherwise than can be, is out of step.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from connectors.smtp.envelope import Envelope, Extensions, envelope, reply, with_end
from connectors.smtp.learning import CLEAN, Learning
from hub.sdk.relay import Offer, Pipelining, Reply, Source

NOTHING, RESET, MAIL, RCPT, DATA, END, DOT, QUIT = range(8)
"""Whose reply is due next."""
STAGES = {RESET: "RSET", MAIL: "mail", RCPT: "rcpt", DATA: "data", END: "the message", DOT: "a lone dot"}
_ROUND = re.compile(rb"250 ([^\r\n]*)\r\n250 [^\r\n]*\r\n25[01] [^\r\n]*\r\n354 [^\r\n]*\r\n")
_ROUND_BYTES = 2_048


class OutOfStep(Exception):
    """An answer that cannot be: from here on nobody knows which answer belongs to what."""


class Closing(Exception):
    """The relay ends the session, or we took leave."""


class Conversation:
    """The state of one session, moved by `step` when nothing is due and by `hear` for each reply. Never waits."""

    def __init__(self, extensions: Extensions, learning: Learning, messages: int) -> None:
        self.extensions, self.learning = extensions, learning
        self.level: Pipelining = learning.level(extensions.pipelining)
        self.left = messages or -1  # how many messages may still be begun; negative for no limit
        self.due = NOTHING
        self.source: Source | None = None
        self.write: Callable[[bytes], None]
        self._body: Offer | None = None
        self._head: Offer | None = None
        self._next: Offer | None = None  # taken from the source, its envelope not written yet
        self._dotted = False  # whether the last one taken has lines that begin with a dot
        self._refusal: Reply | None = None  # of `_head`, while the rest of its envelope is unanswered
        self._script: list[
            tuple[int, bytes]
        ] = []  # commands that wait for an answer before them, the last is next
        self._reset = False  # the relay may still hold a refused envelope
        self._clean = 0
        self._found = learning.found

    # -- what is written ----------------------------------------------------------------------------------------

    def step(self, source: Source) -> bool:
        """Nothing is due: write what comes next. Returns False when there is nothing to write."""
        if self.learning.found is not self._found:
            self._adapt()
        head = self._head
        if self._script:
            self.due, command = self._script.pop()
            self.write(command)
        elif head is not None:  # its 354 came
            dotted, found = self._dotted, self._take(source) if self.level == "full" else None
            if found is None:
                content = with_end(head.content, dotted=dotted)
            else:
                content = with_end(head.content, found[0], found[1], b"DATA\r\n", dotted=dotted)
            source.begun(head)
            self._body, self._head, self._next = head, self._next, None
            self.due = END
            self.write(content)
        elif (found := self._take(source)) is not None:
            self._head, self._next = self._next, None
            self._open(found)
        else:
            return False
        return True

    def _take(self, source: Source) -> Envelope | None:
        """The envelope of the next message, which is then `_next`. What may not leave is answered here."""
        while self.left and (offer := source.next()) is not None:
            self._next = offer
            found = envelope(offer, self.extensions)
            if not isinstance(found, Reply):
                self.left -= 1
                self._dotted = found[2]
                return found
            self._next = None
            source.answered(offer, found)
        return None

    def _open(self, found: Envelope) -> None:
        """Write an envelope on its own; a refused one before it is cleared first (RFC 5321, 4.1.1.5)."""
        mail, rcpt, _ = found
        script = [(DATA, b"DATA\r\n"), (RCPT, rcpt), (MAIL, mail)]
        if self._reset:
            script.append((RESET, b"RSET\r\n"))
            self._reset = False
        self.due, command = script.pop()
        if self.level == "off":
            self._script = script
        else:
            command = b"".join([command, *(each for _, each in reversed(script))])
        self.write(command)

    def leave(self) -> None:
        """Take leave; nothing is due."""
        self.due = QUIT
        self.write(b"QUIT\r\n")

    # -- what is answered ---------------------------------------------------------------------------------------

    def hear_round(self, data: bytes) -> bool:
        """Whether these are, all as usual and in one piece, the answers to a message and to the envelope behind it; then
        they were heard. It spares a fast relay's mails four times `hear`. Raises what the source raises."""
        if self.due != END or self._head is None or len(data) > _ROUND_BYTES:
            return False
        found = _ROUND.fullmatch(data)
        if found is None:
            return False
        self._taken(250, found[1])
        self._clean += 1
        if self._clean >= CLEAN:
            self._climb()
        self.due = NOTHING
        return True

    def hear(self, code: int, text: bytes) -> None:
        """One whole reply. The usual ones first; `_script` holds what waits for it. Raises OutOfStep and Closing."""
        due = self.due
        if due == END and code == 250:
            self._taken(code, text)
            self._clean += 1
            if self._clean >= CLEAN:
                self._climb()
        elif due == MAIL and code == 250:
            self.due = NOTHING if self._script else RCPT
        elif due == RCPT and code in (250, 251) and self._refusal is None:
            self.due = NOTHING if self._script else DATA
        elif due == DATA and code == 354 and self._refusal is None:
            self.due = NOTHING
        else:
            self._unusual(due, code, text)

    def _unusual(self, due: int, code: int, text: bytes) -> None:
        if due == QUIT:
            raise Closing("the session was ended")
        if code == 421:  # at any time (RFC 5321, 3.8)
            if due == END:
                self._taken(code, text)
            words = b" ".join(word for word in text.split() if b"@" not in word)
            raise Closing(f"the relay closes the session: {reply(code, words, '').text[:200]}")
        if due == END and (code >= 400 or (code < 300 and code not in (220, 221))):
            self._clean = 0
            self._taken(code, text)
        elif due == DATA and code == 354:  # refused before: RFC 2920, 3.1 says how to get out
            self.due, self._script = NOTHING, [(DOT, b".\r\n")]
        elif due in (MAIL, RCPT, DATA) and code >= 400 and not self._blames_us(due, code, text):
            if self._refusal is None:
                self._refusal = reply(code, text, STAGES[due])
            if self._script or due == DATA:
                self._refused()
            else:
                self.due = due + 1
        elif due == DOT and code != 354:
            self._refused()
        elif due == RESET and code == 250:
            self.due = NOTHING if self._script else MAIL
        else:
            raise OutOfStep(f"{code} in answer to {STAGES.get(due, 'nothing')}")

    def _taken(self, code: int, text: bytes) -> None:
        """The answer to the end of a message."""
        body, source = self._body, self.source
        assert body is not None
        assert source is not None
        self._body = None
        self.due = NOTHING if self._head is None else MAIL
        source.answered(body, reply(code, text, "data"))

    def _refused(self) -> None:
        """All of a refused envelope is answered."""
        head, refusal, source = self._head, self._refusal, self.source
        assert head is not None
        assert refusal is not None
        assert source is not None
        self._head = self._refusal = None
        self._script, self.due, self._reset = [], NOTHING, True
        source.answered(head, refusal)

    def _blames_us(self, due: int, code: int, text: bytes) -> bool:
        """Whether a refusal is about how we asked: of commands so close together, or of one that it did not see."""
        if self.level == "off" or code < 500:
            return False
        words = text.lower()
        unseen = due == DATA and code == 503 and self._refusal is None
        return unseen or b"pipelin" in words or b"synchroni" in words

    # -- how much at once ---------------------------------------------------------------------------------------

    def _climb(self) -> None:
        """So many messages went well."""
        self._clean = 0
        if self.level == "full":
            self.learning.proved()
        elif self.level == "envelope" and self.learning.try_full(self):
            self.level = "full"

    def _adapt(self) -> None:
        """Something was found, here or on another session, or what was found is forgotten."""
        if self.learning.found is None and self._script:
            return  # forgotten in the middle of an envelope
        self._found = self.learning.found
        if self._found != "full":
            self.level = self.learning.level(self.extensions.pipelining)

    @property
    def misses_answers(self) -> bool:
        """Whether an envelope was refused in part, and the answers to the rest of it never came."""
        return self._refusal is not None and self.level != "off"

    @property
    def tries_too_much(self) -> bool:
        """Whether a session that is lost now was lost with an envelope behind a message, which never went well yet."""
        behind = self._head is not None and self.due in (END, MAIL) and self.level == "full"
        return behind and self.learning.unproved(self)

    # -- the end ------------------------------------------------------------------------------------------------

    def settle(self, reason: str, *, in_step: bool) -> Exception | None:
        """The session is over: tell the fate of whatever is left. Returns what the source raised, if it did."""
        left, refusal = (self._body, self._head, self._next), self._refusal
        self._body = self._head = self._next = self._refusal = None
        self.learning.left(self)
        failed: Exception | None = None
        for place, offer in enumerate(left):
            if offer is None or self.source is None:
                continue
            try:
                if place == 0:
                    self.source.unknown(offer, f"{reason}, no answer after the end of the message")
                elif place == 1 and refusal is not None and in_step:
                    self.source.answered(offer, refusal)
                else:
                    self.source.unsent(offer, reason)
            except Exception as error:
                failed = failed or error
        return failed
