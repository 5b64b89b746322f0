"""What can go wrong, said so that a person can act: what, where, and what to do.

Every error that the hub raises on purpose descends from `HubError`. A vendor's refusal is a `VendorError`;
its three kinds say what happens next: `Retry` (again later), `FixNeeded` (a person must change something),
`Drop` (the record can never be accepted).
"""

from __future__ import annotations


class HubError(Exception):
    """`str(error)` is one line: what is wrong, then what to do, with a semicolon between."""

    def __init__(self, what: str, fix: str = "", where: str = "") -> None:
        self.what, self.fix, self.where = what, fix, where
        super().__init__(what, fix, where)

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}; {self.fix}" if self.fix else text


class ConfigError(HubError):
    """hub.yaml, a mapping or a template is wrong. `where` is file:line:column."""


class RuleError(HubError):
    """A list rule or funnel condition is wrong. `line` and `column` are 1-based within the rule's text."""

    def __init__(self, what: str, fix: str = "", line: int = 1, column: int = 1) -> None:
        self.line, self.column = line, column
        super().__init__(what, fix, f"rule {line}:{column}")


class SecretError(HubError):
    """A secret reference cannot be resolved, or a stored token cannot be decrypted."""


class SignatureError(HubError):
    """A webhook's signature is missing, wrong or too old."""


class VendorError(HubError):
    """A vendor refused. `code` is the vendor's own, `message` its words, `status` the HTTP status or 0."""

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        status: int = 0,
        fix: str = "",
        where: str = "",
        retry_after_seconds: float = 0.0,
    ) -> None:
        self.message, self.code, self.status = message, code, status
        self.retry_after_seconds = retry_after_seconds
        label = f"{status} {code}".strip() if status else code
        super().__init__(f"{label}: {message}" if label else message, fix, where)

    def __reduce__(self) -> tuple[object, ...]:
        return (
            _rebuild_vendor_error,
            (
                type(self),
                self.message,
                self.code,
                self.status,
                self.fix,
                self.where,
                self.retry_after_seconds,
            ),
        )


def _rebuild_vendor_error(
    kind: type[VendorError],
    message: str,
    code: str,
    status: int,
    fix: str,
    where: str,
    retry_after_seconds: float,
) -> VendorError:
    return kind(
        message, code=code, status=status, fix=fix, where=where, retry_after_seconds=retry_after_seconds
    )


class Retry(VendorError):
    """Passing trouble: the same call may succeed later."""


class QuotaExhausted(Retry):
    """A quota of the account is used up. A pull that meets it ends partial and resumes."""


class FixNeeded(VendorError):
    """A person must change something first: a scope, a field, a value. It rests in the dead letters."""


class Drop(VendorError):
    """The target is gone or never takes this record; trying again is useless."""


class Unclear(VendorError):
    """The vendor may have done it: the answer was lost. Never repeated blindly unless a repeat has no second effect."""
