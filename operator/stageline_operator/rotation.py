"""Which certificates a resource should have now, from those that it has: the pure part of TLS.

An authority lives for a year, a certificate for 30 days, and each is followed by another when two
thirds of its life are over. Nothing restarts for that, and no two ends ever distrust each other:

1. The next authority is made beside the current one, and everybody is to trust both.
2. A day later, when that has reached everybody, it takes over and gives everybody a certificate;
   the one before is still trusted.
3. Another day later nobody shows what that one gave, and nobody trusts it any more.

An authority that is lost, or that has ended while no operator was there, leaves nothing to pass
over from: everything is new at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from stageline_operator.authority import Pair, fits, issue, life, new_authority, vouches
from stageline_wire.roles import Role

AUTHORITY_LIFE: Final = timedelta(days=365)
LIFE: Final = timedelta(days=30)
SPREAD: Final = timedelta(days=1)
"""Kubelets bring a Secret's new content into pods within two minutes."""
_OLD: Final = 2 / 3
"""Part of its life after which a certificate is followed by another."""
HOLDERS: Final[tuple[Role, ...]] = ("stage", "router")
"""Who is given certificates in Secrets."""

Data = Mapping[str, bytes]
"""What a Secret holds."""


@dataclass(frozen=True, slots=True)
class Authority:
    """A resource's own, and those that were and will be."""

    current: Pair
    following: Pair | None = None
    before: bytes = b""
    """Certificate of the last one, while it is trusted."""

    @property
    def trusted(self) -> bytes:
        """The certificates by which everybody checks everybody, as PEM."""
        following = self.following.certificate if self.following else b""
        return self.current.certificate + following + self.before

    @property
    def data(self) -> dict[str, bytes]:
        """As its Secret holds it."""
        made = {"tls.crt": self.current.certificate, "tls.key": self.current.key}
        if self.following:
            made |= {"next.crt": self.following.certificate, "next.key": self.following.key}
        return made | ({"before.crt": self.before} if self.before else {})


@dataclass(frozen=True, slots=True)
class Certificates:
    """What the Secrets of a resource should hold, and for how long that is so."""

    authority: Authority
    held: Mapping[Role, dict[str, bytes]]
    again: datetime
    """When to look again, as something will be due."""
    broken: bool
    """Whether those that were there could not be passed over from."""


def certificates(
    authority: Data | None, held: Mapping[Role, Data], name: str, now: datetime
) -> Certificates:
    """What is to be, from what the Secrets hold: `held` by whom; `name` is for people."""
    known = read_authority(authority, now)
    ruling = _advanced(known, name, now) if known else Authority(_authority(name, now))
    made = {role: _held(held.get(role), ruling, role, now) for role in HOLDERS}
    due = [_due(data["tls.crt"]) for data in made.values()]
    return Certificates(ruling, made, min(_next_step(ruling), *due), not known and bool(held))


def read_authority(data: Data | None, now: datetime) -> Authority | None:
    """The authority in a Secret; None when there is none that can still give certificates."""
    current = _usable(data or {}, "tls", now)
    if current is None:
        return None
    before = (data or {}).get("before.crt", b"")
    return Authority(current, _usable(data or {}, "next", now), before if _read(before) else b"")


def _advanced(known: Authority, name: str, now: datetime) -> Authority:
    current, following, before = known.current, known.following, known.before
    if following and now >= life(following.certificate).begins + SPREAD:
        current, following, before = following, None, current.certificate
    elif not following and now >= _due(current.certificate):
        following = _authority(name, now)
    if now >= life(current.certificate).begins + 2 * SPREAD:
        before = b""
    return Authority(current, following, before)


def _next_step(ruling: Authority) -> datetime:
    steps = [_due(ruling.current.certificate)]
    if ruling.following:
        steps = [life(ruling.following.certificate).begins + SPREAD]
    if ruling.before:
        steps.append(life(ruling.current.certificate).begins + 2 * SPREAD)
    return min(steps)


def _held(data: Data | None, ruling: Authority, role: Role, now: datetime) -> dict[str, bytes]:
    found = data or {}
    pair = Pair(found.get("tls.crt", b""), found.get("tls.key", b""))
    current = ruling.current
    if not (
        fits(pair.certificate, pair.key)
        and vouches(current.certificate, pair.certificate, role)
        and now < _due(pair.certificate)
    ):
        pair = issue(current, role, now, LIFE)
    return {"ca.crt": ruling.trusted, "tls.crt": pair.certificate, "tls.key": pair.key}


def _due(certificate: bytes) -> datetime:
    """When another one is to follow."""
    lived = life(certificate)
    return lived.begins + _OLD * (lived.ends - lived.begins)


def _usable(data: Data, name: str, now: datetime) -> Pair | None:
    pair = Pair(data.get(f"{name}.crt", b""), data.get(f"{name}.key", b""))
    return pair if fits(pair.certificate, pair.key) and now < life(pair.certificate).ends else None


def _read(certificate: bytes) -> bool:
    try:
        life(certificate)
    except ValueError:
        return False
    return True


def _authority(name: str, now: datetime) -> Pair:
    return new_authority(name, now, AUTHORITY_LIFE)
