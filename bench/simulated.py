"""The scheduler in simulated time: what more groups than stages would cost, and what hops do.

The same on every machine, for nothing is computed: the tests' ring (tests/support/ringsim.py),
whose stages take as long as they are said to. 300 requests, 16 sequences a stage, a microbatch of
4 ms and 0.3 ms a token, as decoders on a core have it.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from support.ringsim import Ring, linear, prompt

COST = linear(0.004, 0.0003, 1e-7)
HOPS = (0.0, 0.0002, 0.001)


def saturated(stages: int, groups: int, hop: float) -> tuple[float, float]:
    """The share of time in which the idlest stage waited, and tokens a second."""
    chance = random.Random(1)
    ring = Ring([COST] * stages, groups=groups, in_flight=groups + 1, hop=hop)
    for key in range(300):
        ring.at(0.0, prompt(key, chance.randint(5, 200), chance.randint(10, 120)))
    ring.run()
    served = max(times[0] for times in ring.tokens.values())
    busy = min(stage.busy(0.05 * served, 0.95 * served) for stage in ring.stages)
    return 1 - busy, sum(map(len, ring.tokens.values())) / ring.now


def main() -> None:
    print("                 as many groups as stages   one group more")
    print("stages  hop ms     waits    tokens/s        waits   tokens/s")
    for stages in (2, 3, 4):
        for hop in HOPS:
            (waits, rate), (more, other) = (
                saturated(stages, groups, hop) for groups in (stages, stages + 1)
            )
            print(
                f"{stages:6d}  {1000 * hop:6.1f}    {waits:6.1%}  {rate:10.0f}       "
                f"{more:6.1%}  x {other / rate:.2f}"
            )


if __name__ == "__main__":
    main()
