"""Links over sockets, which are the default between stages: only stages of the ring have them."""

from __future__ import annotations

import queue
import socket
import ssl
from contextlib import closing

import pytest

from stageline_wire import Frame, Kind
from stageline_wire.credentials import CA, CERTIFICATE, KEY, Credentials
from stageline_worker.transport import LinkError, Refusals
from stageline_worker.transport.places import socket_port, split
from stageline_worker.transport.socket_transport import SocketTransport
from support.certificates import DAY, Authority, put
from support.transports import SECONDS, SESSION, opened_ends, until

WAYS = ("unix", "socket")
FILES = (CA, CERTIFICATE, KEY)
PLAIN = "in plaintext"


@pytest.fixture(scope="module")
def ours():
    return Authority()


@pytest.fixture
def stage(ours, tmp_path):
    return Credentials.load(ours.folder(tmp_path / "stage", "stage"))


def dialled(address, credentials):
    """What comes of a link that another process asks for."""
    transport = SocketTransport(lambda hello, inlet: None, Refusals(), credentials, hello=0.3)
    broken = queue.SimpleQueue()
    with closing(transport.try_dial(address, Frame(Kind.HELLO, SESSION), broken.put)) as outlet:
        outlet.connect(SECONDS)


class Shown:
    """Credentials that ours would refuse to load; they believe who is of our authority."""

    def __init__(self, ours, pair, folder):
        self._files = [put(folder, ours.pair.certificate, pair) / name for name in FILES]

    def ssl_context(self, *, server):
        authority, *shown = self._files
        protocol = ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT
        context = ssl.SSLContext(protocol)
        context.load_verify_locations(authority)
        context.load_cert_chain(*shown)
        context.verify_mode = ssl.CERT_REQUIRED
        return context


SHOWN = {
    "of another authority": lambda ours: Authority("default/other").issue("stage"),
    "run out": lambda ours: ours.issue("stage", ago=2 * DAY, life=DAY),
    "of a router": lambda ours: ours.issue("router"),
    "of the operator": lambda ours: ours.issue("operator"),
}


def shown(ours, who, folder):
    return None if who == PLAIN else Shown(ours, SHOWN[who](ours), folder / "stranger")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("who", [*SHOWN, PLAIN])
def test_who_is_no_stage_of_the_ring_gets_no_link(ours, stage, tmp_path, way, who):
    with opened_ends(way, stage) as ends:
        with pytest.raises(LinkError):
            dialled(ends.address, shown(ours, who, tmp_path))
        assert ends.inlets.empty(), f"somebody {who} is let in"
        until(lambda: ends.refusals.count == 1, "that it was refused is counted")
        ends.link()


def test_who_shows_no_certificate_gets_no_link(ours, stage):
    context = ssl.create_default_context(cadata=ours.pair.certificate.decode())
    context.check_hostname = False
    with opened_ends("socket", stage) as ends:
        host, port = split(ends.address)
        place = (host, socket_port(port))
        # The handshake of TLS 1.3 is over for the one who dials before it is for the other.
        with (
            socket.create_connection(place, timeout=SECONDS) as connection,
            pytest.raises((ssl.SSLError, ConnectionError, AssertionError)),
            context.wrap_socket(connection) as secured,
        ):
            assert secured.recv(1), "it is hung up on"
        assert ends.inlets.empty()
        ends.link()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("who", [*SHOWN, PLAIN])
def test_nothing_is_sent_to_who_is_no_stage_of_the_ring(ours, stage, tmp_path, way, who):
    with opened_ends(way, shown(ours, who, tmp_path)) as ends:
        with pytest.raises(LinkError):
            dialled(ends.address, stage)
        assert ends.inlets.empty(), "HELLO was sent, with the plan in it"
