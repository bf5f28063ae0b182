"""The scripts under test are programs, not packages: they are imported from their own folders."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def examples() -> Path:
    return ROOT / "examples"


@pytest.fixture(scope="session")
def train() -> Iterator[ModuleType]:
    """scripts/train_tiny_llama.py."""
    sys.path.insert(0, str(ROOT / "scripts"))
    yield importlib.import_module("train_tiny_llama")
    sys.path.remove(str(ROOT / "scripts"))
