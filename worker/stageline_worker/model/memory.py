"""Memory that this process can still get."""

from __future__ import annotations

from pathlib import Path

import torch

_CGROUP = Path("/sys/fs/cgroup")
_MEMINFO = Path("/proc/meminfo")
_FILE_PAGES = ("active_file", "inactive_file")


def free_bytes(device: torch.device) -> int | None:
    """Of the GPU's memory, or of what machine and container leave; None where nothing tells."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    known = [bytes_ for bytes_ in (_machine(), _container()) if bytes_ is not None]
    return min(known, default=None)


def _machine() -> int | None:
    return _field(_MEMINFO, "MemAvailable:", 1024)


def _container() -> int | None:
    """What the limit of the control group leaves; file pages in it can be given back."""
    limit = _number(_CGROUP / "memory.max")
    used = _number(_CGROUP / "memory.current")
    if limit is None or used is None:
        return None
    pages = (_field(_CGROUP / "memory.stat", name, 1) or 0 for name in _FILE_PAGES)
    return max(limit - used + sum(pages), 0)


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # not there, or "max"
        return None


def _field(path: Path, name: str, unit: int) -> int | None:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    values = (line.split()[1] for line in lines if line.split()[:1] == [name])
    return next((int(value) * unit for value in values), None)
