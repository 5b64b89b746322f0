"""What is wrong with a template's links and images, with its place: found before a mail is sent, without following anything.

Jinja's tags stand for values that nobody knows yet: what they make of a link is not judged.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from difflib import get_close_matches
from html.parser import HTMLParser
from typing import NamedTuple
from urllib.parse import urlsplit

from jinja2 import nodes

from hub.mail import fields, template
from hub.mail.hidden import JINJA

SCHEMES = ("http", "https", "mailto", "tel", "sms", "webcal", "geo")
"""What mail programs open. Most take links of other schemes out."""
IMAGES = ("http", "https", "cid", "data")
SCRIPTS = ("javascript", "vbscript", "data", "file")
FILES = ("html", "htm", "php", "aspx", "jsp", "pdf", "png", "jpg", "jpeg", "gif", "svg", "webp")
LINKS = {"a", "area", "mj-button", "mj-image", "mj-navbar-link", "mj-social-element"}
PICTURES = {"img", "mj-image"}
_VALUE = "\ue000"  # a character of private use: stands for each character of a Jinja tag
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_ATTRIBUTE = re.compile(r"""([^\s"'>/=]+)(?:(\s*=\s*["']?)(?:(?<=")[^"]*"|(?<=')[^']*'|[^\s>]*))?""")
"""The name of an attribute, and what stands between it and its value."""
_IN_TEXT = re.compile(r"\bhttps?:/(?!/)\S*|\bhttps?://(?=[\s/?#]|$)", re.IGNORECASE)
_WHOLE = "a mail has no address of its own: write all of it, with https://"


class Fault(NamedTuple):
    """A mistake or, with `hint`, something that could be better. Line and column count from 1."""

    line: int
    column: int
    what: str
    fix: str
    hint: bool = False


def html_faults(source: str) -> list[Fault]:
    """Of an HTML or MJML template, in reading order."""
    reader = _Reader()
    reader.feed(_without_values(source))
    reader.close()
    return sorted(reader.found)


def text_faults(source: str) -> list[Fault]:
    """Links of a plain-text template that lead nowhere."""
    text = _without_values(source)
    found = []
    for match in _IN_TEXT.finditer(text):
        wrong = link_fault(match[0])
        if wrong is not None:
            line, column = _after(text[: match.start()])
            found.append(Fault(line + 1, column + 1, *wrong))
    return found


def _without_values(source: str) -> str:
    """The source with Jinja's tags made something that is no HTML, every other character at its place."""
    return JINJA.sub(lambda tag: re.sub(r"[^\n]", _VALUE, tag[0]), source)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[Fault] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(reversed(attrs))  # of two attributes of a name the first counts
        if tag in LINKS and "href" in given:
            self._add("href", link_fault(given["href"] or ""))
        if tag not in PICTURES:
            return
        if "src" in given:
            self._add("src", image_fault(given["src"] or ""))
        if "alt" not in given and not any(_VALUE in name for name in given):
            fix = 'add alt="...": many read mails without images; alt="" where it is an ornament'
            self._add("", (f"the image has no alt text: {_shown(given.get('src') or tag)}", fix), hint=True)

    handle_startendtag = handle_starttag

    def _add(self, attribute: str, wrong: tuple[str, str] | None, *, hint: bool = False) -> None:
        if wrong is None:
            return
        line, column = self.getpos()
        if attribute:
            tag = self.get_starttag_text() or ""
            values = (each for each in _ATTRIBUTE.finditer(tag) if each[2] and each[1].lower() == attribute)
            place = next(values, None)
            down, along = _after(tag[: place.end(2)] if place else "")
            line, column = line + down, along if down else column + along
        self.found.append(Fault(line, column + 1, *wrong, hint))


def _after(text: str) -> tuple[int, int]:
    """(lines, columns) that a text takes."""
    return text.count("\n"), len(text) - text.rfind("\n") - 1


def link_fault(link: str) -> tuple[str, str] | None:
    """(what is wrong with a link, what to do); None where nothing is."""
    if (wrong := _of_any(link, "link")) is not None:
        return wrong
    if link.startswith("#"):
        return ("the link # leads nowhere", "write where it leads") if link == "#" else None
    return _by_scheme(link, SCHEMES, "link")


def image_fault(address: str) -> tuple[str, str] | None:
    """The same of an image's address."""
    return _of_any(address, "image") or _by_scheme(address, IMAGES, "image")


