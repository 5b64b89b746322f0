"""Links led through the hub and told apart for web analytics, where a message wants it.

A link's address is signed and stands in the URL, so that the click endpoint leads nowhere else.
What can be known of a link before there is a recipient is done when the message is compiled.
"""

from __future__ import annotations

import html as html_lib
import re
from collections.abc import Callable, Collection, Mapping
from urllib.parse import quote

from jinja2.sandbox import SandboxedEnvironment

from hub.mail import program
from hub.mail.encoding import printed
from hub.mail.hidden import JINJA, hide
from hub.mail.program import NotCompilable, Program, Text, Token, Values
from hub.signing import Signer

HREF = re.compile(
    r"""(<a(?:\s(?:[^>"']|"[^"]*"|'[^']*')*?)?\shref\s*=\s*)(?:"([^"]+)"|'([^']+)')""", re.IGNORECASE
)
"""A link in HTML: what stands before its address, and the address in either kind of quotes."""
_ADDRESS = re.compile(r"https?://(?:[^\s<>\"()\[\]]|\([^\s<>\"()\[\]]*\))+", re.IGNORECASE)
"""A link in plain text; a sentence's end after it is not part of it."""
_OWN = re.compile(r"\{\{-?\s*(?:unsubscribe_url|preferences_url|confirm_url|trap_url)\s*-?\}\}")


class Links:
    """The links of one message. `utm` adds its parameters to a URL."""

    def __init__(
        self, *, clicks: bool, base_url: str, signer: Signer, utm: Callable[[str], str] | None = None
    ) -> None:
        self.clicks, self.base_url, self.signer, self.utm = clicks, base_url, signer, utm

    def own(self, *, html: bool) -> dict[str, Program]:
        """The mail's own links, as far as a template prints them as they are: all but the token is known."""
        base = printed(self.base_url, html=html)
        return {
            "unsubscribe_url": (f"{base}/u/", Token("unsubscribe")),
            "preferences_url": (f"{base}/p/", Token("unsubscribe")),
            "confirm_url": (f"{base}/confirm/", Token("unsubscribe")),
            "open_url": (f"{base}/o/", Token("open")),
            "trap_url": (f"{base}/t/", Token("click")),
        }

    def led(self, url: str) -> tuple[str, str]:
        """A link led through the hub: what stands before the recipient's token, and what after it."""
        return f"{self.base_url}/c/", f".{self.signer.link(url)}?u={quote(url, safe='')}"

    # --- compiled once ---------------------------------------------------------------------------------------

    def compiled(
        self,
        source: str,
        environment: SandboxedEnvironment,
        contact_fields: Collection[str],
        special: Mapping[str, Program],
        *,
        html: bool,
    ) -> Program:
        """A template's program with its links in place. Raises NotCompilable."""
        if not (self.clicks and html) and self.utm is None:
            return program.compiled(source, environment, contact_fields, special)
        hidden, back = hide(source)
        found = dict(special)

        def instead(link: str) -> str | None:
            """What the template holds in a link's place; None: the link as it is."""
            if _OWN.fullmatch(link.strip()):
                return None
            if "{%" in link:
                raise NotCompilable("a link with a branch inside")
            if JINJA.search(link):
                special = self._dynamic(program.compiled(link, environment, contact_fields), html=html)
            else:
                url = html_lib.unescape(link) if html else link
                if not _to_the_web(url):
                    return None
                url = self._with_utm(url)
                if not (self.clicks and html):
                    return html_lib.escape(url) if html else url
                special = self._known(url)
            name = f"mailyard_link_{len(found)}"
            found[name] = special
            return f"{{{{ {name} }}}}"

        def in_html(match: re.Match[str]) -> str:
            made = instead(back(match[2] or match[3]))
            return match[0] if made is None else f'{match[1]}"{made}"'

        def in_text(match: re.Match[str]) -> str:
            link, rest = _without_sentence_end(match[0])
            made = instead(back(link))
            return match[0] if made is None else made + rest

        placed = HREF.sub(in_html, hidden) if html else _ADDRESS.sub(in_text, hidden)
        return program.compiled(back(placed), environment, contact_fields, found)

    def _dynamic(self, address: Program, *, html: bool) -> Program:
        """A link that each recipient has another one of."""
        written = program.as_text(address)
        if html:
            return (Text(lambda values: self._placed(written(values), values)),)
        return (Text(lambda values: self._with_utm(written(values))),)

    def _known(self, url: str) -> Program:
        """A link that is the same for everybody: all but the token is known."""
        before, after = self.led(url)
        return html_lib.escape(before), Token("click"), html_lib.escape(after)

    def _with_utm(self, url: str) -> str:
        return url if self.utm is None else self.utm(url)

    # --- for each recipient ----------------------------------------------------------------------------------

    def rendered(self, text: str, values: Values, *, html: bool) -> str:
        """The same, in a part that is filled in already."""
        if html:
            wanted = self.clicks or self.utm is not None
            return HREF.sub(lambda found: self._in_html(found, values), text) if wanted else text
        return text if self.utm is None else _ADDRESS.sub(lambda found: self._in_text(found, values), text)

    def _in_html(self, found: re.Match[str], values: Values) -> str:
        link = found[2] or found[3]
        address = self._placed(link, values)
        return found[0] if address == link else f'{found[1]}"{address}"'

    def _in_text(self, found: re.Match[str], values: Values) -> str:
        link, rest = _without_sentence_end(found[0])
        return (link if _our_own(link, values) else self._with_utm(link)) + rest

    def _placed(self, escaped: str, values: Values) -> str:
        """The address of a link as it stands in HTML, led through the hub unless it is our own or leads elsewhere."""
        url = html_lib.unescape(escaped)
        if not _to_the_web(url) or _our_own(url, values):
            return escaped
        if self.utm is not None:
            url = self.utm(url)
            escaped = html_lib.escape(url)
        if not self.clicks:
            return escaped
        before, after = self.led(url)
        return html_lib.escape(f"{before}{values['click']}{after}")


def _our_own(url: str, values: Values) -> bool:
    """Whether it leads to a page of the hub, about the recipient's own mail."""
    return url == values["unsubscribe_url"] or url in (
        values.get("preferences_url"),
        values.get("confirm_url"),
        values.get("trap_url"),
    )


def _to_the_web(url: str) -> bool:
    return url[:8].lower().startswith(("http://", "https://"))


def _without_sentence_end(link: str) -> tuple[str, str]:
    kept = link.rstrip(".,;:!?'")
    return kept, link[len(kept) :]
