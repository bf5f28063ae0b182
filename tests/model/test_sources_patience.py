"""Retry-After as RFC 9110 (10.2.3) has it: seconds, or a date in any of its three forms."""

from datetime import UTC, datetime

import pytest

from stageline_sources.patience import asked_seconds

NOW = datetime(2026, 11, 30, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7), (" 120 ", 120), ("0", 0),
        ("Mon, 30 Nov 2026 12:00:09 GMT", 9), ("Monday, 30-Nov-26 12:00:09 GMT", 9),
        ("Mon Nov 30 12:00:09 2026", 9), ("Mon, 30 Nov 2026 13:00:09 +0100", 9),
        ("Mon, 30 Nov 2026 11:00:00 GMT", 0),
        ("", None), ("soon", None), ("-5", None), ("1.5", None), ("٣", None),
        ("Mon, 99 Nov 2026 12:00:00 GMT", None),
    ],
)  # fmt: skip
def test_seconds_that_a_server_asks_to_wait(header, seconds):
    assert asked_seconds(header, NOW) == seconds
