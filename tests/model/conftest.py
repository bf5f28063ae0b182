from __future__ import annotations

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Sums in one order, so that equal means equal; and two cores are shared by all workers."""
    torch.set_num_threads(1)
