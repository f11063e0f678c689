"""The console's cookies, its CSRF tokens, and the notes that it shows once after a redirect.

A session's cookie holds its token, sealed. The CSRF token of its forms is an HMAC under that token, so that
every replica can check it and none stores it. The form of the sign-in has a cookie of its own: another site's
link opens the sign-in without the session's cookie (SameSite=Strict), and must not replace it.

Sources: RFC 6265bis, sections 4.1.3 (``__Host-``) and 5.5 (SameSite); OWASP, "Cross-Site Request Forgery
Prevention Cheat Sheet", HMAC based token pattern.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import random
import re
from dataclasses import dataclass
from typing import Final, Literal

from aiohttp.web import BaseRequest, StreamResponse

MAX_SESSION_SECONDS: Final = 8 * 3600
"""The longest life of a session; its cookie ends with the browser, too."""
NOTE_SECONDS: Final = 30
MAX_NOTES: Final = 4
MAX_NOTE: Final = 400
"""Of one page, and the characters of each: a browser keeps 4 KiB a cookie."""
_FORM_SECONDS: Final = 3600
_MAX_VALUE: Final = 512
_VALUE: Final = re.compile(r"[A-Za-z0-9_.-]+")
_CSRF: Final = b"lessor console csrf"
_NOTE: Final = b"lessor console note"

NoteKind = Literal["done", "warning"]


@dataclass(frozen=True, slots=True)
class Note:
    """One sentence about what was done, shown once on the next page."""

    kind: NoteKind
    text: str


@dataclass(frozen=True, slots=True)
class CookieNames:
    """The names of the cookies; those under TLS can't be set by other hosts, or in the clear."""

    session: str
    form: str
    note: str


IN_CLEAR: Final = CookieNames("lessor-session", "lessor-form", "lessor-note")
UNDER_TLS: Final = CookieNames("__Host-lessor-session", "__Host-lessor-form", "__Host-lessor-note")


class Cookies:
    """Reads and sets the cookies of one listener."""

    def __init__(self, rng: random.Random, *, tls: bool) -> None:
        """Draw the values of sign-in forms from ``rng``."""
        self._rng = rng
        self._tls = tls
        self.names = UNDER_TLS if tls else IN_CLEAR

    @property
    def is_secure(self) -> bool:
        """Return whether browsers send the cookies over TLS only."""
        return self._tls

    def session_of(self, request: BaseRequest) -> str:
        """Return the cookie of the request's session; empty without one."""
        return self._read(request, self.names.session)

    def form_of(self, request: BaseRequest) -> str:
        """Return the value of the sign-in form's cookie; empty without one."""
        return self._read(request, self.names.form)

    def draw_form(self) -> str:
        """Return a new value for the cookie of a sign-in form."""
        return base64.urlsafe_b64encode(self._rng.randbytes(24)).decode()

    def set_session(self, response: StreamResponse, value: str) -> None:
        """Begin a session in the browser, and end the sign-in form's."""
        self._set(response, self.names.session, value, None)
        self._set(response, self.names.form, "", 0)

    def clear_session(self, response: StreamResponse) -> None:
        """End the session in the browser."""
        self._set(response, self.names.session, "", 0)
        self._set(response, self.names.note, "", 0)

    def set_form(self, response: StreamResponse, value: str) -> None:
        """Set the cookie of a sign-in form."""
        self._set(response, self.names.form, value, _FORM_SECONDS)

    def set_notes(self, response: StreamResponse, session: str, notes: list[Note]) -> None:
        """Keep notes for the next page, signed so that no other site can put its own there."""
        text = json.dumps(
            [(note.kind, note.text[:MAX_NOTE]) for note in notes[:MAX_NOTES]], ensure_ascii=False
        )
        body = base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")
        self._set(response, self.names.note, f"{_sign(session, _NOTE, body)}.{body}", NOTE_SECONDS)

    def take_notes(self, request: BaseRequest, session: str) -> list[Note]:
        """Return the notes of the request; those that this session did not set are ignored."""
        signature, _, body = request.cookies.get(self.names.note, "").partition(".")
        if not body or not hmac.compare_digest(signature.encode(), _sign(session, _NOTE, body).encode()):
            return []
        pairs = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        return [Note(kind, text) for kind, text in pairs]

    def clear_notes(self, response: StreamResponse) -> None:
        """Forget the notes that a page has shown."""
        self._set(response, self.names.note, "", 0)

    def _read(self, request: BaseRequest, name: str) -> str:
        """Return a cookie; empty if it is malformed, or sent twice: another host may have set one of them."""
        header = ";".join(request.headers.getall("Cookie", ()))
        if sum(part.strip().startswith(f"{name}=") for part in header.split(";")) != 1:
            return ""
        value = request.cookies.get(name, "")
        return value if len(value) <= _MAX_VALUE and _VALUE.fullmatch(value) else ""

    def _set(self, response: StreamResponse, name: str, value: str, max_age: int | None) -> None:
        response.set_cookie(
            name, value, max_age=max_age, path="/", httponly=True, secure=self._tls, samesite="Strict"
        )


def csrf_token(secret: str) -> str:
    """Return the CSRF token of the forms of a session by its token, or of a sign-in form by its cookie."""
    return _sign(secret, _CSRF, "")


def is_csrf_token(secret: str, sent: str) -> bool:
    """Return whether a form was made by this session's page."""
    return bool(secret) and hmac.compare_digest(csrf_token(secret).encode(), sent.encode())


def _sign(secret: str, purpose: bytes, text: str) -> str:
    return hmac.new(secret.encode(), purpose + b"\0" + text.encode(), hashlib.sha256).hexdigest()
