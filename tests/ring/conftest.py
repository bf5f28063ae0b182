"""What every test of the ring must leave behind: nothing."""

import threading
import time

import pytest

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
