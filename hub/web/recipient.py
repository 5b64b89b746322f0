"""Pages for the people who get mail: who asks, in which language, and the headers that keep a page to itself."""

from __future__ import annotations

import base64
import hashlib
from ipaddress import ip_address, ip_network
from pathlib import Path
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import HTMLResponse

from hub.signing import PREVIEW
from hub.web import wording
from hub.web.pages import page

MAX_BODY = 10_000
STYLE = (Path(__file__).parent / "pages" / "recipient.css").read_text(encoding="utf-8")
_STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
HEADERS = {
    "Cache-Control": "no-store, private",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex",
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
}


def shown(
    request: Request, title: str, *lines: str, person: str | None = None, status: int = 200, **values: object
) -> HTMLResponse:
    """A page; `title` and `lines` are names of `wording.WORDS` or texts. `person` is the contact's language."""
    language = wording.language_of(person, request.headers.get("accept-language", ""))
    words = wording.WORDS[language]
    return page(
        "recipient.html", status, HEADERS, title=words.get(title, title), lines=[words.get(line, line) for line in lines if line],
        language=language, words=words, style=STYLE, **values,
    )  # fmt: skip


def no_token(request: Request) -> HTMLResponse:
    """For a link that is not ours, or is one of a preview."""
    if request.path_params["token"].partition(".")[0] == PREVIEW:
        return shown(request, "preview", "preview_help")
    return shown(request, "damaged", "damaged_help", status=404)


async def form(request: Request) -> dict[str, list[str]] | None:
    """The fields of a posted form; None when it is too large."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            return None
    return parse_qs(body.decode("utf-8", "replace"), max_num_fields=200, keep_blank_values=True)


def origin(request: Request) -> str:
    """The network that a request came from, without the host in it: /24, or /48 of IPv6."""
    try:
        address = ip_address(request.client.host if request.client else "")
    except ValueError:
        return ""
    return str(ip_network(f"{address}/{24 if address.version == 4 else 48}", strict=False))


def masked(email: str) -> str:
    """An address as its owner knows it again, and nobody else can use it."""
    local, _, domain = email.rpartition("@")
    return f"{local[:1]}***@{domain}"
