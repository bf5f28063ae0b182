"""CPU of the processes that a run is made of, as far as they are on this machine."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

CLUSTER: Final = (
    "kube-apiserver", "etcd", "kube-controller-manager", "kube-scheduler", "kwok",
)  # fmt: skip
_TICKS: Final = os.sysconf("SC_CLK_TCK")

Cost = Counter[str]
"""Milliseconds of CPU by who used it."""


def cpu_seconds(process: int) -> float:
    """What a process has used in its life. OSError when it is gone."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


@dataclass(frozen=True, slots=True)
class Threads:
    """Seconds of a process: CPU of all its threads, and what the busiest waited for a core."""

    cpu: float
    waited: float

    @classmethod
    def of(cls, process: int) -> Threads:
        """Since each of its threads began (/proc/[pid]/task/[tid]/schedstat)."""
        found = [
            [int(field) / 1e9 for field in (task / "schedstat").read_text().split()[:2]]
            for task in Path(f"/proc/{process}/task").iterdir()
        ]
        return cls(sum(cpu for cpu, _ in found), max(found)[1])

    def __sub__(self, before: Threads) -> Threads:
        return Threads(self.cpu - before.cpu, self.waited - before.waited)


def cost(others: Mapping[str, int]) -> Cost:
    """What the parts of a cluster here, and `others` (number by name), have used until now."""
    found: Cost = Counter()
    for name, process in (*_running(), *others.items()):
        try:
            found[name] += round(1000 * cpu_seconds(process))
        except OSError:  # it has ended meanwhile
            continue
    return found


def table(columns: Mapping[str, Cost], number: int) -> str:
    """Milliseconds a resource as a table in Markdown, the dearest first."""
    names = sorted(
        {name for column in columns.values() for name in column},
        key=lambda name: -sum(column[name] for column in columns.values()),
    )
    rows = [[name, *(f"{column[name] / number:.0f}" for column in columns.values())]
            for name in names]  # fmt: skip
    rows.append(["together", *(f"{column.total() / number:.0f}" for column in columns.values())])
    head = ["| CPU a resource, ms |", *(f" {name} |" for name in columns)]
    rule = ["|---|", *("---:|" for _ in columns)]
    lines = ["".join(head), "".join(rule), *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n".join(lines)


def _running() -> Iterator[tuple[str, int]]:
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().split(b"\0")[0]
        except OSError:
            continue
        if (name := Path(command.decode(errors="replace")).name) in CLUSTER:
            yield name, int(entry.name)
