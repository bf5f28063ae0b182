"""What holds for every test."""

import asyncio
from collections import Counter

import pytest
from hypothesis import settings
from tqdm import tqdm

# Without a loop of its own until a test has one: else pytest-asyncio asks for the main thread's,
# Python 3.11 makes one on asking, and nobody closes it: a ResourceWarning, at random, at the end.
asyncio.set_event_loop(None)

# Its thread outlives every progress bar, and tests of ours ask whether a thread was left behind.
tqdm.monitor_interval = 0

# How long an example takes depends on what else the machine does: no test is about that.
settings.register_profile("stageline", deadline=None)
settings.load_profile("stageline")


@pytest.fixture(scope="session")
def real_server(tmp_path_factory):
    """One kube-apiserver for all tests of this process: starting one takes four seconds of a CPU.

    Who makes pods or Deployments takes them away again, else the nodes of another test run them.
    """
    from support.kube import RealServer

    with RealServer(tmp_path_factory.mktemp("kube")) as server:
        yield server


def pytest_terminal_summary(terminalreporter):
    """One line for each reason for which tests are left out, however many there are."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in skipped)
    for reason, tests in sorted(reasons.items()):
        terminalreporter.write_line(f"left out: {tests} tests, {reason}")
