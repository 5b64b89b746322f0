"""Links led through the hub, and the pixel that tells of opens, where a message wants them.

A link's address is signed with its delivery and stands in the URL, so that the click endpoint leads nowhere else.
"""

from __future__ import annotations

import html as html_lib
import re
from collections.abc import Collection, Mapping
from urllib.parse import quote

from jinja2.sandbox import SandboxedEnvironment

from hub.config.settings import Tracking
from hub.mail import program
from hub.mail.hidden import JINJA, hide
from hub.mail.program import NotCompilable, Program, Text, Token, Values
from hub.signing import Signer

_HREF = re.compile(
    r"""(<a(?:\s(?:[^>"']|"[^"]*"|'[^']*')*?)?\shref\s*=\s*)(?:"([^"]+)"|'([^']+)')""", re.IGNORECASE
)
_OWN = re.compile(r"\{\{\s*unsubscribe_url\s*\}\}")


class Links:
    """The links of one message."""

    def __init__(self, track: Tracking, base_url: str, signer: Signer) -> None:
        self.track, self.base_url, self.signer = track, base_url, signer

    def unsubscribe_url(self, ident: bytes) -> str:
        return f"{self.base_url}/u/{self.signer.token_bytes('unsubscribe', ident).decode()}"

    def open_url(self, ident: bytes) -> str:
        return f"{self.base_url}/o/{self.signer.token_bytes('open', ident).decode()}"

    def compiled(
        self,
        source: str,
        environment: SandboxedEnvironment,
        contact_fields: Collection[str],
        special: Mapping[str, Program],
    ) -> Program:
        """An HTML template's program with its links tracked. Raises NotCompilable."""
        hidden, back = hide(source)
        found = dict(special)

        def mark(match: re.Match[str]) -> str:
            link = back(match[2] or match[3])
            if not self.track.clicks or _OWN.fullmatch(link.strip()):
                return match[0]
            if "{%" in link:
                raise NotCompilable("a link with a branch inside")
            special = self._link(link, environment, contact_fields)
            if special is None:
                return match[0]
            name = f"mailyard_link_{len(found)}"
            found[name] = special
            return f'{match[1]}"{{{{ {name} }}}}"'

        return program.compiled(back(_HREF.sub(mark, hidden)), environment, contact_fields, found)

    def _link(
        self, link: str, environment: SandboxedEnvironment, contact_fields: Collection[str]
    ) -> Program | None:
        """What stands in a link's place: for a link that is the same for everybody all but the token is known."""
        if not JINJA.search(link):
            url = html_lib.unescape(link)
            return self._known(url) if _to_the_web(url) else None
        address = program.compiled(link, environment, contact_fields)
        return (Text(lambda values: self.tracked(program.text_of(address, values), values)),)

    def _known(self, url: str) -> Program:
        signer, signed = self.signer, url.encode()
        token = Token(lambda values: signer.token_bytes("click", values["ident"], signed))
        return (
            html_lib.escape(f"{self.base_url}/c/"),
            token,
            html_lib.escape(f"?u={quote(url, safe='')}"),
        )

    def rendered(self, html: str, values: Values) -> str:
        """The same, in HTML that is filled in already."""
        if not self.track.clicks:
            return html
        return _HREF.sub(lambda found: self._replaced(found, values), html)

    def _replaced(self, found: re.Match[str], values: Values) -> str:
        link = found[2] or found[3]
        address = self.tracked(link, values)
        return found[0] if address == link else f'{found[1]}"{address}"'

    def tracked(self, escaped: str, values: Values) -> str:
        """The address of a link as it stands in HTML, led through the hub unless it is our own or leads elsewhere."""
        url = html_lib.unescape(escaped)
        if not _to_the_web(url) or url == values["unsubscribe_url"]:
            return escaped
        token = self.signer.token_bytes("click", values["ident"], url.encode()).decode()
        return html_lib.escape(f"{self.base_url}/c/{token}?u={quote(url, safe='')}")


def _to_the_web(url: str) -> bool:
    return url[:8].lower().startswith(("http://", "https://"))
