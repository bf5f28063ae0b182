"""Plans that cannot be: the exact sentences, and that their advice holds."""

import re

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from stageline_api.plan import PlanError, plan
from stageline_api.plan_request import Device, PlanRequest
from support.profiles import GIB, dense, llama_70b


def request(**asked):
    return PlanRequest(**({"name": "llama", "uri": "hf://a/llama"} | asked))


def refusal(profile, **asked):
    with pytest.raises(PlanError) as refused:
        plan(profile, request(**asked))
    return str(refused.value)


def gib(number):
    return Device(int(number * GIB))


@pytest.mark.parametrize(
    ("profile", "asked", "sentence"),
    [
        (
            llama_70b(),
            {"stages": 4, "max_model_len": 8192, "device": gib(40)},
            "stage 1 of llama needs 44.6 GiB but its pods offer 40 GiB: raise "
            "spec.pipeline.stages to 5 or lower spec.model.maxModelLen to 4604",
        ),
        (
            llama_70b(),
            {"stages": 4, "max_model_len": 1024, "device": gib(30)},
            "stage 0 of llama needs 35.8 GiB but its pods offer 30 GiB: raise "
            "spec.pipeline.stages to 5",
        ),
        (
            llama_70b(),
            {"device": gib(2), "max_model_len": 1024},
            "stage 79 of llama needs 4.4 GiB but its pods offer 2 GiB, even with 80 stages: "
            "give each at least 4.4 GiB",
        ),
        (
            dense(1, max_model_len=8192),
            {"stages": 1, "device": gib(0.9)},
            "stage 0 of llama needs 1.1 GiB but its pods offer 921.5 MiB: "
            "lower spec.model.maxModelLen to 1975",
        ),
        (
            llama_70b(),
            {"partition": (60, 20), "max_model_len": 1024, "device": gib(85)},
            "stage 0 of llama needs 102 GiB but its pods offer 85 GiB: "
            "leave spec.pipeline.partition out, [41, 39] fits",
        ),
        (
            llama_70b(),
            {"partition": (60, 20), "max_model_len": 4096, "device": gib(45)},
            "stage 0 of llama needs 113.3 GiB but its pods offer 45 GiB: "
            "leave spec.pipeline.partition out and raise spec.pipeline.stages to 4",
        ),
        (
            dense(6),
            {"partition": (3, 2)},
            "partition [3, 2] covers 5 layers but llama has 6: make its numbers add up to 6",
        ),
        (
            dense(6),
            {"partition": (0, 6)},
            "partition [0, 6] of llama has a stage without layers: give each at least 1",
        ),
        (
            dense(6),
            {"stages": 8},
            "llama has 6 layers, too few for 8 stages: lower spec.pipeline.stages to 6 or less",
        ),
        (
            dense(1),
            {"stages": 2},
            "llama has 1 layer, too few for 2 stages: lower spec.pipeline.stages to 1 or less",
        ),
        (
            dense(6),
            {"overrides": {6: Device()}},
            "spec.stageOverrides names stage 6 but the pipeline has at most 6 stages: "
            "the last one is stage 5",
        ),
        (
            dense(6),
            {"stages": 2, "overrides": {3: Device()}},
            "spec.stageOverrides names stage 3 but the pipeline has at most 2 stages: "
            "the last one is stage 1",
        ),
        (
            dense(6),
            {"max_model_len": 8193},
            "spec.model.maxModelLen is 8193 but the model of llama was made for 8192 tokens: "
            "lower it to 8192 or less, or leave it out",
        ),
        (
            dense(6, max_model_len=0),
            {},
            "the model of llama has no length limit of its own: set spec.model.maxModelLen, "
            "from which its KV room follows",
        ),
        (
            dense(6, dtype="float64"),
            {},
            "the checkpoint of llama is float64, which no stage computes in: "
            "set spec.model.dtype to one of float32, bfloat16, float16",
        ),
    ],
)
def test_the_refusal_says_what_would_fit(profile, asked, sentence):
    assert refusal(profile, **asked) == sentence


@settings(max_examples=150)
@given(
    layers=st.integers(2, 30),
    stages=st.integers(1, 5),
    memory=st.floats(0.7, 6),
    kv_values=st.sampled_from([0, 1024, 8192]),
    special=st.dictionaries(st.integers(0, 5), st.floats(0.7, 6).map(gib), max_size=2),
)
def test_the_advice_of_a_refusal_holds(layers, stages, memory, kv_values, special):
    assume(stages <= layers and all(stage < stages for stage in special))
    profile = dense(layers, kv_values=kv_values)
    asked = {"stages": stages, "device": gib(memory), "overrides": special}

    def fits(**changed):
        try:
            plan(profile, request(**(asked | changed)))
        except PlanError:
            return False
        return True

    try:
        plan(profile, request(**asked))
    except PlanError as error:
        advice = str(error)
    else:
        return
    if more := re.search(r"stages to (\d+)", advice):
        number = int(more[1])
        assert fits(stages=number), advice
        assert not any(fits(stages=fewer) for fewer in range(stages, number)), advice
    if shorter := re.search(r"maxModelLen to (\d+)", advice):
        length = int(shorter[1])
        assert fits(max_model_len=length), advice
        assert not fits(max_model_len=length + 1), advice
    if least := re.search(r"give each at least ([\d.]+) (\w)iB", advice):
        enough = Device(int(float(least[1]) * 1024 ** "KMGT".index(least[2]) * 1024))
        assert fits(device=enough, overrides={}), advice
    assert more or shorter or least, f"no advice in: {advice}"
