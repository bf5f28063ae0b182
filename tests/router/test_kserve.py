"""The KServe SDK, unmodified, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from support.front import front_door
from support.zoo import checkpoint, uncut

PROGRAM = Path(__file__).parents[1] / "support" / "kserve_client.py"


def test_the_kserve_sdk_gets_the_uncut_models_answer():
    with front_door(checkpoint("bert"), [3, 3]) as front:
        ran = subprocess.run(
            [sys.executable, "-P", str(PROGRAM), front.address, "model"],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    said = json.loads(ran.stdout)
    with torch.inference_mode():
        whole = uncut("bert")(torch.tensor([[5, 6, 7], [8, 9, 10]])).last_hidden_state
    assert said.pop("values") == pytest.approx(whole.flatten()[:8].tolist(), abs=0)
    assert said == {"live": True, "ready": True, "model_ready": True, "shape": [2, 3, 64]}
