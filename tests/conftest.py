"""What holds for every test."""

import asyncio
from collections import Counter

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


def pytest_terminal_summary(terminalreporter):
    """One line for each reason for which tests are left out, however many there are."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in skipped)
    for reason, tests in sorted(reasons.items()):
        terminalreporter.write_line(f"left out: {tests} tests, {reason}")
