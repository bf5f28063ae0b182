"""Certificates through two years of simulated time, and through everything that may happen to them.

Pods are late: each sees a Secret some minutes after it was written. Whatever two of them show and
trust at any moment, they must agree.
"""

from datetime import UTC, datetime, timedelta
from itertools import cycle, pairwise, product

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from stageline_operator.authority import fits, issue, life, new_authority, vouches
from stageline_operator.rotation import (
    AUTHORITY_LIFE,
    HOLDERS,
    LIFE,
    SPREAD,
    certificates,
    read_authority,
)

NOW = datetime(2026, 3, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
LATE = timedelta(hours=1)  # kubelets are so within two minutes


class Secrets:
    """What is in the Secrets, and an operator that looks at them."""

    def __init__(self, now=NOW):
        self.now = now
        self.authority, self.held = None, {}
        self.writes = 0

    def look(self):
        wanted = certificates(self.authority, self.held, "default/llama", self.now)
        self.writes += (self.authority, self.held) != (wanted.authority.data, wanted.held)
        self.authority, self.held = wanted.authority.data, dict(wanted.held)
        return wanted


def authorities(pem):
    return x509.load_pem_x509_certificates(pem)


def believes(one, other, role, when):
    """Whether a pod that has the files `one` accepts what a pod with the files `other` shows."""
    shown = life(other["tls.crt"])
    return shown.begins <= when < shown.ends and any(
        vouches(ca.public_bytes(Encoding.PEM), other["tls.crt"], role)
        for ca in authorities(one["ca.crt"])
        if ca.not_valid_before_utc <= when < ca.not_valid_after_utc
    )


def test_at_first_everything_is_made_and_then_nothing_is_written():
    secrets = Secrets()
    first = secrets.look()
    assert not first.broken
    for role in HOLDERS:
        held = first.held[role]
        assert fits(held["tls.crt"], held["tls.key"])
        assert believes(held, first.held["stage"], "stage", NOW)
    secrets.now = first.again - timedelta(seconds=1)
    secrets.look()
    assert secrets.writes == 1, "nothing is due before the moment that was told"


def test_over_two_years_no_two_pods_ever_distrust_each_other():
    secrets = Secrets()
    secrets.look()
    written = [(NOW - DAY, dict(secrets.held))]
    looks, rulers = cycle([timedelta(minutes=1), 5 * DAY]), set()
    while secrets.now < NOW + timedelta(days=730):
        wanted = secrets.look()
        rulers.add(wanted.authority.current.certificate)
        assert not wanted.broken
        assert wanted.again > secrets.now, "what is due is done at once"
        written.append((secrets.now, dict(wanted.held)))
        seen = next(held for when, held in reversed(written) if when <= secrets.now - LATE)
        for (mine, a), (yours, b) in product(seen.items(), wanted.held.items()):
            assert believes(a, b, yours, secrets.now), f"late {mine}, new {yours}"
            assert believes(b, a, mine, secrets.now), f"new {yours}, late {mine}"
        secrets.now = min(wanted.again, secrets.now + next(looks))
    assert len(rulers) == 3, "an authority follows the other after two thirds of a year"
    assert secrets.writes < 60


@settings(max_examples=25)
@given(st.lists(st.floats(0.01, 200), min_size=1, max_size=12))
def test_an_operator_that_is_away_for_days_finds_its_way(gaps):
    secrets = Secrets()
    secrets.look()
    for gap in gaps:
        secrets.now += timedelta(days=gap)
        wanted = secrets.look()
        for role in HOLDERS:
            for other in HOLDERS:
                assert believes(wanted.held[other], wanted.held[role], role, secrets.now)
        assert wanted.again > secrets.now
        again = certificates(secrets.authority, secrets.held, "default/llama", secrets.now)
        assert (again.authority.data, again.held) == (secrets.authority, secrets.held), "it rests"


def test_the_next_authority_is_trusted_a_day_before_it_signs_and_the_last_a_day_after():
    secrets = Secrets()
    first = secrets.look().authority.current.certificate
    counts = []
    while secrets.now < NOW + timedelta(days=300):
        wanted = secrets.look()
        trusted, signer = authorities(wanted.held["stage"]["ca.crt"]), wanted.authority.current
        counts.append((secrets.now, len(trusted), signer.certificate != first))
        secrets.now = wanted.again
    changes = [
        (after[0], after[1:]) for before, after in pairwise(counts) if before[1:] != after[1:]
    ]
    assert [what for _, what in changes] == [(2, False), (2, True), (1, True)]
    begun, taken, done = (when for when, _ in changes)
    assert begun - NOW == pytest.approx(AUTHORITY_LIFE * 2 / 3, abs=2 * HOUR)
    assert taken - begun == pytest.approx(SPREAD, abs=2 * HOUR)
    assert done - taken == pytest.approx(SPREAD, abs=2 * HOUR)


def test_certificates_are_followed_by_others_after_two_thirds_of_their_life():
    secrets = Secrets()
    before = secrets.look().held["stage"]["tls.crt"]
    secrets.now += LIFE * 2 / 3 - HOUR
    assert secrets.look().held["stage"]["tls.crt"] == before
    secrets.now += 2 * HOUR
    after = secrets.look()
    assert after.held["stage"]["tls.crt"] != before
    assert len(authorities(after.held["stage"]["ca.crt"])) == 1


@pytest.mark.parametrize("key", ["tls.crt", "tls.key", "ca.crt"])
@pytest.mark.parametrize("content", [b"", b"nonsense"])
def test_what_somebody_changes_in_a_certificate_is_brought_back(key, content):
    secrets = Secrets()
    first = secrets.look()
    secrets.held["router"] = {**secrets.held["router"], key: content}
    after = secrets.look()
    assert fits(after.held["router"]["tls.crt"], after.held["router"]["tls.key"])
    assert after.held["router"]["ca.crt"] == first.held["router"]["ca.crt"]
    assert after.held["stage"] == first.held["stage"], "the others keep theirs"
    assert not after.broken


def test_another_roles_certificate_is_no_certificate():
    secrets = Secrets()
    secrets.look()
    secrets.held["router"] = secrets.held["stage"]
    after = secrets.look()
    assert vouches(after.authority.current.certificate, after.held["router"]["tls.crt"], "router")


def lost(data):
    return None


def of_another_key(data):
    return {**data, "tls.key": new_authority("x", NOW, AUTHORITY_LIFE).key}


def emptied(data):
    return {}


@pytest.mark.parametrize("what", [lost, of_another_key, emptied])
def test_without_its_authority_everything_is_new(what):
    secrets = Secrets()
    first = secrets.look()
    secrets.authority = what(secrets.authority)
    after = secrets.look()
    assert after.broken
    for role in HOLDERS:
        assert believes(after.held[role], after.held["stage"], "stage", NOW)
        assert not believes(after.held[role], first.held["stage"], "stage", NOW)
    assert not secrets.look().broken, "it is told once"


def test_an_authority_that_has_ended_gives_nothing():
    secrets = Secrets()
    secrets.look()
    assert read_authority(secrets.authority, NOW + AUTHORITY_LIFE + HOUR) is None
    secrets.now += AUTHORITY_LIFE + HOUR
    assert secrets.look().broken


def test_no_certificate_outlives_its_authority():
    authority = new_authority("x", NOW, timedelta(days=3))
    assert life(issue(authority, "stage", NOW, LIFE).certificate).ends <= NOW + timedelta(days=3)


def test_keys_are_not_shown_where_a_value_is_shown():
    secrets = Secrets()
    shown = repr(secrets.look().authority)
    assert "PRIVATE" not in shown
