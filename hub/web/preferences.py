"""The preference page that mails lead to: what somebody gets, purpose by purpose. A GET never changes anything."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from hub.errors import SignatureError
from hub.jobs.runtime import Runtime
from hub.jobs.wake import Wake
from hub.store import optin, preferences
from hub.store.database import Connection
from hub.web import recipient, wording
from hub.web.subscribe import asked


async def look(request: Request) -> Response:
    """`GET /p/{token}`: shows."""
    runtime: Runtime = request.app.state.runtime
    try:
        delivery_id = runtime.signer.read("unsubscribe", request.path_params["token"])
    except SignatureError:
        return recipient.no_token(request)
    return await _page(request, runtime, delivery_id)


async def choose(request: Request) -> Response:
    """`POST /p/{token}`: changes exactly what is chosen otherwise than the page showed it, or ends everything."""
    runtime: Runtime = request.app.state.runtime
    try:
        delivery_id = runtime.signer.read("unsubscribe", request.path_params["token"])
    except SignatureError:
        return recipient.no_token(request)
    given = await recipient.form(request)
    if given is None:
        return Response(status_code=413)
    wishes, requests = _wishes(request, runtime, given)
    if "nothing" in given:
        wishes, requests = [("*", False, "preference page: no more mails at all")], []

    async def work(conn: Connection) -> tuple[int, int]:
        now = runtime.clock.now()
        whose = await preferences.reached_by(conn, delivery_id)
        if whose is None:
            return 0, 0
        new = await preferences.change(conn, delivery_id, wishes, now=now)
        for purpose in requests:
            await optin.request(
                conn, asked(runtime, whose["email"], purpose, recipient.origin(request)), now=now
            )
        return new, len(requests)

    new, mailed = await runtime.db.repeated(work)
    wakes = [Wake("results"), Wake("lists")] if new else []
    await runtime.bell.ring([*wakes, *([Wake("mail")] if mailed else [])])
    notice = "confirm_sent" if mailed else "saved" if new else "unchanged"
    return await _page(request, runtime, delivery_id, "none_left" if "nothing" in given else notice)


def _wishes(
    request: Request, runtime: Runtime, given: dict[str, list[str]]
) -> tuple[list[tuple[str, bool, str]], list[str]]:
    """(what was chosen otherwise than it was shown, with its proof; purposes for which a mail asks first)."""
    wanted, requests = set(given.get("on", [])), list[str]()
    wishes: list[tuple[str, bool, str]] = []
    for each in given.get("shown", []):
        purpose, _, was = each.partition("=")
        section = runtime.settings.purposes.get(purpose)
        if section is None or not section.marketing or was not in ("on", "off"):
            continue
        if (purpose in wanted) == (was == "on"):
            continue
        if purpose in wanted and section.double_opt_in:
            requests.append(purpose)
            continue
        origin = recipient.origin(request)
        proof = f"preference page, reached by the link of a mail: {section.title} {'chosen' if purpose in wanted else 'given up'}"
        wishes.append((purpose, purpose in wanted, proof + (f" [from {origin}]" if origin else "")))
    return wishes, requests


async def _page(request: Request, runtime: Runtime, delivery_id: int, notice: str = "") -> HTMLResponse:
    purposes = {name: section for name, section in runtime.settings.purposes.items() if section.marketing}
    async with runtime.db.connection() as conn:
        whose = await preferences.reached_by(conn, delivery_id)
        if whose is None:
            return recipient.shown(request, "gone", "gone_help", status=404)
        needed = {name: runtime.purposes[name] for name in purposes}
        states = await preferences.states(conn, whose["email"], needed)
        suppressed = await preferences.suppressed(conn, whose["email"])
    language = wording.language_of(whose["language"], request.headers.get("accept-language", ""))
    words = wording.WORDS[language]
    return recipient.shown(
        request, "preferences", words["address"].format(address=recipient.masked(whose["email"])),
        "suppressed" if suppressed else "", person=whose["language"], notice=words.get(notice, ""),
        purposes=[(name, wording.title_of(section, language), states[name]) for name, section in purposes.items()],
    )  # fmt: skip
