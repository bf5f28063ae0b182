"""The Secrets with a resource's certificates, as they should be. Pure, but for keys it draws."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from stageline_operator import names, render
from stageline_operator.decision import Notice
from stageline_operator.difference import stamped
from stageline_operator.kinds import SECRET, Object
from stageline_operator.observed import RevisionRecord
from stageline_operator.rotation import HOLDERS, certificates
from stageline_operator.situation import Situation

_RENEWED: Final = (
    "the authority that had given {0} its certificates was lost or had run out: all are new, and "
    "pods agree again once their kubelets have brought them, within two minutes"
)


@dataclass(frozen=True, slots=True)
class Identities:
    """None of it for a resource whose stages ask nobody for a certificate."""

    authority: tuple[Object, ...] = ()
    held: tuple[Object, ...] = ()
    """Of its certificates, which are given once it is recorded."""
    again: float | None = None
    """Seconds until one of them is to be followed by another."""
    notices: tuple[Notice, ...] = ()


def identities(at: Situation, current: RevisionRecord | None, now: datetime) -> Identities:
    """They are needed as long as a pipeline of any revision is to speak TLS, and never deleted:
    they go with the resource.
    """
    records = [current, *(at.records.get(key.revision) for key in at.kept)]
    if not any(record is not None and record.tls for record in records):
        return Identities()
    owner, there = at.owner, at.observed.of(SECRET)
    place = (SECRET, names.authority(owner))
    if place in at.observed.taken or place in at.observed.refused:
        return Identities()
    authority = render.secret_data(there.get(place[1]))
    held = {role: render.secret_data(there.get(names.certificate(owner, role))) for role in HOLDERS}
    known = {role: data for role, data in held.items() if data is not None}
    resource = at.observed.resource
    wanted = certificates(authority, known, f"{resource['metadata']['namespace']}/{owner}", now)
    given = (render.certificate_secret(resource, role, wanted.held[role]) for role in HOLDERS)
    told = Notice("Warning", "CertificatesReplaced", _RENEWED.format(owner), "Replace")
    return Identities(
        (stamped(render.authority_secret(resource, wanted.authority.data)),),
        tuple(map(stamped, given)),
        max((wanted.again - now).total_seconds(), 0.0),
        (told,) if wanted.broken else (),
    )
