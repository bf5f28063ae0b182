"""What the kernel says of memory that is left."""

from __future__ import annotations

import pytest
import torch

from stageline_worker.model import memory

CPU = torch.device("cpu")
GIB = 1024**3


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    """Write the kernel's files: 8 GiB are free on the machine."""
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")

    def write(**files):
        for name, text in files.items():
            (tmp_path / name.replace("_", ".")).write_text(text)

    write(meminfo=f"MemTotal: 1 kB\nMemAvailable:   {8 * 1024**2} kB\n")
    return write


def test_without_a_container_it_is_the_machines(kernel):
    assert memory.free_bytes(CPU) == 8 * GIB
    kernel(memory_max="max\n", memory_current="5\n")
    assert memory.free_bytes(CPU) == 8 * GIB


def test_a_container_leaves_its_limit_less_what_cannot_be_given_back(kernel):
    kernel(memory_max=f"{4 * GIB}\n", memory_current=f"{3 * GIB}\n")
    assert memory.free_bytes(CPU) == GIB
    kernel(memory_stat=f"anon 9\nactive_file {GIB}\ninactive_file 7\nfile 1\n")
    assert memory.free_bytes(CPU) == 2 * GIB + 7
    kernel(memory_max=f"{GIB}\n", memory_stat="anon 9\n")
    assert memory.free_bytes(CPU) == 0


def test_where_nothing_tells_nothing_is_known(kernel, tmp_path):
    (tmp_path / "meminfo").unlink()
    assert memory.free_bytes(CPU) is None
