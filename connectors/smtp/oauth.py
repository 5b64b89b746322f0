"""Access tokens for XOAUTH2: got and renewed by the SDK's OAuth, refusals in words to act on."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from urllib.parse import urlsplit

import msgspec
from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from hub.errors import FixNeeded, HubError, Retry, VendorError
from hub.sdk.connector import Context
from hub.sdk.oauth import OAuth
from hub.sdk.relay import NotSent

LOOPBACK = ("127.0.0.1", "::1", "localhost")
REFUSALS = {
    "invalid_client": (
        "does not take the client's id or secret",
        "check client_id and client_secret; a secret may have ended",
    ),
    "invalid_grant": (
        "does not take the refresh token",
        "it was revoked, has ended or is another client's: let the mailbox's owner consent again and set the new "
        "refresh_token",
    ),
    "invalid_scope": ("does not know the scope", "check scope"),
    "unauthorized_client": (
        "does not let this client have tokens in this way",
        "check what the app is registered for; without refresh_token the hub asks with client credentials",
    ),
}
"""The errors of RFC 6749, 5.2, that an admin can mend."""


class OAuthSection(BaseModel):
    """Where access tokens come from: by a refresh token, or without one by client credentials."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    token_url: str = Field(description="the token endpoint; https, but for one on this machine")
    client_id: str = Field(min_length=1, description="of the app that is registered there")
    client_secret: SecretStr | None = Field(None, description="of that app, if it has one")
    refresh_token: SecretStr | None = Field(
        None,
        description="the first one; later ones are kept sealed in PostgreSQL. Without it: client credentials",
    )
    scope: str = Field("", description="what the tokens are for")

    @field_validator("token_url")
    @classmethod
    def _secrets_go_over_tls(cls, url: str) -> str:
        parts = urlsplit(url)
        here = parts.scheme == "http" and parts.hostname in LOOPBACK
        if not parts.hostname or not (parts.scheme == "https" or here):
            raise ValueError("token_url is no https address; write https://...")
        return url

    @model_validator(mode="after")
    def _is_whole(self) -> OAuthSection:
        if self.refresh_token is None and (self.client_secret is None or not self.scope):
            raise ValueError(
                "oauth is incomplete; give refresh_token, or client_secret and scope for client credentials"
            )
        return self

    def form(self, kept: str) -> dict[str, str]:
        """A token request (RFC 6749, 4.4.2 and 6). `kept` is the refresh token that came last; may be empty."""
        form = {"client_id": self.client_id}
        if self.client_secret is not None:
            form["client_secret"] = self.client_secret.get_secret_value()
        if self.scope:
            form["scope"] = self.scope
        if self.refresh_token is None:
            return {**form, "grant_type": "client_credentials"}
        refresh = kept or self.refresh_token.get_secret_value()
        return {**form, "grant_type": "refresh_token", "refresh_token": refresh}


class Tokens:
    """A relay's access tokens, shared with all processes of the hub through its token store."""

    def __init__(self, relay: str, section: OAuthSection, username: str, context: Context) -> None:
        self.relay = relay
        url = urlsplit(section.token_url)
        self._http = context.http.configured(f"{url.scheme}://{url.netloc}", classify=classify)
        path = url.path + (f"?{url.query}" if url.query else "")
        self._oauth = OAuth(
            f"{relay} {_fingerprint(section, username)}", context.tokens, context.clock, self._http, path or "/", section.form
        )  # fmt: skip
        self._turn = asyncio.Lock()

    async def token(self, refused: str = "") -> str:
        """An access token, but not `refused`. Raises NotSent when there is none to be had."""
        try:
            async with self._turn:
                try:
                    return await self._oauth.token(refused)
                finally:
                    await self._http.close()  # it is needed once an hour
        except FixNeeded as error:
            what, fix = REFUSALS.get(
                error.code, ("gives no token", "check token_url, client_id, scope and refresh_token")
            )
            label = " ".join(str(each) for each in (error.status, error.code) if each)
            raise NotSent(
                f"relay {self.relay}: the token endpoint {what} ({label})", fix, login=True
            ) from None
        except VendorError as error:
            raise NotSent(
                f"relay {self.relay} gets no access token now ({error.code or error.status or 'no answer'})",
                "it is tried again; check token_url if this lasts",
            ) from None
        except HubError as error:
            raise NotSent(f"relay {self.relay} gets no access token: {error.what}", error.fix) from None


def classify(status: int, headers: Mapping[str, str], body: bytes) -> VendorError | None:
    """An error of a token endpoint by its code; its own words may hold a person's address."""
    if not 400 <= status < 500 or status == 429:
        return None
    try:
        code = msgspec.json.decode(body, type=_Refusal).error
    except msgspec.DecodeError:
        return None
    if code == "temporarily_unavailable":
        return Retry("the token endpoint is busy", code=code, status=status)
    return FixNeeded("refused", code=code if code.isascii() else "", status=status)


class _Refusal(msgspec.Struct):
    error: str


def _fingerprint(section: OAuthSection, username: str) -> str:
    """Other credentials in hub.yaml have tokens of their own: a kept refresh token never outlives the one it came from."""
    first = section.refresh_token.get_secret_value() if section.refresh_token else ""
    parts = (section.token_url, section.client_id, section.scope, username, first)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
