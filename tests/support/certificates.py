"""Folders of certificates, as a kubelet mounts a Secret.

authority = Authority()
credentials = Credentials.load(authority.folder(tmp_path / "stage", "stage"))
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from stageline_operator.authority import Pair, issue, new_authority
from stageline_wire.roles import Role

DAY = timedelta(days=1)


class Authority:
    """A resource's own, as of `when` (now)."""

    def __init__(self, name: str = "default/llama", when: datetime | None = None) -> None:
        self.pair = new_authority(name, when or datetime.now(UTC), 365 * DAY)

    def issue(self, role: Role, ago: timedelta = timedelta(0), life: timedelta = DAY) -> Pair:
        """A certificate that was made `ago`, for a `life` from then."""
        return issue(self.pair, role, datetime.now(UTC) - ago, life)

    def folder(
        self, folder: Path, role: Role, *, trusted: bytes = b"", pair: Pair | None = None
    ) -> Path:
        """`pair` (a new one of `role`) in a folder, with the authorities that are `trusted`."""
        return put(folder, trusted or self.pair.certificate, pair or self.issue(role))


def front_pair(host: str = "127.0.0.1") -> Pair:
    """A certificate that vouches for itself, of a server at an address, as users bring one."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "front door")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - DAY)
        .not_valid_after(datetime.now(UTC) + DAY)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(host))]), False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Pair(made.public_bytes(pem), private)


def put(folder: Path, trusted: bytes, pair: Pair) -> Path:
    """The three files, each replaced as a whole."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {"ca.crt": trusted, "tls.crt": pair.certificate, "tls.key": pair.key}
    for name, content in files.items():
        fresh = folder / f".{name}.new"
        fresh.touch(0o600)
        fresh.write_bytes(content)
        fresh.replace(folder / name)
    return folder
