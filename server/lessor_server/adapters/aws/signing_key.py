"""Signs requests of AWS's query protocol with Signature Version 4.

Source: IAM User Guide, "Create a signed AWS API request". Only the requests that Lessor sends are known: POST
of a form, without a query. The tests compare each signature with botocore's.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, Self

from lessor_server.domain.aws.iam_calls import AccessKey

FORM: Final = "application/x-www-form-urlencoded; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Route:
    """Where requests to a service go, and for what they are signed.

    Attributes:
        service: The service, iam or sts.
        region: The region of the signature.
        url: The URL.
        host: The value of the header Host.
        path: The path as it is signed.
    """

    service: str
    region: str
    url: str
    host: str
    path: str


@dataclass(frozen=True, slots=True, repr=False)
class _Common:
    """What all signatures of one second for one route have in common."""

    route: Route
    stamp: str
    request: str
    text: str
    key: bytes
    headers: dict[str, str]
    authorization: str


class SigningKey:
    """An access key that signs; it keeps the key of the day for each region and service."""

    __slots__ = ("_common", "_days", "_secret", "_token", "access_key_id")

    def __init__(self, access_key_id: str, secret: str, token: str = "") -> None:
        """Sign with this key, and with the ``token`` of its session if it is temporary."""
        self.access_key_id = access_key_id
        self._secret = secret
        self._token = token
        self._days: dict[tuple[str, str], tuple[str, bytes]] = {}
        self._common: _Common | None = None

    @classmethod
    def of(cls, key: AccessKey) -> Self:
        """Return the signer of an access key."""
        return cls(key.access_key_id, key.secret.reveal(), key.token.reveal())

    def is_made_of(self, access_key_id: str, secret: str, token: str) -> bool:
        """Return whether it signs with exactly these."""
        return (self.access_key_id, self._secret, self._token) == (access_key_id, secret, token)

    def sign(self, route: Route, body: bytes, stamp: str) -> dict[str, str]:
        """Return the headers that sign a form, at a UTC time such as 20260101T000000Z."""
        common = self._common
        if common is None or common.route is not route or common.stamp != stamp:
            common = self._common = self._prepare(route, stamp)
        request = f"{common.request}{sha256(body).hexdigest()}"
        text = f"{common.text}{sha256(request.encode()).hexdigest()}"
        signature = hmac.digest(common.key, text.encode(), "sha256").hex()
        return {**common.headers, "Authorization": f"{common.authorization}{signature}"}

    def _prepare(self, route: Route, stamp: str) -> _Common:
        headers = {"Content-Type": FORM, "X-Amz-Date": stamp}
        token, names = "", "content-type;host;x-amz-date"
        if self._token:
            headers["X-Amz-Security-Token"] = self._token
            token = f"x-amz-security-token:{' '.join(self._token.split())}\n"
            names += ";x-amz-security-token"
        scope = f"{stamp[:8]}/{route.region}/{route.service}/aws4_request"
        return _Common(
            route,
            stamp,
            f"POST\n{route.path}\n\ncontent-type:{FORM}\nhost:{route.host}\nx-amz-date:{stamp}\n{token}\n{names}\n",
            f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n",
            self._day_key(route, stamp[:8]),
            headers,
            f"AWS4-HMAC-SHA256 Credential={self.access_key_id}/{scope}, SignedHeaders={names}, Signature=",
        )

    def _day_key(self, route: Route, day: str) -> bytes:
        place = (route.region, route.service)
        kept = self._days.get(place)
        if kept is not None and kept[0] == day:
            return kept[1]
        key = f"AWS4{self._secret}".encode()
        for part in (day, *place, "aws4_request"):
            key = hmac.digest(key, part.encode(), "sha256")
        self._days[place] = day, key
        return key
