"""How links of every transport end: in order, by death, by refusal, for bad frames."""

import queue
import threading
import time

import pytest
import torch

from stageline_wire import Frame, Kind, encode
from stageline_worker.transport import LinkEnded, LinkError
from support.pipeline import free_ports
from support.transports import SECONDS, SESSION, HungUp, microbatch


def test_a_sender_that_waits_for_credit_is_let_go_when_the_link_is_closed(ends):
    outlet, _ = ends.link()
    failed = queue.SimpleQueue()

    def send_until_it_fails():
        try:
            for n in range(100):
                outlet.send(microbatch(n))
        except LinkError as error:
            failed.put(str(error))

    sender = threading.Thread(target=send_until_it_fails)
    sender.start()
    outlet.close()
    assert failed.get(timeout=SECONDS)
    sender.join()
    assert ends.broken.empty(), "a link that was closed here was called broken"


def test_end_is_acknowledged_only_when_all_was_received(ends):
    outlet, inlet = ends.link()
    for n in range(3):
        outlet.send(microbatch(n))
    acknowledged = queue.SimpleQueue()
    finishing = threading.Thread(target=lambda: acknowledged.put(outlet.finish(SECONDS)))
    finishing.start()
    assert [inlet.receive(SECONDS).sequence for _ in range(3)] == [0, 1, 2]
    with pytest.raises(LinkEnded):
        inlet.receive(SECONDS)
    with pytest.raises(LinkEnded):
        inlet.receive(SECONDS)
    assert acknowledged.get(timeout=SECONDS)
    finishing.join()
    outlet.close()
    assert ends.broken.empty(), "an orderly end was called broken"


def test_an_end_without_END_is_a_failure_at_the_receiver(ends):
    outlet, inlet = ends.link()
    outlet.send(microbatch(1))
    assert inlet.receive(SECONDS).sequence == 1
    outlet.close()
    with pytest.raises(LinkError) as error:
        inlet.receive(SECONDS)
    assert not isinstance(error.value, LinkEnded)


def test_the_death_of_the_receiver_is_told_once_and_ends_sending(ends):
    outlet, _ = ends.link()
    ends.die()
    assert ends.broken.get(timeout=SECONDS)
    with pytest.raises(LinkError):
        outlet.send(microbatch(1))
    assert not outlet.finish(SECONDS)
    assert ends.broken.empty()


def test_closing_the_inlet_breaks_the_link_with_its_reason(ends):
    _, inlet = ends.link()
    inlet.close("the session is over")
    assert "the session is over" in ends.broken.get(timeout=SECONDS)
    with pytest.raises(LinkError, match="the session is over"):
        inlet.receive(SECONDS)


def test_a_receiver_that_waits_is_woken(ends):
    _, inlet = ends.link()
    got = queue.SimpleQueue()
    waiting = threading.Thread(target=lambda: got.put(inlet.receive()))
    waiting.start()
    inlet.wake()
    assert got.get(timeout=SECONDS) is None
    waiting.join()
    assert inlet.receive(0) is None
    assert inlet.receive(0.01) is None


def test_a_refused_link_says_why(ends):
    with pytest.raises(LinkError, match="session 0 is none of ours"):
        ends.link(session=0)
    assert ends.refusals.count == 1


def test_a_dial_to_nobody_ends_at_its_deadline(ends):
    (port,) = free_ports(1)
    began = time.monotonic()
    outlet = ends.transport.dial(f"127.0.0.1:{port}", Frame(Kind.HELLO, 1), ends.broken.put)
    with pytest.raises(LinkError, match=r"did not answer within 0\.2 s"):
        outlet.connect(0.2)
    assert time.monotonic() - began < SECONDS


def test_a_dial_that_is_closed_lets_go_at_once(ends):
    (port,) = free_ports(1)
    outlet = ends.transport.dial(f"127.0.0.1:{port}", Frame(Kind.HELLO, 1), ends.broken.put)
    threading.Timer(0.1, outlet.close).start()
    began = time.monotonic()
    with pytest.raises(LinkError):
        outlet.connect(60.0)
    assert time.monotonic() - began < SECONDS
    assert ends.broken.empty()


def test_a_dial_that_nobody_answered_can_be_finished(ends):
    """A worker may be told to stop at any moment."""
    (port,) = free_ports(1)
    outlet = ends.transport.dial(f"127.0.0.1:{port}", Frame(Kind.HELLO, 1), ends.broken.put)
    assert not outlet.finish(0.2), "who would have acknowledged it?"
    outlet.close()
    assert ends.broken.empty()


def bad_first_messages():
    good = b"".join(encode(Frame(Kind.HELLO, SESSION)))
    return {
        "empty": b"",
        "truncated": good[:-1] + b"",
        "noise": b"GET / HTTP/1.1\r\n\r\n" * 5,
        "no HELLO": b"".join(encode(microbatch(1))),
        "absurd length": good[:32] + b"\xff" * 8 + good[40:],
    }


@pytest.mark.parametrize("what", bad_first_messages())
def test_a_strangers_bad_frame_ends_only_its_own_stream(ends, what):
    outlet, inlet = ends.link()
    with ends.stranger() as stranger:
        stranger.say(bad_first_messages()[what], whole=False)
        with pytest.raises(HungUp, match=r"frame|HELLO"):
            stranger.hear()
    assert ends.refusals.count == 1
    outlet.send(microbatch(1))
    assert inlet.receive(SECONDS).sequence == 1, "the good link is harmed"


@pytest.mark.parametrize("message", [b"x" * 100, b"".join(encode(Frame(Kind.GENERATE, SESSION)))])
def test_a_bad_frame_on_a_link_breaks_it_and_is_counted(ends, message):
    with ends.stranger() as stranger:
        stranger.say(b"".join(encode(Frame(Kind.HELLO, SESSION))))
        assert stranger.hear().kind is Kind.WELCOME
        stranger.say(message)
        with pytest.raises(LinkError):
            ends.inlets.get(timeout=SECONDS).receive(SECONDS)
        assert ends.refusals.count == 1
        with pytest.raises(HungUp, match="frame"):
            stranger.hear()


def test_a_sender_that_ignores_its_credits_is_cut_off(ends):
    """Frames so large that they are taken off ahead of the ring, on every transport."""
    large = torch.zeros(1 << 20, dtype=torch.uint8)
    flood = [b"".join(encode(microbatch(n, large))) for n in range(12)]
    with ends.stranger() as stranger:
        stranger.say(b"".join(encode(Frame(Kind.HELLO, SESSION))))
        inlet = ends.inlets.get(timeout=SECONDS)
        saying = threading.Thread(target=lambda: [stranger.say(frame) for frame in flood])
        saying.start()
        got = [inlet.receive(SECONDS)]
        with pytest.raises(HungUp, match="more than its 64 credits"):
            list(iter(stranger.hear, None))
        with pytest.raises(LinkError, match="more than its 64 credits"):
            got.extend(iter(lambda: inlet.receive(SECONDS), None))
        assert len(got) <= 5, "more than the first, which is paid for at once, and a window"
        saying.join()
