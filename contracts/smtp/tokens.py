"""A token endpoint on loopback for relays that log in by XOAUTH2: refresh tokens, rotated or not, and client credentials."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from hub.clock import Clock
from hub.sdk.sandbox import Sandbox

CLIENT_ID, CLIENT_SECRET = "app-of-the-hub", "client-secret-4711"
GMAIL_SCOPE = "https://mail.google.com/"


class TokenSandbox(Sandbox):
    """Tokens of one app for one mailbox. `rotates`: a refresh token is good once, and brings the next one."""

    vendor = "smtp"

    def __init__(
        self,
        user: str,
        *,
        rotates: bool = False,
        scope: str = GMAIL_SCOPE,
        lifetime: timedelta = timedelta(hours=1),
        clock: Clock | None = None,
    ) -> None:
        super().__init__(clock=clock)
        self.user, self.rotates, self.scope, self.lifetime = user, rotates, scope, lifetime
        self.refresh = f"refresh-{secrets.token_hex(8)}"
        self.access: dict[str, datetime] = {}  # token -> its end
        self.grants: list[str] = []  # of the tokens that were given

    def routes(self) -> Sequence[BaseRoute]:
        return [Route("/token", self._token, methods=["POST"])]

    def takes(self, user: str, token: str) -> bool:
        """Whether the relay lets this user in with this token."""
        return user == self.user and token in self.access and self.clock.wall() < self.access[token]

    def revoke(self) -> None:
        """All access tokens end now, before their time."""
        self.access.clear()

    async def _token(self, request: Request) -> Response:
        form = {key: values[0] for key, values in parse_qs((await request.body()).decode()).items()}
        if (form.get("client_id"), form.get("client_secret")) != (CLIENT_ID, CLIENT_SECRET):
            return _refused(401, "invalid_client", f"the secret of {form.get('client_id')} is not valid")
        grant = form.get("grant_type", "")
        if grant not in ("refresh_token", "client_credentials"):
            return _refused(400, "unsupported_grant_type", f"{grant} is not known here")
        if form.get("scope", self.scope) != self.scope or (
            grant == "client_credentials" and "scope" not in form
        ):
            return _refused(400, "invalid_scope", "the scope is not known")
        answer: dict[str, str | int] = {}
        if grant == "refresh_token":
            if form.get("refresh_token") != self.refresh:
                return _refused(400, "invalid_grant", f"the consent of {self.user} has ended")
            if self.rotates:
                self.refresh = answer["refresh_token"] = f"refresh-{secrets.token_hex(8)}"
        token = f"access-{secrets.token_hex(16)}"
        self.access[token] = self.clock.wall() + self.lifetime
        self.grants.append(grant)
        seconds = int(self.lifetime.total_seconds())
        return JSONResponse({**answer, "access_token": token, "expires_in": seconds, "token_type": "Bearer"})


def _refused(status: int, error: str, words: str) -> JSONResponse:
    return JSONResponse({"error": error, "error_description": words}, status)
