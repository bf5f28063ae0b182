"""What waits for a client of a stream: in order, bounded for each request, and no further."""

from __future__ import annotations

import asyncio

import pytest

from stageline_router.errors import Unread
from stageline_router.outgoing import Outgoing, Sender


async def taken(outgoing: Outgoing, count: int) -> list[bytes | None]:
    return [await asyncio.wait_for(outgoing.next(), 5) for _ in range(count)]


async def test_messages_come_in_order_and_end():
    outgoing = Outgoing()
    one, two = Sender(outgoing), Sender(outgoing)
    one.send(b"a")
    two.send(b"b")
    one.last(b"c")
    outgoing.close()
    assert await taken(outgoing, 4) == [b"a", b"b", b"c", None]


async def test_who_waits_for_a_message_hears_of_it_and_of_the_end():
    outgoing = Outgoing()
    waiting = asyncio.create_task(taken(outgoing, 2))
    await asyncio.sleep(0)
    Sender(outgoing).send(b"a")
    await asyncio.sleep(0)
    outgoing.close()
    assert await waiting == [b"a", None]


@pytest.mark.parametrize(("size", "fit"), [(1, 1024), (1024, 257), (1 << 20, 1)])
async def test_a_request_may_have_so_much_waiting_and_no_more(size, fit):
    outgoing = Outgoing()
    sender, other = Sender(outgoing), Sender(outgoing)
    for _ in range(fit):
        sender.send(bytes(size))
    with pytest.raises(Unread, match="reads too slowly or not at all: this request ends"):
        sender.send(bytes(size))
    other.send(b"not its fault")
    await taken(outgoing, 1)
    sender.send(b"there is room again")
    sender.last(b"why it ended")
    outgoing.close()
    assert (await taken(outgoing, fit + 3))[-4:] == [
        b"not its fault", b"there is room again", b"why it ended", None,
    ]  # fmt: skip


async def test_no_new_request_is_taken_while_much_waits():
    outgoing = Outgoing()
    sender = Sender(outgoing)
    for _ in range(64):
        sender.send(b"")
    more = asyncio.create_task(outgoing.room())
    await asyncio.sleep(0)
    assert not more.done(), "requests of a client that does not read are taken without end"
    await taken(outgoing, 1)
    await asyncio.wait_for(more, 5)