def _of_any(link: str, kind: str) -> tuple[str, str] | None:
    if not link.strip():
        return f"the {kind} has no address", "write one, or take the tag out"
    if any(mark in link for mark in ("{{", "}}", "{%", "%}")):
        return f"the {kind} {_shown(link)} has braces without their counterpart", "write {{ ... }}"
    if re.search(r"\s", link):
        return f"the {kind} {_shown(link)} has blanks", "take them out, or write %20"
    return None


def _by_scheme(link: str, known: tuple[str, ...], kind: str) -> tuple[str, str] | None:
    scheme = _SCHEME.match(link)
    name = scheme[1].lower() if scheme else ""
    if scheme is None or ("." in name and name not in known):
        return _without_scheme(link, kind)
    rest = link[scheme.end() :]
    if name in known:
        return _of_web(link, rest, kind) if name in ("http", "https") else _of_others(link, name, rest)
    if name in SCRIPTS:
        return f"the {kind} {_shown(link)} is taken out by mail programs", "lead to a page that does it"
    close = get_close_matches(name, known, 1, cutoff=0.6)
    fix = f"did you mean {close[0]}:?" if close else f"mail programs know {', '.join(known)}"
    return f"the {kind} {_shown(link)} has the unknown scheme {name}:", fix


def _without_scheme(link: str, kind: str) -> tuple[str, str] | None:
    if link.startswith("//"):
        return f"the {kind} {_shown(link)} has no scheme", f"write https:{_shown(link)}"
    if _VALUE in re.split(r"[/?#]", link, maxsplit=1)[0]:
        return None  # the scheme is in what will be filled in
    host = re.match(r"[\w-]+(\.[\w-]+)*\.([A-Za-z]{2,})(:\d+)?(?=[/?#]|$)", link)
    if host is not None and host[2].lower() not in FILES:
        return f"the {kind} {_shown(link)} has no scheme", f"write https://{_shown(link)}"
    fix = "write its whole address, or carry it: see `images` of messages" if kind == "image" else _WHOLE
    return f"the {kind} {_shown(link)} leads nowhere", fix


def _of_web(link: str, rest: str, kind: str) -> tuple[str, str] | None:
    if not rest.startswith("//"):
        fix = f"write {link[: len(link) - len(rest)]}//{_shown(rest.lstrip('/'))}"
        return f"the {kind} {_shown(link)} has no // after its scheme", fix
    host = re.split(r"[/?#]", rest[2:], maxsplit=1)[0]
    if host.lower() in ("http:", "https:"):
        return f"the {kind} {_shown(link)} has two schemes", "take one out"
    if not host.rpartition("@")[2].partition(":")[0].strip("."):
        return f"the {kind} {_shown(link)} names no host", _WHOLE
    try:
        urlsplit(link.replace(_VALUE, "1")).port  # noqa: B018  # asking is what finds the mistake
    except ValueError as error:
        return f"the {kind} {_shown(link)} is no URL: {error}", "mend it"
    return None


def _of_others(link: str, name: str, rest: str) -> tuple[str, str] | None:
    target = rest.partition("?")[0]
    if name == "mailto" and _VALUE not in target and not re.search(r"[^@,]@[^@,]", target):
        return f"the link {_shown(link)} names no address", "write mailto:ann@example.com"
    if not target and name != "mailto":
        return f"the link {_shown(link)} names nobody and nothing", f"write {name}:..."
    return None


def _shown(link: str) -> str:
    """A link as an error quotes it, with what is filled in as an ellipsis."""
    text = re.sub(rf"{_VALUE}+", "...", " ".join(link.split()))
    return text if len(text) <= 60 else f"{text[:57]}..."


def rough_size(html: str) -> int:
    """Bytes of a template's HTML that are there whatever is filled in."""
    return len(JINJA.sub("", html).encode())


def dead_defaults(source: str) -> Iterator[tuple[str, int]]:
    """(field, line) of each `contact.field | default(...)`, which leaves a blank as it is, without an `or` behind it."""
    tree = template.HTML.parse(source)
    followed = {
        id(node)
        for either in tree.find_all(nodes.Or)
        for node in (either.left, *either.left.find_all(nodes.Filter))
    }
    for node in tree.find_all(nodes.Filter):
        if node.name in ("default", "d") and node.node is not None and id(node) not in followed:
            field = fields.field_of(node.node)
            if field is not None and not fields.replaces_blanks(node):
                yield field, node.lineno
