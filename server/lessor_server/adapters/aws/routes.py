"""Finds where a call goes: the URL of an endpoint, and the region for which requests are signed."""

from __future__ import annotations

from functools import cache
from typing import Any, Final
from urllib.parse import quote, urlsplit

from botocore.args import LEGACY_GLOBAL_STS_REGIONS
from botocore.endpoint_provider import EndpointProvider
from botocore.utils import normalize_url_path

from lessor_server.adapters.aws.endpoints import Endpoint
from lessor_server.adapters.aws.http_client import split_url
from lessor_server.adapters.aws.query_protocol import loader
from lessor_server.adapters.aws.sdk_session import SdkSession
from lessor_server.adapters.aws.signing_key import Route
from lessor_server.domain.aws.partition import STS, signing_region
from lessor_server.domain.errors.preconditions import EndpointNotAllowed
from lessor_server.domain.root import is_aws_endpoint, may_take_token

MAX_ROUTES: Final = 1024


class Routes:
    """Finds and keeps routes; only AWS's own hosts and allowed endpoints have one."""

    def __init__(self, allowed_endpoints: tuple[str, ...]) -> None:
        """Allow these URLs besides those of AWS."""
        self._allowed = frozenset(endpoint.rstrip("/") for endpoint in allowed_endpoints)
        self._found: dict[tuple[str, Endpoint, bool], Route] = {}

    def find(self, service: str, endpoint: Endpoint, *, token: bool) -> Route:
        """Return the route to an endpoint of ``service``; ``token`` says that a web identity token is sent.

        The server's environment names no endpoints, since it must not send signed requests elsewhere.

        Raises:
            EndpointNotAllowed: The endpoint is not allowed, or not with a token.
            BotoCoreError: AWS has no endpoint in that region.
        """
        found = self._found.get((service, endpoint, token))
        if found is None:
            if endpoint.url and not self._may_call(endpoint.url, token=token):
                problem = "an endpoint of the root is not allowed"
                raise EndpointNotAllowed(problem, subject="root", private=endpoint.url)
            if len(self._found) >= MAX_ROUTES:
                self._found.clear()
            found = self._found[service, endpoint, token] = _resolve(service, endpoint)
        return found

    def _may_call(self, url: str, *, token: bool) -> bool:
        if is_aws_endpoint(url):
            return True
        return url.rstrip("/") in self._allowed and not (token and not may_take_token(url, self._allowed))


def _resolve(service: str, endpoint: Endpoint) -> Route:
    session = SdkSession()
    region = endpoint.region or session.get_config_variable("region")
    url = endpoint.url
    if url:
        region = signing_region(service, url, region)
    else:
        url, region = _aws_url(session, service, region)
    path = quote(normalize_url_path(urlsplit(url).path), safe="/~")
    return Route(service, region, url, split_url(url).host, path)


def _aws_url(session: SdkSession, service: str, region: str) -> tuple[str, str]:
    """Return AWS's URL and the region to sign for, by the SDK's rules and settings."""
    params: dict[str, Any] = {
        "Region": region,
        "UseFIPS": bool(session.get_config_variable("use_fips_endpoint")),
        "UseDualStack": bool(session.get_config_variable("use_dualstack_endpoint")),
    }
    if service == STS:
        is_legacy = session.get_config_variable("sts_regional_endpoints") == "legacy"
        params["UseGlobalEndpoint"] = is_legacy and region in LEGACY_GLOBAL_STS_REGIONS
    found = _rules(service).resolve_endpoint(**params)
    schemes = found.properties.get("authSchemes", [{}])
    return str(found.url), str(schemes[0].get("signingRegion", region))


@cache
def _rules(service: str) -> EndpointProvider:
    return EndpointProvider(
        loader().load_service_model(service, "endpoint-rule-set-1"), loader().load_data("partitions")
    )
