"""What is wrong with the configured messages, for `hub check`: templates against fields, links, files, languages."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import suppress
from email.utils import parseaddr

from hub.config.loading import Config, nearest
from hub.config.settings import LanguageSection, MessageSection
from hub.document import At, Position, Problem
from hub.errors import ConfigError
from hub.mail import footer, lint, parts, template, utm
from hub.mail.preview import GMAIL_CLIPS_BYTES


def messages(config: Config, fields: Collection[str], *, all_known: bool) -> Checker:
    """Everything that is wrong with the messages of a hub.yaml. `fields` are those that templates may name; when not
    `all_known`, since a mapping is wrong, an unknown field is not told."""
    found = Checker(config, fields, all_known)
    found.all()
    return found


def names(config: Config, section: MessageSection, variable: str) -> bool:
    """Whether a message prints a variable for everybody in each of its languages. What cannot be read is told elsewhere."""

    def printed(each: MessageSection | LanguageSection) -> bool:
        source = each.html
        if each.template is not None:
            with suppress(OSError, UnicodeDecodeError):
                source = (config.base_dir / each.template).read_text(encoding="utf-8")
        try:
            return source is None or footer.prints(source, variable)
        except ConfigError:
            return True

    return printed(section) and all(printed(each) for each in section.languages.values())


class Checker:
    """What was found: `problems`, and `hints`, which stop nothing."""

    def __init__(self, config: Config, fields: Collection[str], all_known: bool) -> None:
        self.config, self.document, self.settings = config, config.document, config.settings
        self.fields, self.all_known = fields, all_known
        self.problems: list[Problem] = []
        self.hints: list[Problem] = []

    def _wrong(self, at: At, what: str, fix: str = "", *, key: bool = False) -> None:
        self.problems.append(self.document.problem(at, what, fix, key=key))

    def all(self) -> None:
        for name, section in self.settings.messages.items():
            at: At = ("messages", name)
            address = parseaddr(section.from_)[1]
            if "@" not in address.strip("@") or " " in address:
                self._wrong(
                    (*at, "from"), f"{section.from_!r} holds no address", 'write "Ann <ann@example.com>"'
                )
            self._words(section, at)
            if (section.template is None) == (section.html is None):
                what = (
                    "has neither template nor html"
                    if section.template is None
                    else "has both template and html"
                )
                self._wrong(at, f"message {name} {what}", "give one of them", key=True)
            for language, other in section.languages.items():
                inside: At = (*at, "languages", language)
                self._words(other, inside)
                if other.template is not None and other.html is not None:
                    self._wrong(inside, "it has both template and html", "give one of them", key=True)
            self._files(section, at)
            try:
                utm.of_message(self.settings, name)
            except ConfigError as error:
                self._wrong((*at, "utm"), error.what, error.fix)

    def _words(self, section: MessageSection | LanguageSection, at: At) -> None:
        """The templates of a message, or of one of its languages."""
        for key in ("subject", "preheader", "text", "html"):
            if source := getattr(section, key):
                self._template(source, (*at, key), key)
        if section.template is not None:
            self._template_file(section.template, (*at, "template"))

    def _files(self, section: MessageSection, at: At) -> None:
        """Attachments and images: that they are there, are shown, and do not make the mail too large."""
        base, size = self.config.base_dir, 0
        for number, name in enumerate(section.attachments):
            size += self._file(lambda name=name: parts.attached(base / name), (*at, "attachments", number))  # type: ignore[misc]
        shown = self._shown(section)
        for image, name in section.images.items():
            place: At = (*at, "images", image)
            size += self._file(lambda name=name: parts.shown(base / name, "x"), place)  # type: ignore[misc]
            if image not in shown:
                self._wrong(place, f"no HTML shows the image {image}", f'write src="cid:{image}"', key=True)
        for image in sorted(shown - set(section.images)):
            self._wrong(at, f"the HTML shows cid:{image}, which is none of its images", "add it", key=True)
        if size > section.max_size:
            what = f"its files make the mail {size:,} bytes larger, more than {section.max_size:,}"
            self._wrong((*at, "max_size"), what, "link to them instead, or raise max_size")

    def _file(self, encoded: Callable[[], bytes], at: At) -> int:
        """The size of a file as a mail carries it."""
        try:
            return len(encoded())
        except ConfigError as error:
            self._wrong(at, error.what, error.fix)
            return 0

    def _shown(self, section: MessageSection) -> set[str]:
        """The images that the HTML shows, in any language. A template that cannot be read was told of already."""
        found: set[str] = set()
        written: list[MessageSection | LanguageSection] = [section, *section.languages.values()]
        for each in written:
            source = each.html or ""
            if each.template is not None:
                with suppress(OSError, UnicodeDecodeError):
                    source += (self.config.base_dir / each.template).read_text(encoding="utf-8")
            found |= set(parts.CID.findall(source))
        return found

    def _template(self, source: str, at: At, kind: str) -> None:
        """A template inside hub.yaml."""
        if (wrong := template.syntax_error(source)) is not None:
            self._wrong(at, f"the template does not parse: {wrong[0]}", "mend it")
            return
        self._look_into(source, kind, lambda line, column: self.document.inside(at, line, column))
        if kind == "html":
            self._size(source, self.document.position(at))

    def _look_into(self, source: str, kind: str, place: Callable[[int, int], Position]) -> None:
        """Names, filters and links of a template that parses. `place` is where a line and a column of it stand."""
        for name, line, column in self._unknown_names(source):
            self.problems.append(Problem(place(line, column), *self._unknown(name)))
        for what, name, line, column in template.unknown_functions(source):
            known = template.HTML.filters if what == "filter" else template.HTML.tests
            close = nearest(name, known)
            fix = close if close.startswith("did you mean") else f"see the {what}s of Jinja"
            self.problems.append(Problem(place(line, column), f"there is no {what} {name!r}", fix))
        for tag, line, column in template.others(source):
            what = f"a template cannot take in others: {{% {tag} %}}"
            self.problems.append(Problem(place(line, column), what, "write here what it should hold"))
        for name, line in lint.dead_defaults(source):
            what = f"default(...) leaves a blank {name} as it is"
            whole = name if name.startswith("company.") else f"contact.{name}"
            self.hints.append(Problem(place(line, 1), what, f"write {{{{ {whole} or '...' }}}}"))
        found = (
            lint.html_faults(source) if kind == "html" else lint.text_faults(source) if kind == "text" else []
        )
        for fault in found:
            problem = Problem(place(fault.line, fault.column), fault.what, fault.fix)
            (self.hints if fault.hint else self.problems).append(problem)

    def _size(self, html: str, place: Position) -> None:
        size = lint.rough_size(html)
        if size > GMAIL_CLIPS_BYTES:
            what = f"the HTML has {size:,} bytes before anything is filled in, and Gmail shows {GMAIL_CLIPS_BYTES:,}"
            self.hints.append(
                Problem(place, what, "shorten it: what is cut off may hold the unsubscribe link")
            )

    def _unknown_names(self, source: str) -> list[tuple[str, int, int]]:
        """A template's unknown names; fields only where all of them are known."""
        found = template.unknown_names(source, self.fields)
        return [each for each in found if self.all_known or not each[0].startswith(("contact.", "company."))]

    def _template_file(self, name: str, at: At) -> None:
        file = self.config.base_dir / name
        try:
            source = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            words = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            self._wrong(
                at,
                f"the template {name} cannot be read: {words}",
                "check the path; it is relative to hub.yaml",
            )
            return
        if (wrong := template.syntax_error(source)) is not None:
            self.problems.append(
                Problem(Position(file, wrong[1], 1), f"the template does not parse: {wrong[0]}", "mend it")
            )
            return
        self._look_into(source, "html", lambda line, column: Position(file, line, column))
        try:
            self._size(template.as_html(source, mjml=file.suffix == ".mjml"), Position(file, 1, 1))
        except ConfigError as error:
            self._wrong(at, f"{name}: {error.what}", error.fix)

    @property
    def _own_fields(self) -> list[str]:
        return [name for name in self.fields if not name.startswith("company.")]

    def _unknown(self, name: str) -> tuple[str, str]:
        of, _, field = name.partition(".")
        if of == "contact":
            return f"the template uses the unknown field {field!r}", nearest(field, self._own_fields)
        if of == "company":
            known = [name.removeprefix("company.") for name in self.fields if name not in self._own_fields]
            return f"the template uses the unknown field {field!r} of the company", nearest(field, known)
        return f"the template uses the unknown name {name!r}", nearest(name, template.VARIABLES)
