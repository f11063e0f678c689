"""Links that sign in to the AWS console with the credentials of a session.

Source: AWS IAM User Guide, "Enable custom identity broker access to the AWS console". A link is valid for
15 minutes from its creation, and signs in anyone who has it: it is a secret.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from datetime import timedelta
from http.client import HTTPException
from typing import Final

from lessor.values import InvalidValue

SECONDS: Final = 10.0
"""How long the federation endpoint may take."""
_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
_MAX_BYTES: Final = 1 << 20


class NotSignedIn(Exception):
    """The federation endpoint gave no sign-in token; the text says why."""


class Refused(NotSignedIn):
    """AWS refused the session or the requested duration."""


@dataclass(frozen=True, slots=True)
class Partition:
    """The URLs of the federation endpoint and the console of an AWS partition."""

    federation: str
    console: str


_PARTITIONS: Final = {
    "aws": Partition("https://signin.aws.amazon.com/federation", "https://console.aws.amazon.com/"),
    "aws-cn": Partition("https://signin.amazonaws.cn/federation", "https://console.amazonaws.cn/"),
    "aws-us-gov": Partition(
        "https://signin.amazonaws-us-gov.com/federation", "https://console.amazonaws-us-gov.com/"
    ),
}


@dataclass(frozen=True, slots=True, repr=False)
class Session:
    """The credentials of a session; its repr contains none of them."""

    access_key: str
    secret_key: str
    security_token: str


def partition_of(arn: str) -> Partition:
    """Return the partition that an ARN names; raises ``InvalidValue`` if its console is not known."""
    name = arn.split(":")[1] if arn.count(":") > 1 else ""
    if name not in _PARTITIONS:
        known = ", ".join(_PARTITIONS)
        raise InvalidValue(f"the console of partition {name!r} is not known; known partitions: {known}")
    return _PARTITIONS[name]


def checked(endpoint: str) -> str:
    """Return an endpoint that a secret may be sent to: https, or this machine; else ``InvalidValue``."""
    parts = urllib.parse.urlsplit(endpoint)
    if parts.hostname and (
        parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)
    ):
        return endpoint
    raise InvalidValue(
        f"{endpoint!r} is not an https URL; credentials are sent only to https URLs or this machine"
    )


def token(endpoint: str, session: Session, duration: timedelta | None = None) -> str:
    """Ask the federation endpoint for a sign-in token.

    Args:
        endpoint: As ``checked`` returns it. The session goes in the body, so that no log of URLs has it.
        session: The credentials.
        duration: How long the console session lasts, 15 min to 12 h. AWS accepts it only for sessions of
            AssumeRole without role chaining. Without it the console session lasts as long as the credentials.

    Raises:
        NotSignedIn: The endpoint can't be reached, or returns no token.
    """
    named = {
        "sessionId": session.access_key,
        "sessionKey": session.secret_key,
        "sessionToken": session.security_token,
    }
    fields = {"Action": "getSigninToken", "Session": json.dumps(named)}
    if duration is not None:
        fields["SessionDuration"] = str(int(duration.total_seconds()))
    request = urllib.request.Request(  # noqa: S310 - ``checked`` verified the scheme
        endpoint, urllib.parse.urlencode(fields).encode(), method="POST"
    )
    try:
        with _opener().open(request, timeout=SECONDS) as answer:
            found = json.loads(answer.read(_MAX_BYTES))
    except urllib.error.HTTPError as error:
        with error:
            raise Refused(f"AWS's sign-in answered {error.code}") from None
    except (OSError, HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise NotSignedIn(f"AWS's sign-in can't be reached: {reason}") from None
    except ValueError:
        found = None
    made = found.get("SigninToken") if isinstance(found, dict) else None
    if not isinstance(made, str) or not made:
        raise NotSignedIn("AWS's sign-in answered without a token")
    return made


def link(endpoint: str, signin_token: str, destination: str, issuer: str = "") -> str:
    """Return the link: it leads to ``destination``, and to ``issuer`` once the session has expired."""
    fields = {"Action": "login", "Issuer": issuer, "Destination": destination, "SigninToken": signin_token}
    return f"{endpoint}?{urllib.parse.urlencode({name: text for name, text in fields.items() if text})}"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: it would send the credentials to another host."""

    def redirect_request(self, *_: object, **__: object) -> None:
        """Refuse."""


def _opener() -> urllib.request.OpenerDirector:
    """Return an opener that uses a proxy only for https, because a proxy can read any other request."""
    proxies = {name: url for name, url in urllib.request.getproxies().items() if name == "https"}
    return urllib.request.build_opener(_NoRedirect, urllib.request.ProxyHandler(proxies))
