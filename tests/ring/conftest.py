"""What every test of the ring must leave behind: nothing; and the transports under test."""

import threading
import time

import pytest

from stageline_wire.credentials import Credentials
from support.certificates import Authority
from support.transports import TRANSPORTS, opened_ends

_SECONDS = 10.0


@pytest.fixture(autouse=True)
def no_thread_is_left():
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + _SECONDS
    while left := [t for t in threading.enumerate() if t not in before and t.is_alive()]:
        names = sorted(thread.name for thread in left)
        assert time.monotonic() < deadline, f"threads were left behind: {names}"
        time.sleep(0.01)


@pytest.fixture(scope="session")
def credentials(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certificates") / "stage"
    return Credentials.load(Authority().folder(folder, "stage"))


@pytest.fixture(params=[*TRANSPORTS, *(f"{name} with TLS" for name in TRANSPORTS)])
def ends(request, credentials):
    name, _, tls = request.param.partition(" ")
    with opened_ends(name, credentials if tls else None) as found:
        yield found


@pytest.fixture(params=TRANSPORTS)
def plain_ends(request):
    with opened_ends(request.param) as found:
        yield found
