"""Paths and names that are rewritten, and those that must not be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stageline_local.kubelet.addresses import Addresses
from stageline_local.kubelet.places import addressed, bound, located

FOLDERS = {
    "/etc/stageline": "/state/v/config",
    "/etc/stageline/tls": "/state/v/tls",
    "/dev/termination-log": "/state/t",
    "/tmp": "/state/v/tmp",
    "/tmp/models": "/tmp/models",
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/etc/stageline", "/state/v/config"),
        ("/etc/stageline/router.json", "/state/v/config/router.json"),
        ("/etc/stageline/tls/key.pem", "/state/v/tls/key.pem"),
        ("--document=/etc/stageline/x", "--document=/state/v/config/x"),
        ("file:///etc/stageline/x", "file:///state/v/config/x"),
        ('{"uri":"file:///etc/stageline"}', '{"uri":"file:///state/v/config"}'),
        ("/dev/termination-log", "/state/t"),
        ("/tmp/x:/etc/stageline", "/state/v/tmp/x:/state/v/config"),
        ("/tmp/models/llama", "/tmp/models/llama"),
        ("/etc/stageline2", "/etc/stageline2"),
        ("/etc/stageline.d/x", "/etc/stageline.d/x"),
        ("/etc/stageline-old", "/etc/stageline-old"),
        ("/opt/etc/stageline", "/opt/etc/stageline"),
        ("nothing", "nothing"),
    ],
)
def test_mounts(text, expected):
    assert located(text, FOLDERS) == expected


def test_without_mounts_nothing_changes():
    assert located("/a/b", {}) == "/a/b"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a-0.a-stages.ml.svc.cluster.local:7070", "<a-0 a-stages ml>:7070"),
        ('["a.b.c.svc.cluster.local:1","d.b.c.svc.cluster.local"]', '["<a b c>:1","<d b c>"]'),
        ("dns:///a.b.c.svc.cluster.local.", "dns:///<a b c>."),
        ("a.b.svc.cluster.local", "a.b.svc.cluster.local"),
        ("x.a.b.c.svc.cluster.local", "x.a.b.c.svc.cluster.local"),
        ("a.b.c.svc.cluster.local.example.org", "a.b.c.svc.cluster.local.example.org"),
        ("a.b.c.svc.cluster.locals", "a.b.c.svc.cluster.locals"),
        ("a.b.c.svc", "a.b.c.svc"),
    ],
)
def test_names_of_pods(text, expected):
    assert addressed(text, lambda *parts: f"<{' '.join(parts)}>") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.0.0.0:8001", "127.16.2.3:8001"),
        ('{"listen": "[::]:8001"}', '{"listen": "127.16.2.3:8001"}'),
        ("--bind=0.0.0.0:80,x", "--bind=127.16.2.3:80,x"),
        ("10.0.0.0:80", "10.0.0.0:80"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("fd00::[::]:1", "fd00::[::]:1"),
    ],
)
def test_every_address_of_a_pod_is_its_own(text, expected):
    assert bound(text, "127.16.2.3") == expected


@given(st.lists(st.text("abc0-.", max_size=4), unique=True, max_size=300))
def test_each_name_has_an_address_of_its_own_for_ever(names):
    addresses = Addresses()
    given_out = {name: addresses.of(name) for name in names}
    assert len(set(given_out.values())) == len(names)
    assert {name: addresses.of(name) for name in reversed(names)} == given_out
    for address in given_out.values():
        first, second, _, last = map(int, address.split("."))
        assert (first, 16 <= second <= 239, 1 <= last <= 254) == (127, True, True), address


def test_collision_gives_another_address(monkeypatch):
    addresses = Addresses()
    monkeypatch.setattr(
        addresses, "_hashed", lambda name: "127.16.0.2" if "#" in name else "127.16.0.1"
    )
    assert (addresses.of("a"), addresses.of("b")) == ("127.16.0.1", "127.16.0.2")


def test_two_clusters_share_no_addresses():
    names = [f"pod-{number}" for number in range(20)]
    one, other = Addresses(), Addresses()
    assert not {one.of(name) for name in names} & {other.of(name) for name in names}
