"""Many PipelineDeployments at once, and the floor: the same children made by a plain client.

    KUBECONFIG=… python bench/scale.py 200

needs a cluster whose fake nodes make pods Ready, for example KWOK, with room for all pods; what the
operator sends to the pods' addresses is led to this machine, for which the run needs root and
iptables. With `--no-nodes` a bare API server is enough: a process here stands in for nodes and
controllers (standin.py), and gives pods addresses on loopback. One process here reports for all
pipelines as their leaders would (fakeworker.py). The operator is the real one, as a process of its
own. Both parts make the same objects in namespaces of their own, with as many requests at once;
the floor waits for nothing on the way and knows beforehand what to make. All resources are of one
model, which few pods read for all of them; with `--own-models` each is of another, and the floor
makes a pod that reads it for each as well, and deletes it when it has ended.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import secrets
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from access import Server, by_kubeconfig
from cost import Cost, cost, table
from fakeworker import WORKER_PORT, Pretence, Worked, working
from fleet import (
    PER_NAMESPACE,
    Fleet,
    children_of,
    confirm,
    make_resources,
    prepare,
    remove,
    revive,
)
from floor import PATIENCE_SECONDS, plainly, with_one_that_ends
from report import Line, breakdown, show
from watched import Calls, Operator, operating, writes

from stageline_local.client import Object

LOOK_SECONDS: Final = 0.25
LOOKS_A_START: Final = 100
"""About: looking more often would be felt in the figures, as each look counts all resources."""
SETTLE_SECONDS: Final = 15.0
"""After the last is Ready: what trails behind belongs to the start."""
CALM: Final = 0.1
"""Of a core, used by the cluster: below it nothing of what was before is under way any more."""
STANDSTILL_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Run:
    """What is asked for."""

    fleet: Fleet
    rest_seconds: float
    network: str
    """Where fake nodes give pods their addresses; empty where none do."""
    log: Path

    @property
    def look_seconds(self) -> float:
        """From one look at how far it is to the next."""
        return max(LOOK_SECONDS, self.fleet.number / 4 / LOOKS_A_START)


@dataclass(frozen=True, slots=True)
class Measured:
    """What the operator took."""

    seconds: float
    start_cpu: float
    cpu: float
    rest_cpu: float
    peak_bytes: int
    reconciles: int
    calls: Calls
    rest_writes: int
    costs: Cost


def main() -> None:
    run = _arguments()
    mark = secrets.token_hex(3)
    ours = run.fleet.namespaces(f"stageline-scale-{mark}")
    plain = run.fleet.namespaces(f"stageline-floor-{mark}")
    with by_kubeconfig() as (kubeconfig, server):
        asyncio.run(prepare(server))
        await_calm()  # a new definition keeps an API server busy for a while
        with working(server, run.fleet.pretence) as worked, _leading(run, worked):
            try:
                with operating(["--kubeconfig", str(kubeconfig)], run.log) as operator:
                    measured = measure(operator, server, ours, run, worked)
                    children = asyncio.run(children_of(server, ours))
                asyncio.run(remove(server, run.fleet, *ours))
                await_calm()
                groups = [*map(with_one_that_ends, children)] if run.fleet.own_models else children
                floor = measure_floor(server, plain, groups, run, worked)
            finally:
                asyncio.run(remove(server, run.fleet, *ours, *plain))
    tell(run, measured, floor, children)


def _arguments() -> Run:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("number", type=int, nargs="?", default=20, help="PipelineDeployments")
    parser.add_argument("--stages", type=int, default=4, help="of each pipeline")
    parser.add_argument(
        "--own-models", action="store_true", help="a model for each, instead of one for all"
    )
    parser.add_argument(
        "--per-namespace", type=int, default=PER_NAMESPACE,
        help="resources in a namespace, at most: some controllers look at all of it for each pod",
    )  # fmt: skip
    parser.add_argument("--rest", type=float, default=30.0, help="seconds of rest to look at")
    parser.add_argument(
        "--no-nodes", action="store_true", help="stand in for nodes and controllers: there are none"
    )
    parser.add_argument("--node-label", default="type=fake", help="of the fake nodes")
    parser.add_argument(
        "--pod-network", default="10.0.0.0/16", help="where the fake pods' addresses are"
    )
    parser.add_argument("--log", type=Path, help="where the operator's log goes (default: nowhere)")
    told = parser.parse_args()
    label, _, value = told.node_label.partition("=")
    pretence = Pretence(told.stages, nodes=told.no_nodes)
    default = Path(tempfile.gettempdir()) / f"stageline-scale-{os.getpid()}.log"
    return Run(
        Fleet(told.number, pretence, (label, value), told.own_models, told.per_namespace),
        told.rest,
        "" if told.no_nodes else told.pod_network, told.log or default,
    )  # fmt: skip


@contextlib.contextmanager
def _leading(run: Run, worked: Worked) -> Iterator[None]:
    """What this machine sends to a worker comes to the pretended ones until the block ends."""
    if not run.network:  # they are where the pods' addresses are
        yield
        return
    rule = [
        "OUTPUT", "--proto", "tcp", "--destination", run.network, "--dport", str(WORKER_PORT),
        "--jump", "REDIRECT", "--to-ports", str(worked.port),
    ]  # fmt: skip
    try:
        subprocess.run(["iptables", "--table", "nat", "--append", *rule], check=True)
    except (OSError, subprocess.CalledProcessError):
        raise SystemExit(
            f"{run.network} cannot be led to the fake workers: run as root, with iptables "
            "installed, or on an API server without nodes, with --no-nodes"
        ) from None
    try:
        yield
    finally:
        subprocess.run(["iptables", "--table", "nat", "--delete", *rule], check=True)


def await_calm() -> None:
    """Come back when the cluster does next to nothing, or after some minutes."""
    deadline = time.monotonic() + PATIENCE_SECONDS / 5
    calm = 0
    while calm < 3 and time.monotonic() < deadline:
        before, began = cost({}), time.monotonic()
        time.sleep(2.0)
        used = (cost({}) - before).total() / 1000 / (time.monotonic() - began)
        calm = calm + 1 if used < CALM else 0


def measure(
    operator: Operator, server: Server, namespaces: Sequence[str], run: Run, worked: Worked
) -> Measured:
    """Make them all, wait until all are Ready, and then for what happens at rest."""
    processes = {"operator": operator.process.pid, **_bench(worked)}
    start_cpu, before, costs = operator.cpu(), operator.calls(), cost(processes)
    began = time.monotonic()
    asyncio.run(make_resources(server, namespaces, run.fleet))
    _wait_ready(operator, server, namespaces, run, began)
    seconds, costs = time.monotonic() - began, cost(processes) - costs
    asyncio.run(confirm(server, namespaces, run.fleet))
    time.sleep(SETTLE_SECONDS)
    calls, cpu, reconciles = operator.calls(), operator.cpu(), operator.reconciles()
    time.sleep(run.rest_seconds)
    return Measured(
        seconds, start_cpu, cpu, operator.cpu() - cpu, operator.peak_bytes(), reconciles,
        calls - before, writes(operator.calls() - calls), costs,
    )  # fmt: skip


def _wait_ready(
    operator: Operator, server: Server, namespaces: Sequence[str], run: Run, began: float
) -> None:
    """Until all are; a fake node that was late takes its pods along, and they are revived."""
    number, before, since = run.fleet.number, 0, began
    while (ready := operator.resources_ready()) < number:
        now = time.monotonic()
        if ready != before:
            before, since = ready, now
        elif now > since + STANDSTILL_SECONDS:
            asyncio.run(revive(server, namespaces))
            since = now
        if now > began + PATIENCE_SECONDS:
            raise SystemExit(f"{ready} of {number} are Ready after {PATIENCE_SECONDS:g} s")
        time.sleep(run.look_seconds)


def measure_floor(
    server: Server,
    namespaces: Sequence[str],
    children: list[list[Object]],
    run: Run,
    worked: Worked,
) -> tuple[float, Cost]:
    """Seconds, and CPU by process."""
    processes = _bench(worked)
    before = cost(processes)
    seconds = asyncio.run(plainly(server, namespaces, children, run.fleet, run.look_seconds))
    return seconds, cost(processes) - before


def _bench(worked: Worked) -> dict[str, int]:
    return {"the benchmark's client": os.getpid(), "its fake workers": worked.process}


def tell(
    run: Run,
    took: Measured,
    floor: tuple[float, Cost],
    children: list[list[Object]],
) -> None:
    """Print it all."""
    number = run.fleet.number
    kinds = Counter(obj["kind"] for group in children for obj in group)
    each = ", ".join(f"{count / number:g} {kind}" for kind, count in kinds.most_common())
    cpu = 1000 * (took.cpu - took.start_cpu) / number
    models = "each of a model of its own" if run.fleet.own_models else "all of one model"
    print(
        f"{number} PipelineDeployments of {run.fleet.pretence.stages} stages and a router, {models}"
    )
    print(f"in namespaces of {run.fleet.per_namespace} at most; children of each: {each}")
    print()
    show(
        Line("all Ready by the operator", took.seconds, "s"),
        Line("all Ready by a plain client (the floor)", floor[0], "s"),
        Line("operator / floor", took.seconds / floor[0], "x", 1.25),
        Line("CPU a resource, start included", 1000 * took.cpu / number, "ms", 50),
        Line("CPU a resource, after the start", cpu, "ms"),
        Line("CPU of the start", took.start_cpu, "s"),
        Line("API calls a resource", took.calls.total() / number, "", 20),
        Line("reconciles a resource", took.reconciles / number, ""),
        Line("peak memory", took.peak_bytes / 1e6, "MB", 250),
        Line(f"API writes in {run.rest_seconds:g} s of rest", took.rest_writes, "", 0),
        Line("CPU at rest", 100 * took.rest_cpu / run.rest_seconds, "% of a core"),
    )
    print("\nAPI calls a resource, by verb and kind:")
    breakdown(took.calls, number)
    print("\nUntil all were Ready, by process (of every cluster on this machine):\n")
    print(table({"operator's run": took.costs, "floor": floor[1]}, number))


if __name__ == "__main__":
    main()
