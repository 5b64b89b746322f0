"""Private app tokens and OAuth: codes, access tokens of 30 minutes, refresh tokens, scopes.

Sources: HubSpot developer docs "Working with OAuth", "Manage OAuth tokens" v1 and v3.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import parse_qs, urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from contracts.hubspot.answers import Answer, Json, Refusal, iso, to_ms
from hub.clock import Clock

ACCESS_SECONDS = 1800
CODE_SECONDS = 60
ALL_SCOPES = (
    "crm.objects.contacts.read",
    "crm.objects.contacts.write",
    "crm.objects.companies.read",
    "crm.objects.companies.write",
    "crm.objects.deals.read",
    "crm.objects.deals.write",
    "crm.schemas.contacts.read",
    "crm.schemas.contacts.write",
    "crm.schemas.companies.read",
    "crm.schemas.companies.write",
    "crm.schemas.deals.read",
    "crm.schemas.deals.write",
    "crm.objects.owners.read",
    "crm.lists.read",
    "crm.lists.write",
    "communication_preferences.read_write",
    "sales-email-read",
    "timeline",
    "oauth",
)


@dataclass(frozen=True, slots=True)
class App:
    """Who calls: an app of the account, with what it was granted."""

    app_id: int
    oauth: bool
    scopes: frozenset[str]
    bucket: str  # what its requests are counted under


@dataclass(slots=True)
class Grant:
    """One OAuth token of any kind. `until` None never ends."""

    token: str
    app: App
    until: datetime | None
    refresh: str = ""
    redirect_uri: str = ""


class Tokens:
    """All credentials of one account. `rotate` makes each refresh give a new refresh token."""

    def __init__(
        self, clock: Clock, token: str, client_id: str, client_secret: str, app_id: int, portal_id: int
    ) -> None:
        self.clock, self.portal_id, self.app_id = clock, portal_id, app_id
        self.client_id, self.client_secret = client_id, client_secret
        self.developer_key = "sandbox-developer-key"
        self.rotate = False
        self.private: dict[str, App] = {}
        self.access: dict[str, Grant] = {}
        self.refresh: dict[str, Grant] = {}
        self.codes: dict[str, Grant] = {}
        self._serial = itertools.count(1)
        self.add_private(token, ALL_SCOPES)

    def add_private(self, token: str, scopes: tuple[str, ...]) -> None:
        """A private app's token (or service key): never expires."""
        self.private[token] = App(self.app_id, False, frozenset(scopes), f"private:{token}")

    def issue_code(self, scopes: tuple[str, ...] = ALL_SCOPES, redirect_uri: str = "") -> str:
        """What the consent page sends back: a code for one use within a minute."""
        app = App(self.app_id, True, frozenset(scopes), f"oauth:{self.app_id}")
        code = self._new("code")
        self.codes[code] = Grant(
            code, app, self.clock.wall() + timedelta(seconds=CODE_SECONDS), redirect_uri=redirect_uri
        )
        return code

    def expire_access(self) -> int:
        """Let every OAuth access token run out now; says how many there were."""
        now = self.clock.wall() - timedelta(seconds=1)
        for grant in self.access.values():
            grant.until = now
        return len(self.access)

    def _new(self, kind: str) -> str:
        return f"na1-sandbox-{kind}-{next(self._serial):06d}"

    def admit(self, authorization: str) -> App:
        """The app behind a Bearer header. 401 for an unknown or expired token."""
        token = authorization.removeprefix("Bearer ").strip() if authorization.startswith("Bearer ") else ""
        if token in self.private:
            return self.private[token]
        grant = self.access.get(token)
        if grant is None:
            raise Refusal(
                401,
                "INVALID_AUTHENTICATION",
                "Authentication credentials not found. This API supports OAuth 2.0 authentication",
            )
        if grant.until is not None and grant.until <= self.clock.wall():
            raise expired(grant.until)
        return grant.app

    def developer(self, request: Request) -> App:
        if request.query_params.get("hapikey") != self.developer_key:
            raise Refusal(401, "INVALID_AUTHENTICATION", "The API key provided is invalid.")
        return App(self.app_id, False, frozenset(), "developer")

    def require(self, app: App, scopes: tuple[str, ...]) -> None:
        missing = [s for s in scopes if s not in app.scopes]
        if missing:
            text = "This app hasn't been granted all required scopes to make this call."
            error = {
                "message": "One or more of the following scopes are required.",
                "context": {"requiredGranularScopes": missing},
            }
            raise Refusal(403, "MISSING_SCOPES", text, errors=[error])

    # -- the token endpoints ------------------------------------------------------------------------------

    def exchange(self, form: dict[str, str], *, v3: bool) -> Json:
        """Code or refresh token in, access token out. `v3` answers name the account and the scopes."""
        if form.get("client_id") != self.client_id:
            raise _oauth_error("BAD_CLIENT_ID", "missing or unknown client id")
        if form.get("client_secret") != self.client_secret:
            raise _oauth_error("BAD_CLIENT_SECRET", "missing or invalid client secret")
        if form.get("grant_type") == "authorization_code":
            grant = self.codes.pop(form.get("code", ""), None)
            if grant is None or (grant.until is not None and grant.until <= self.clock.wall()):
                raise _oauth_error("BAD_AUTH_CODE", "missing or unknown auth code")
            if grant.redirect_uri and grant.redirect_uri != form.get("redirect_uri"):
                raise _oauth_error("BAD_REDIRECT_URI", "missing or unknown redirect uri")
            refresh = self._new("refresh")
        elif form.get("grant_type") == "refresh_token":
            grant = self.refresh.get(form.get("refresh_token", ""))
            if grant is None:
                raise _oauth_error("BAD_REFRESH_TOKEN", "missing or invalid refresh token")
            refresh = self._new("refresh") if self.rotate else grant.token
            if self.rotate:
                del self.refresh[grant.token]
        else:
            raise _oauth_error("BAD_GRANT_TYPE", f"missing or unknown grant type: {form.get('grant_type')}")
        return self._granted(grant.app, refresh, v3=v3)

    def _granted(self, app: App, refresh: str, *, v3: bool) -> Json:
        token = self._new("access")
        self.refresh[refresh] = Grant(refresh, app, None)
        self.access[token] = Grant(token, app, self.clock.wall() + timedelta(seconds=ACCESS_SECONDS), refresh)
        body: Json = {
            "access_token": token,
            "refresh_token": refresh,
            "token_type": "bearer",
            "token_use": "access_token",
            "expires_in": ACCESS_SECONDS,
        }
        return body | {"hub_id": self.portal_id, "scopes": sorted(app.scopes), "user_id": 1} if v3 else body

    def about(self, token: str) -> Json:
        """What a live access or refresh token stands for."""
        grant = self.access.get(token) or self.refresh.get(token)
        if grant is None or (grant.until is not None and grant.until <= self.clock.wall()):
            raise Refusal(404, "NOT_FOUND", "token not found")
        body: Json = {
            "token": token,
            "hub_id": self.portal_id,
            "hub_domain": "sandbox.example.com",
            "user": "admin@example.com",
            "user_id": 1,
            "scopes": sorted(grant.app.scopes),
            "token_type": "access" if token in self.access else "refresh",
        }
        if grant.until is None:
            return body | {"client_id": self.client_id}
        return body | {
            "app_id": self.app_id,
            "expires_in": int((grant.until - self.clock.wall()).total_seconds()),
        }


