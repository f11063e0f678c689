"""The fields of a request for credentials that a rule can require or forbid."""

from __future__ import annotations

from typing import Final

REQUEST_FIELDS: Final = (
    "ttl",
    "role_arn",
    "role_session_name",
    "mfa_code",
    "session_policy",
    "request_id",
    "wait_usable",
    "reason",
)
"""The fields of GenerateCredentialsRequest, except those that name the role."""
