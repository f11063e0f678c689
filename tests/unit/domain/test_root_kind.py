"""Checks which kind of identity a root is, and which role types it can serve."""

from __future__ import annotations

from datetime import timedelta

import pytest

from lessor_server.domain.role import CredentialType
from lessor_server.domain.root import Hop, RootConfig
from lessor_server.domain.root_kind import RootKind, kind_of, longest_session, principal_of, unserved
from tests.support import builders

HUB = "arn:aws:iam::111111111111:role/team/hub"
AMBIENT = RootConfig()
KEYS = builders.root_config()
CHAIN = builders.root_config(assume_chain=(Hop(HUB),))
TOKEN = RootConfig(assume_chain=(Hop(HUB),), identity_token_file="/run/token")
INSTANCE = "arn:aws:sts::123456789012:assumed-role/web/i-0123456789abcdef0"
SESSION = {
    RootKind.USER_KEYS: (43_200, 129_600),
    RootKind.ACCOUNT_ROOT: (None, 3600),
    RootKind.ASSUMED_ROLE: (3600, None),
    RootKind.WEB_IDENTITY: (3600, None),
    RootKind.INSTANCE_ROLE: (43_200, None),
}


@pytest.mark.parametrize(
    ("config", "arn", "kind"),
    [
        (KEYS, "", RootKind.USER_KEYS),
        (KEYS, "arn:aws:iam::123456789012:user/lessor", RootKind.USER_KEYS),
        (KEYS, "arn:aws:iam::123456789012:root", RootKind.ACCOUNT_ROOT),
        (CHAIN, "", RootKind.ASSUMED_ROLE),
        (TOKEN, "", RootKind.WEB_IDENTITY),
        (AMBIENT, "arn:aws:iam::123456789012:user/lessor", RootKind.USER_KEYS),
        (AMBIENT, INSTANCE, RootKind.INSTANCE_ROLE),
        (
            AMBIENT,
            "arn:aws:sts::123456789012:assumed-role/pod/botocore-session-1700000000",
            RootKind.WEB_IDENTITY,
        ),
    ],
)
def test_the_kind_follows_from_the_config_or_from_aws(config: RootConfig, arn: str, kind: RootKind) -> None:
    """Only AWS knows the kind of the server's own credentials."""
    assert kind_of(config, arn) is kind


def test_a_token_before_a_longer_chain_is_a_chain() -> None:
    """The last of two roles was assumed by a role."""
    two = RootConfig(assume_chain=(Hop(HUB), Hop(HUB)), identity_token_file="/run/token")
    assert kind_of(two, "") is RootKind.ASSUMED_ROLE


@pytest.mark.parametrize("kind", RootKind)
def test_each_kind_serves_the_types_that_aws_allows(kind: RootKind) -> None:
    assumed, tokens = (timedelta(seconds=seconds) if seconds else None for seconds in SESSION[kind])
    assert longest_session(kind, CredentialType.IAM_USER) == timedelta(0)
    assert longest_session(kind, CredentialType.ASSUMED_ROLE) == assumed
    assert longest_session(kind, CredentialType.FEDERATION_TOKEN) == tokens
    assert longest_session(kind, CredentialType.SESSION_TOKEN) == tokens


@pytest.mark.parametrize(
    ("config", "arn", "principal"),
    [
        (KEYS, "arn:aws:iam::123456789012:user/team/lessor", "arn:aws:iam::123456789012:user/team/lessor"),
        (CHAIN, "arn:aws:sts::111111111111:assumed-role/hub/lessor", HUB),
        (AMBIENT, INSTANCE, "arn:aws:iam::123456789012:role/web"),
        (KEYS, "arn:aws:iam::123456789012:root", ""),
        (AMBIENT, "arn:aws:sts::123456789012:federated-user/ann", ""),
        (AMBIENT, "nonsense", ""),
    ],
)
def test_the_simulated_policies_are_those_of_the_user_or_role(
    config: RootConfig, arn: str, principal: str
) -> None:
    assert principal_of(config, arn) == principal


def test_a_type_or_a_duration_that_a_root_can_t_serve_is_a_warning() -> None:
    federated = builders.role(credential_type=CredentialType.FEDERATION_TOKEN)
    assumed = builders.role(credential_type=CredentialType.ASSUMED_ROLE, policy_document="")
    longer = builders.role(
        credential_type=CredentialType.ASSUMED_ROLE, policy_document="", max_sts_ttl=timedelta(hours=2)
    )
    assert unserved(RootKind.USER_KEYS, federated) == []
    assert unserved(RootKind.ASSUMED_ROLE, assumed) == []
    assert unserved(RootKind.ASSUMED_ROLE, builders.role()) == []
    (said,) = unserved(RootKind.ASSUMED_ROLE, federated)
    assert "FEDERATION_TOKEN" in said
    (said,) = unserved(RootKind.WEB_IDENTITY, longer)
    assert "cut" in said
    assert "1h" in said
