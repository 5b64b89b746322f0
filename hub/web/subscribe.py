"""Forms by which people ask for mail, and the page that a request's mail leads to.

The answer to a request is the same whether the address is known, consents already, or was asked too often.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from hub.errors import SignatureError
from hub.jobs.runtime import Runtime
from hub.jobs.wake import Wake
from hub.lists.csv_file import ADDRESS
from hub.store import optin
from hub.web import recipient, wording


def asked(
    runtime: Runtime, email: str, purpose: str, origin: str = "", *, language: str | None = None
) -> optin.Asked:
    """A request for a purpose that has a double opt-in."""
    section = runtime.settings.purposes[purpose].double_opt_in
    assert section is not None
    return optin.Asked(
        email=email.strip().lower(), purpose=purpose, message=section.message,
        message_purpose=runtime.settings.messages[section.message].purpose, wording=section.wording, source="web",
        expires=section.expires, origin=origin, language=language,
        per_hour=runtime.settings.web.requests_per_hour if origin else None,
    )  # fmt: skip


async def form_page(request: Request) -> Response:
    """`GET /subscribe/{purpose}`: a form with the wording that is kept as the proof."""
    runtime: Runtime = request.app.state.runtime
    section = runtime.settings.purposes.get(request.path_params["purpose"])
    if section is None or section.double_opt_in is None:
        return recipient.shown(request, "no_form", "no_form_help", status=404)
    language = wording.language_of(None, request.headers.get("accept-language", ""))
    title = wording.title_of(section, language)
    return recipient.shown(request, title, section.double_opt_in.wording, ask_address=True)


async def subscribe(request: Request) -> Response:
    """`POST /subscribe/{purpose}` with `email`: a mail asks for confirmation. Answers JSON to those who accept it."""
    runtime: Runtime = request.app.state.runtime
    purpose = request.path_params["purpose"]
    section = runtime.settings.purposes.get(purpose)
    if section is None or section.double_opt_in is None:
        return recipient.shown(request, "no_form", "no_form_help", status=404)
    given = await recipient.form(request)
    if given is None:
        return Response(status_code=413)
    email = given.get("email", [""])[0].strip()
    plain = "application/json" in request.headers.get("accept", "")
    if len(email) > 254 or "\x00" in email or not ADDRESS.fullmatch(email):
        if plain:
            return JSONResponse(
                {"error": "email is no e-mail address"}, status_code=400, headers=recipient.HEADERS
            )
        return recipient.shown(request, "bad_address", ask_address=True, status=400)
    language = wording.language_of(None, request.headers.get("accept-language", ""))
    wish = asked(runtime, email, purpose, recipient.origin(request), language=language)
    await runtime.db.repeated(lambda conn: optin.request(conn, wish, now=runtime.clock.now()))
    await runtime.bell.ring([Wake("mail")])
    if plain:
        return JSONResponse({"asked": True}, status_code=202, headers=recipient.HEADERS)
    return recipient.shown(request, "asked", "asked_help")


async def confirm_page(request: Request) -> Response:
    """`GET /confirm/{token}`: a button; programs that look into mails follow links, so nothing is done here."""
    runtime: Runtime = request.app.state.runtime
    try:
        delivery_id = runtime.signer.read("unsubscribe", request.path_params["token"])
    except SignatureError:
        return recipient.no_token(request)
    async with runtime.db.transaction() as conn:
        found = await optin.asked_by(conn, delivery_id)
    section = runtime.settings.purposes.get(found["purpose"]) if found else None
    if found is None or section is None or not found["email"]:
        return recipient.shown(request, "damaged", "damaged_help", status=404)
    if found["confirmed_at"] is not None:
        return recipient.shown(request, "confirmed", "before_help", person=found["language"])
    if runtime.clock.now() > found["expires_at"]:
        return recipient.shown(request, "expired", "expired_help", person=found["language"], status=410)
    language = wording.language_of(found["language"], request.headers.get("accept-language", ""))
    return recipient.shown(
        request, "confirm", wording.title_of(section, language), found["wording"], person=found["language"],
        button=wording.WORDS[language]["confirm_button"],
    )  # fmt: skip


async def confirm(request: Request) -> Response:
    """`POST /confirm/{token}`: from now on it is consent."""
    runtime: Runtime = request.app.state.runtime
    try:
        delivery_id = runtime.signer.read("unsubscribe", request.path_params["token"])
    except SignatureError:
        return recipient.no_token(request)
    origin, now = recipient.origin(request), runtime.clock.now()
    became = await runtime.db.repeated(lambda conn: optin.confirm(conn, delivery_id, origin=origin, now=now))
    if became != "confirmed":
        return await confirm_page(request)
    await runtime.bell.ring([Wake("lists")])
    async with runtime.db.transaction() as conn:
        found = await optin.asked_by(conn, delivery_id)
    assert found is not None
    section = runtime.settings.purposes.get(found["purpose"])
    language = wording.language_of(found["language"], request.headers.get("accept-language", ""))
    title = wording.title_of(section, language) if section else found["purpose"]
    words = wording.WORDS[language]["confirmed_help"].format(title=title)
    return recipient.shown(request, "confirmed", words, person=found["language"])
