"""The query protocol of IAM and STS: form-encoded calls in, XML out, as botocore reads it.

Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/programming.html ("Making query requests"), and the
response examples of the API pages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

from tests.support.iam_rules import Answer, Value

_IAM = "https://iam.amazonaws.com/doc/2010-05-08/"
_STS = "https://sts.amazonaws.com/doc/2011-06-15/"
_STS_ACTIONS = {
    "AssumeRole",
    "AssumeRoleWithWebIdentity",
    "GetCallerIdentity",
    "GetFederationToken",
    "GetSessionToken",
}
_TOKEN = b"\r\nx-amz-security-token:"


@dataclass(frozen=True, slots=True)
class Request:
    """Holds one call as it came: the action, its parameters, and the key that signed it, token included.

    ``scope`` is what the signature is for, ``region/service``.
    """

    action: str
    params: dict[str, str]
    access_key_id: str
    token: str = field(default="", repr=False)
    scope: str = ""

    @property
    def user(self) -> str:
        """Return the user that the call names; empty if it names none."""
        return self.params.get("UserName", "")


def read_request(head: bytes, body: bytes) -> Request:
    """Read a call from an HTTP request's head and body; no signature is checked."""
    params = dict(parse_qsl(body.decode(), keep_blank_values=True))
    key_id, _, *scope = _credential(head).split("/")[:4] + [""] * 2
    return Request(params.get("Action", ""), params, key_id, _token(head), "/".join(filter(None, scope)))


def _credential(head: bytes) -> str:
    """Find ``ID/date/region/service/…``, what follows ``Credential=`` in the header (reference_sigv)."""
    at = head.find(b"Credential=")
    if at < 0:
        return ""
    start = at + len(b"Credential=")
    return head[start : head.find(b",", start)].decode("latin-1")


def _token(head: bytes) -> str:
    """Find a session's token, ``X-Amz-Security-Token`` (reference_sigv-create-signed-request)."""
    at = head.lower().find(_TOKEN)
    if at < 0:
        return ""
    start = at + len(_TOKEN)
    end = head.find(b"\r\n", start)
    return head[start : end if end > 0 else None].decode("latin-1").strip()


def write_answer(action: str, answer: Answer, request_id: str) -> bytes:
    """Write an answer's XML body."""
    namespace = _STS if action in _STS_ACTIONS else _IAM
    if not answer.ok:
        side = "Receiver" if answer.status >= 500 else "Sender"
        text = (
            f'<ErrorResponse xmlns="{namespace}"><Error><Type>{side}</Type><Code>{escape(answer.code)}</Code>'
            f"<Message>{escape(answer.message)}</Message></Error><RequestId>{request_id}</RequestId></ErrorResponse>"
        )
        return text.encode()
    inner = "".join(_element(name, value) for name, value in answer.result.items())
    result = f"<{action}Result>{inner}</{action}Result>" if inner else ""
    text = (
        f'<{action}Response xmlns="{namespace}">{result}'
        f"<ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata></{action}Response>"
    )
    return text.encode()


def _element(name: str, value: Value) -> str:
    return f"<{name}>{_content(name, value)}</{name}>"


def _content(name: str, value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        if name.endswith("Map"):
            entries = ((key, _content(key, item)) for key, item in value.items())
            return "".join(f"<entry><key>{key}</key><value>{item}</value></entry>" for key, item in entries)
        return "".join(_element(key, item) for key, item in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "".join(_element("member", item) for item in value)
    return escape(str(value))
