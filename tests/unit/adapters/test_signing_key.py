"""Compares signatures with those of botocore."""

from __future__ import annotations

from datetime import UTC, datetime
from unittest.mock import patch

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from lessor_server.adapters.aws.endpoints import Endpoint
from lessor_server.adapters.aws.routes import Routes
from lessor_server.adapters.aws.signing_key import FORM, Route, SigningKey

PLACES = (
    ("iam", Endpoint("", "")),
    ("iam", Endpoint("", "cn-north-1")),
    ("sts", Endpoint("", "eu-west-1")),
    ("sts", Endpoint("http://127.0.0.1:5000", "us-east-1")),
    ("sts", Endpoint("http://[::1]:5000/a path/../%7Ex//", "us-gov-west-1")),
    ("iam", Endpoint("https://iam.amazonaws.com:443/", "")),
)
ROUTES = [Routes(tuple(at.url.rstrip("/") for _, at in PLACES)).find(*one, token=False) for one in PLACES]
TEXT = st.text(
    st.characters(min_codepoint=33, max_codepoint=0x2FF, exclude_categories=["Cc", "Zs"]), min_size=1
)
TOKENS = st.text(st.characters(min_codepoint=32, max_codepoint=126))
TIMES = st.integers(1_577_836_800, 4_102_444_800).map(lambda second: datetime.fromtimestamp(second, UTC))


def signed_by_botocore(
    route: Route, key: tuple[str, str, str], body: bytes, time: datetime
) -> dict[str, str]:
    """Return the headers of a request that botocore has signed at ``time``."""
    request = AWSRequest("POST", route.url, {"Content-Type": FORM, "User-Agent": "x"}, body)
    with patch("botocore.auth.get_current_datetime", return_value=time):
        SigV4Auth(Credentials(*key), route.service, route.region).add_auth(request)
    return {name: value for name, value in request.headers.items() if name != "User-Agent"}


@given(
    st.lists(st.tuples(TEXT, TEXT, TOKENS), min_size=2, max_size=3),
    st.lists(st.tuples(st.integers(0, 1), st.sampled_from(ROUTES), st.binary(), TIMES), max_size=5),
)
def test_interleaved_signatures_of_several_keys_are_botocores(
    keys: list[tuple[str, str, str]], requests: list[tuple[int, Route, bytes, datetime]]
) -> None:
    """On several days, in several regions, with and without a session."""
    signers = [SigningKey(*key) for key in keys]
    for number, route, body, time in requests:
        stamp = time.strftime("%Y%m%dT%H%M%SZ")
        expected = signed_by_botocore(route, keys[number], body, time)
        assert signers[number].sign(route, body, stamp) == expected


def test_a_key_does_not_show_itself() -> None:
    key = SigningKey("AKIAEXAMPLE", "a-secret", "a-token")
    assert "secret" not in f"{key!r} {key}"
    assert not hasattr(key, "__dict__")