def expired(since: datetime) -> Refusal:
    when = iso(to_ms(since))
    return Refusal(
        401,
        "EXPIRED_AUTHENTICATION",
        "The OAuth token used to make this call expired.",
        context={"expire time": [when]},
    )


def _oauth_error(code: str, message: str) -> Refusal:
    return Refusal(400, code, message)


class OAuthApi:
    """/oauth/authorize (which grants at once), /oauth/v1 and /oauth/v3."""

    def __init__(self, tokens: Tokens) -> None:
        self.tokens = tokens

    def routes(self) -> list[BaseRoute]:
        return [
            Route("/oauth/authorize", self.authorize, methods=["GET"]),
            Route("/oauth/v1/token", self.token_v1, methods=["POST"]),
            Route("/oauth/v3/token", self.token_v3, methods=["POST"]),
            Route("/oauth/v3/token/introspect", self.introspect, methods=["POST"]),
            Route("/oauth/v3/token/revoke", self.revoke, methods=["POST"]),
            Route("/oauth/v1/access-tokens/{token}", self.tell, methods=["GET"]),
            Route("/oauth/v1/refresh-tokens/{token}", self.tell, methods=["GET"]),
            Route("/oauth/v1/refresh-tokens/{token}", self.forget, methods=["DELETE"]),
        ]

    async def authorize(self, request: Request) -> Response:
        query = request.query_params
        wanted = f"{query.get('scope', '')} {query.get('optional_scope', '')}".split()
        target = query.get("redirect_uri", "")
        code = self.tokens.issue_code(tuple(s for s in wanted if s in ALL_SCOPES), target)
        answer = {"code": code} | ({"state": query["state"]} if "state" in query else {})
        return RedirectResponse(f"{target}?{urlencode(answer)}", 302)

    async def token_v1(self, request: Request) -> Response:
        return await self._exchange(request, v3=False)

    async def token_v3(self, request: Request) -> Response:
        return await self._exchange(request, v3=True)

    async def _exchange(self, request: Request, *, v3: bool) -> Response:
        form = dict(request.query_params) | await _form(request)
        return _said(lambda: self.tokens.exchange(form, v3=v3))

    async def introspect(self, request: Request) -> Response:
        form = await _form(request)
        if (form.get("client_id"), form.get("client_secret")) != (
            self.tokens.client_id,
            self.tokens.client_secret,
        ):
            return _said(lambda: self.tokens.exchange(form | {"grant_type": "none"}, v3=True))
        try:
            about = self.tokens.about(form.get("token", ""))
        except Refusal:
            return Answer({"active": False})
        use = f"{about['token_type']}_token"
        more = {
            "active": True,
            "client_id": self.tokens.client_id,
            "app_id": self.tokens.app_id,
            "token_use": use,
        }
        return Answer(about | more)

    async def revoke(self, request: Request) -> Response:
        token = (await _form(request)).get("token", "")
        self.tokens.refresh.pop(token, None)
        self.tokens.access.pop(token, None)
        return Answer(None, 204)

    async def tell(self, request: Request) -> Response:
        return _said(lambda: self.tokens.about(request.path_params["token"]))

    async def forget(self, request: Request) -> Response:
        self.tokens.refresh.pop(request.path_params["token"], None)
        return Answer(None, 204)


def _said(ask: object) -> Response:
    try:
        return Answer(ask())  # type: ignore[operator]
    except Refusal as refusal:
        body = refusal.body()
        return Answer(body | ({"status": refusal.category} if refusal.status == 400 else {}), refusal.status)


async def _form(request: Request) -> dict[str, str]:
    text = (await request.body()).decode("utf-8", "replace")
    return {name: values[-1] for name, values in parse_qs(text, keep_blank_values=True).items()}
