"""Issued credentials and their request, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from lessor.refresh import Term


class InvalidCredentials(ValueError):
    """The server's answer has characters that are invalid in credentials."""


@dataclass(frozen=True, slots=True)
class Order:
    """What credentials to issue.

    Attributes:
        mount: Name of the mount.
        role: Name of the role.
        wait_usable: How long the server may wait until AWS accepts a new key; zero: it does not wait.
        fields: Other fields of GenerateCredentialsRequest, by name.
    """

    mount: str
    role: str
    wait_usable: timedelta = timedelta()
    fields: Mapping[str, object] = field(default_factory=dict, repr=False)

    @property
    def is_repeatable(self) -> bool:
        """Return whether it can be issued again: AWS accepts a code of an MFA device once."""
        return "mfa_code" not in self.fields


@dataclass(frozen=True, slots=True)
class Issued:
    """One set of credentials with its lease; the repr has no secret.

    Attributes:
        lease_id: Id of the lease.
        access_key: Access key id.
        secret_key: Secret access key.
        session_token: Session token; empty for an IAM user.
        term: From the issue or the last renewal to the end, on the clock of this machine.
        usable: Whether AWS has accepted the key.
        warnings: Those of the server.
    """

    lease_id: str
    access_key: str
    secret_key: str = field(repr=False)
    session_token: str = field(repr=False)
    term: Term
    usable: bool = True
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raise ``InvalidCredentials`` if a header, a file or a terminal could not show a value safely."""
        texts = (self.lease_id, self.access_key, self.secret_key, self.session_token)
        if not all(text.isascii() and text.isprintable() and " " not in text for text in texts):
            raise InvalidCredentials(
                "the server's answer has characters that are invalid in credentials; check the server"
            )

    @property
    def is_session(self) -> bool:
        """Return whether this is a session of STS, which can't be renewed."""
        return bool(self.session_token)

    def with_term(self, term: Term) -> Issued:
        """Return the same credentials with another term, and without the warnings of their issue."""
        return replace(self, term=term, warnings=())

    def variables(self) -> dict[str, str]:
        """Return the environment variables of AWS's SDKs; an IAM user has no session token."""
        found = {"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key}
        return {**found, "AWS_SESSION_TOKEN": self.session_token} if self.session_token else found

    def process_object(self) -> dict[str, object]:
        """Return the object that ``credential_process`` prints.

        Source: AWS SDKs and Tools Reference Guide, "Process credential provider". Without a session the
        field ``SessionToken`` is absent.
        """
        found: dict[str, object] = {
            "Version": 1,
            "AccessKeyId": self.access_key,
            "SecretAccessKey": self.secret_key,
        }
        if self.session_token:
            found["SessionToken"] = self.session_token
        return {**found, "Expiration": iso(self.term.end)}

    def container_object(self) -> dict[str, object]:
        """Return the object that the container endpoint answers.

        ``Token`` is always a text: without it boto3 and the AWS CLI fail, with null the JavaScript SDK does.
        """
        return {
            "AccessKeyId": self.access_key,
            "SecretAccessKey": self.secret_key,
            "Token": self.session_token,
            "Expiration": iso(self.term.end),
        }


def iso(time: datetime) -> str:
    """Return a time as AWS's SDKs parse it: ISO 8601 in UTC, in whole seconds."""
    return f"{time.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
