"""A resource's own authority and the certificates that it gives: X.509 (RFC 5280) on P-256.

Made here and nowhere else. What is read is what Secrets hold, so anything may be in it. When to
make what is for `stageline_operator.rotation` to say.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import wraps
from typing import Final, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from stageline_wire.roles import Role, server_name

_T = TypeVar("_T")
_MOST_REMEMBERED: Final = 16_384
_EARLY: Final = timedelta(minutes=5)
"""By which a certificate is valid before it is made: no two nodes have the same clock."""
_LONGEST_NAME: Final = 64  # of an X.509 common name
_SIGNS: Final = {"key_cert_sign": True, "crl_sign": True, "digital_signature": False}
_SHAKES: Final = {"key_cert_sign": False, "crl_sign": False, "digital_signature": True}
_NEVER: Final = dict.fromkeys(
    ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
     "encipher_only", "decipher_only"), False,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key, as PEM."""

    certificate: bytes
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Life:
    """From when until when a certificate is valid."""

    begins: datetime
    ends: datetime


def new_authority(name: str, now: datetime, life: timedelta) -> Pair:
    """An authority that nobody knows yet; `name` is for people."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _named(name)
    made = (
        _begun(subject, subject, key.public_key(), now, life)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.KeyUsage(**_SIGNS, **_NEVER), critical=True)
        .add_extension(_identifier(key.public_key()), critical=False)
    )
    return _pair(made.sign(key, hashes.SHA256()), key)


def issue(authority: Pair, role: Role, now: datetime, life: timedelta) -> Pair:
    """A certificate of a role, valid for `life` and not beyond its authority's.

    ValueError when the authority cannot be read.
    """
    signer, signing = _certificate(authority.certificate), _key(authority.key)
    key = ec.generate_private_key(ec.SECP256R1())
    life = min(life, signer.not_valid_after_utc - now)
    uses = [ExtendedKeyUsageOID.CLIENT_AUTH]
    if role == "stage":
        uses.append(ExtendedKeyUsageOID.SERVER_AUTH)
    made = (
        _begun(_named(server_name(role)), signer.subject, key.public_key(), now, life)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**_SHAKES, **_NEVER), critical=True)
        .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(server_name(role))]), False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()),  # type: ignore[arg-type]
            critical=False,
        )
    )
    return _pair(made.sign(signing, hashes.SHA256()), key)


def _remembered(ask: Callable[..., _T]) -> Callable[..., _T]:
    """Answers by a digest of what was asked, which is the same at each look; no key is kept."""
    known: dict[bytes, _T] = {}

    @wraps(ask)
    def answer(*asked: bytes | str) -> _T:
        parts = [part.encode() if isinstance(part, str) else part for part in asked]
        digest = hashlib.sha256(b"\0".join(parts)).digest()
        if digest not in known:
            if len(known) >= _MOST_REMEMBERED:
                known.clear()
            known[digest] = ask(*asked)
        return known[digest]

    return answer


@_remembered
def life(certificate: bytes) -> Life:
    """Of the first certificate in a PEM; ValueError when there is none."""
    read = _certificate(certificate)
    return Life(read.not_valid_before_utc + _EARLY, read.not_valid_after_utc)


@_remembered
def fits(certificate: bytes, key: bytes) -> bool:
    """Whether the key is the certificate's."""
    try:
        return bool(_certificate(certificate).public_key() == _key(key).public_key())
    except ValueError:
        return False


@_remembered
def vouches(authority: bytes, certificate: bytes, role: Role) -> bool:
    """Whether the certificate is one of `role`, and the authority has signed it."""
    try:
        signer, signed = _certificate(authority), _certificate(certificate)
        signed.verify_directly_issued_by(signer)
        names = signed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return names.get_values_for_type(x509.DNSName) == [server_name(role)]
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return False


def _begun(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: datetime,
    life: timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLY)
        .not_valid_after(now + life)
    )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:_LONGEST_NAME])])


def _identifier(key: ec.EllipticCurvePublicKey) -> x509.SubjectKeyIdentifier:
    return x509.SubjectKeyIdentifier.from_public_key(key)


def _pair(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Pair:
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Pair(certificate.public_bytes(pem), private)


def _certificate(pem: bytes) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem)


def _key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (TypeError, UnsupportedAlgorithm) as error:  # locked, or of a sort unknown here
        raise ValueError(str(error)) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("the key is not of a curve")
    return key
