"""What holds for every test."""

import asyncio

# Without a loop of its own until a test has one: else pytest-asyncio asks for the main thread's,
# Python 3.11 makes one on asking, and nobody closes it: a ResourceWarning, at random, at the end.
asyncio.set_event_loop(None)
