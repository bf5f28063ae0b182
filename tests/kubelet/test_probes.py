"""Probes: verdicts by tables, and their timing under simulated time."""

import asyncio

import pytest

from stageline_local.kubelet.probes import Listener, Probe, Verdict, watch_life


@pytest.mark.parametrize(
    ("successes", "failures", "answers", "verdicts"),
    [
        (1, 3, "+", "+"),
        (1, 3, "--", "??"),
        (1, 3, "---+", "??-+"),
        (1, 3, "+--+---", "++++++-"),
        (2, 1, "++-++", "?+--+"),
        (2, 1, "+-+", "?--"),
    ],
)
def test_verdicts(successes, failures, answers, verdicts):
    verdict = Verdict(Probe({}, successes=successes, failures=failures))
    seen = ""
    for answer in answers:
        verdict.add(answer == "+")
        seen += {True: "+", False: "-", None: "?"}[verdict.good]
    assert seen == verdicts


def test_defaults_are_kubernetes_own():
    probe = Probe.of({"grpc": {"port": 1}})
    assert (probe.initial_delay, probe.period, probe.timeout) == (0, 10, 1)
    assert (probe.successes, probe.failures) == (1, 3)


class Life:
    """A container whose health follows the clock; remembers what was told, and when."""

    def __init__(self, healthy):
        self.healthy = healthy
        self.told = []

    async def run(self, seconds, **probes):
        loop = asyncio.get_running_loop()

        def tell(what):
            self.told.append((round(loop.time(), 1), what))

        listener = Listener(
            started=lambda: tell("started"),
            ready=lambda ready: tell(f"ready {ready}"),
            unhealthy=tell,
        )

        async def check(probe):
            return "" if self.healthy(loop.time()) else "sick"

        specs = {f"{kind}Probe": spec for kind, spec in probes.items()}
        try:
            async with asyncio.timeout(seconds):
                await watch_life(specs, check, listener)
        except TimeoutError:
            pass
        changes = []
        for when, what in self.told:
            if not changes or changes[-1][1] != what:
                changes.append((when, what))
        return changes


@pytest.mark.looptime
async def test_without_probes_a_container_is_ready_at_once():
    assert await Life(lambda now: True).run(5) == [(0, "started"), (0, "ready True")]


@pytest.mark.looptime
async def test_readiness_is_seen_soon_though_the_period_is_long():
    told = await Life(lambda now: now >= 3.1).run(60, readiness={"periodSeconds": 30})
    assert told == [(0, "started"), (0, "ready False"), (3.2, "ready True")]


@pytest.mark.looptime
async def test_readiness_is_lost_after_as_many_periods_as_asked_and_comes_back_soon():
    told = await Life(lambda now: not 5 < now < 32.5).run(
        60, readiness={"periodSeconds": 10, "failureThreshold": 2}
    )
    assert told == [(0, "started"), (0, "ready True"), (20, "ready False"), (32.6, "ready True")]


@pytest.mark.looptime
async def test_slow_start_has_all_its_periods_before_it_is_unhealthy():
    startup = {"periodSeconds": 10, "failureThreshold": 3, "initialDelaySeconds": 2}
    told = await Life(lambda now: False).run(60, startup=startup, readiness={}, liveness={})
    assert told == [(22, "Startup probe failed: sick")]


@pytest.mark.looptime
async def test_nothing_else_is_asked_before_the_start():
    life = Life(lambda now: now >= 4)
    told = await life.run(
        10, startup={"failureThreshold": 9}, readiness={}, liveness={"failureThreshold": 1}
    )
    assert told == [(4, "started"), (4, "ready True")]


@pytest.mark.looptime
async def test_liveness_is_lost_after_as_many_periods_as_asked():
    told = await Life(lambda now: now < 5).run(
        60, liveness={"periodSeconds": 2, "failureThreshold": 3}
    )
    assert told == [(0, "started"), (0, "ready True"), (10, "Liveness probe failed: sick")]
