"""What a plan says of a stage's weights is what the worker then holds, to the byte."""

import pytest

from stageline_api.plan import plan
from stageline_api.plan_request import PlanRequest
from stageline_worker.model.profile import profile
from support import zoo
from support.stages import stages

VARIED = ["bert_masked", "gemma3", "gpt2", "llama", "llama_tied", "mixtral", "opt_projected",
          "vit_classifier"]  # fmt: skip


@pytest.mark.parametrize("name", VARIED)
def test_planned_weights_are_those_that_the_stages_hold(name):
    uri = f"file://{zoo.checkpoint(name)}"
    held = stages(name)
    partition = tuple(stage.layers[1] - stage.layers[0] for stage in held)
    request = PlanRequest(name, uri, dtype="float32", partition=partition)
    planned = [stage.weight_bytes for stage in plan(profile(uri), request).stages]
    assert planned == [4 * stage.parameters for stage in held]
