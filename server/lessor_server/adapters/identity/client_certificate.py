"""Reads client certificates, and checks in which authority's certificate their chain ends.

TLS has verified the chain against the whole client CA file. For an identity's own ``ca_file`` the chain is
verified again, as a whole path. ``verify_directly_issued_by`` along the chain would check signatures only, so
any certificate could act as an authority. The extensions of the leaf are not restricted, because the profiles
of SPIFFE and of private authorities differ from that of the web.

Sources: RFC 5280, section 6 (path validation); SPIFFE, "The X.509 SPIFFE Verifiable Identity Document".
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.x509.verification import Criticality, ExtensionPolicy, Policy, PolicyBuilder, Store

from lessor_server.adapters.file_reads import read_bounded
from lessor_server.domain.access.claims import Validity
from lessor_server.domain.access.identify import CertificateNames
from lessor_server.domain.errors.base import Unauthenticated


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """A caller's certificate; ``chain`` has it and the certificates that the caller sent with it."""

    names: CertificateNames
    validity: Validity
    chain: tuple[x509.Certificate, ...] = field(repr=False)


def read_certificate(pem: bytes) -> ClientCertificate:
    """Return the first certificate of a chain in PEM; raises ``Unauthenticated`` if it can't be read."""
    try:
        chain = tuple(x509.load_pem_x509_certificates(pem))
        leaf = chain[0]
        validity = Validity(leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp())
        return ClientCertificate(_names(leaf), validity, chain)
    except Exception:  # noqa: BLE001 - whatever a library raises, the caller is not identified
        raise Unauthenticated("the client certificate can't be read") from None


def _names(leaf: x509.Certificate) -> CertificateNames:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return CertificateNames()
    return CertificateNames(
        tuple(names.get_values_for_type(x509.UniformResourceIdentifier)),
        tuple(names.get_values_for_type(x509.DNSName)),
    )


class Authorities:
    """The certificates of the ``ca_file`` of each identity."""

    def __init__(self, files: Iterable[str], before: Authorities | None = None) -> None:
        """Read each file; one that can't be used is in ``problems``.

        Of such a file the certificates that ``before`` has stay in use; without any it verifies nothing.
        """
        self.problems: dict[str, str] = {}
        self.contents: dict[str, bytes] = {}
        self._stores: dict[str, Store] = {}
        for file in files:
            try:
                content = read_bounded(Path(file))
                self._stores[file] = Store(x509.load_pem_x509_certificates(content))
                self.contents[file] = content
            except (OSError, ValueError) as error:
                self.problems[file] = str(error)[:200]
                if before is not None and file in before.contents:
                    self._stores[file] = before._stores[file]  # noqa: SLF001 - of the same class
                    self.contents[file] = before.contents[file]

    @property
    def files(self) -> tuple[str, ...]:
        """Return the names of the files."""
        return tuple(dict.fromkeys((*self.contents, *self.problems)))

    def verifies(self, file: str, certificate: ClientCertificate, now: float) -> bool:
        """Return whether a chain is valid at ``now``, and ends in a certificate of ``file``."""
        store = self._stores.get(file)
        if store is None:
            return False
        builder = PolicyBuilder().store(store).time(datetime.fromtimestamp(now, UTC))
        policies = {"ca_policy": _AUTHORITY, "ee_policy": ExtensionPolicy.permit_all()}
        verifier = builder.extension_policies(**policies).build_client_verifier()
        leaf, *others = certificate.chain
        try:
            verifier.verify(leaf, others)
        except Exception:  # noqa: BLE001 - whatever a library raises, the chain is not verified
            return False
        return True


def _check_usage(_policy: Policy, _certificate: x509.Certificate, usage: x509.KeyUsage | None) -> None:
    """Refuse an authority whose key may not sign certificates."""
    if usage is not None and not usage.key_cert_sign:
        raise ValueError("the key of the authority may not sign certificates")


# That basicConstraints has cA, and its path length, is checked wherever the extension is present.
_AUTHORITY = (
    ExtensionPolicy.permit_all()
    .require_present(x509.BasicConstraints, Criticality.AGNOSTIC, None)
    .may_be_present(x509.KeyUsage, Criticality.AGNOSTIC, _check_usage)
)
