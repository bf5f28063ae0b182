from __future__ import annotations

import shutil
from pathlib import Path
from threading import Event

import pytest
import torch

from support import zoo


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Sums in one order, so that equal means equal; and two cores are shared by all workers."""
    torch.set_num_threads(1)


@pytest.fixture
def waits(monkeypatch):
    """How long a reader of a source waited before each further try; no time goes by."""
    waited: list[float] = []

    def wait(self, seconds):
        waited.append(seconds)
        return self.is_set()

    patient = type("Patient", (Event,), {"wait": wait})
    monkeypatch.setattr("stageline_sources.reading.Event", patient)
    return waited


@pytest.fixture
def llama(tmp_path):
    """A checkpoint of the test's own."""
    return Path(shutil.copytree(zoo.checkpoint("llama"), tmp_path / "llama"))
