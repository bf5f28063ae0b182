"""Plans: what they hold, and how even they are."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stageline_api.plan import Plan, PlanError, plan
from stageline_api.plan_request import Device, PlanRequest
from support.profiles import GIB, dense, llama_70b


def request(**asked):
    return PlanRequest(**({"name": "llama", "uri": "hf://a/llama"} | asked))


def test_a_plan_covers_all_layers_once_and_says_what_each_stage_holds():
    made = plan(dense(6), request(stages=3))
    assert made.partition == (2, 2, 2)
    assert [(stage.first_layer, stage.end_layer) for stage in made.stages] == [
        (0, 2), (2, 4), (4, 6),
    ]  # fmt: skip
    matrix, layer = 32_000 * 1024 * 2, 100_000_000 * 2
    assert [stage.weight_bytes for stage in made.stages] == [
        2 * layer + matrix, 2 * layer, 2 * layer + matrix,
    ]  # fmt: skip
    assert {stage.kv_bytes for stage in made.stages} == {2 * 16 * 8192 * 1024 * 2}
    assert all(stage.needs_bytes > stage.weight_bytes + stage.kv_bytes for stage in made.stages)
    assert sum(stage.time_share for stage in made.stages) == pytest.approx(1)
    assert (made.model, made.uri) == ("llama", "hf://a/llama")
    assert (made.dtype, made.max_model_len) == ("bfloat16", 8192)


def test_a_plan_survives_json():
    made = plan(dense(6), request(stages=3, device=Device(80 * GIB)))
    assert Plan.model_validate_json(made.model_dump_json()) == made


def test_llama_70b_on_four_pods_of_80_gib():
    made = plan(llama_70b(), request(stages=4, max_model_len=8192, device=Device(80 * GIB)))
    assert made.partition == (20, 21, 20, 19)
    assert made.memory_checked
    assert made.bottleneck_ratio <= 1.05


@pytest.mark.parametrize(
    ("layers", "stages"), [(80, 4), (126, 6), (61, 3), (48, 2), (200, 8), (1000, 48)]
)
def test_the_slowest_stage_takes_at_most_a_twentieth_more_than_the_mean(layers, stages):
    profile = dense(layers, hidden=4096, per_layer=400_000_000, vocabulary=128_000)
    assert plan(profile, request(stages=stages)).bottleneck_ratio <= 1.05


def test_a_thousand_layers_over_64_stages_are_planned_in_less_than_a_second():
    asked = request(stages=64, device=Device(24 * GIB, 100), overrides={7: Device(16 * GIB, 50)})
    profile = dense(1000, max_model_len=2048)
    started = time.process_time()
    made = plan(profile, asked)
    took = time.process_time() - started
    assert len(made.partition) == 64
    assert took < 1, f"planning took {took:.2f} s of CPU"


def test_without_a_number_of_stages_the_fewest_that_fit_are_planned():
    asked = request(max_model_len=8192, device=Device(80 * GIB))
    made = plan(llama_70b(), asked)
    assert len(made.partition) == 3
    with pytest.raises(PlanError, match=r"raise spec\.pipeline\.stages to 3"):
        plan(llama_70b(), request(stages=2, max_model_len=8192, device=Device(80 * GIB)))


def test_without_a_number_of_stages_those_that_overrides_name_exist():
    assert len(plan(dense(6), request(overrides={2: Device()})).partition) == 3


def test_unknown_memory_is_planned_unchecked_and_said_so():
    unknown = plan(dense(6), request(stages=2))
    partly = plan(dense(6), request(stages=2, overrides={1: Device(80 * GIB)}))
    assert not unknown.memory_checked
    assert not partly.memory_checked
    assert [stage.offers_bytes for stage in partly.stages] == [None, 80 * GIB]
    assert plan(dense(6), request()).partition == (6,), "one stage, as nothing says it is too few"


def test_faster_devices_get_more_layers():
    made = plan(dense(30), request(stages=2, overrides={1: Device(speed_percent=200)}))
    assert made.partition[1] > made.partition[0]
    assert made.bottleneck_ratio <= 1.05, "their time is even, not their number"


def test_smaller_devices_get_what_they_can_hold():
    asked = request(stages=2, device=Device(8 * GIB), overrides={0: Device(int(1.5 * GIB))})
    made = plan(dense(12, max_model_len=1024), asked)
    assert made.stages[0].needs_bytes <= 1.5 * GIB
    assert made.partition[0] < made.partition[1]


def test_a_given_partition_is_taken_as_it_is():
    assert plan(dense(6), request(stages=2, partition=(1, 5))).partition == (1, 5)


@settings(max_examples=100)
@given(
    layers=st.integers(1, 40),
    stages=st.none() | st.integers(1, 8),
    memory=st.none() | st.integers(1, 12),
    special=st.dictionaries(
        st.integers(0, 7),
        st.builds(
            Device, st.none() | st.integers(1, 12).map(GIB.__mul__), st.sampled_from([50, 100])
        ),
        max_size=3,
    ),
    tied=st.booleans(),
)
def test_whatever_is_planned_covers_the_model_and_fits(layers, stages, memory, special, tied):
    device = Device(memory * GIB if memory else None)
    profile = dense(layers, tied=tied, max_model_len=2048)
    try:
        made = plan(profile, request(stages=stages, device=device, overrides=special))
    except PlanError:
        return
    ends = [0, *(stage.end_layer for stage in made.stages)]
    assert [stage.first_layer for stage in made.stages] == ends[:-1]
    assert ends[-1] == layers
    assert all(size >= 1 for size in made.partition)
    assert all(s.offers_bytes is None or s.needs_bytes <= s.offers_bytes for s in made.stages)
    assert made.bottleneck_ratio >= 1


def test_the_hash_is_of_what_stages_must_agree_on():
    plain = request(stages=2)
    same = [request(stages=2, device=Device(80 * GIB)), request(stages=2, dtype="bfloat16")]
    other = [
        request(stages=3),
        request(stages=2, partition=(2, 4)),
        request(stages=2, uri="hf://a/other"),
        request(stages=2, dtype="float32"),
        request(stages=2, max_model_len=4096),
        request(stages=2, max_sequences=8),
        request(stages=2, prefill_chunk=64),
    ]
    known = plan(dense(6), plain).plan_hash
    assert {plan(dense(6), asked).plan_hash for asked in same} == {known}
    assert len({known, *(plan(dense(6), asked).plan_hash for asked in other)}) == len(other) + 1


def test_the_hash_is_the_same_on_every_machine():
    assert plan(dense(6), request(stages=2)).plan_hash == "5c3afae32b61f4b7"


def test_an_encoder_without_token_limit_is_planned_without_one():
    images = dense(6, task="infer", vocabulary=0, max_model_len=0)
    assert plan(images, request(max_model_len=64)).max_model_len is None


def test_halved_weights_are_another_plan_of_a_float32_model_alone():
    plain, halved = (
        plan(dense(6), request(dtype="float32", weight_dtype=weights, stages=2))
        for weights in (None, "float16")
    )
    assert plain.plan_hash != halved.plan_hash
    assert halved.dtype == "float32", "they go on computing in it"
    with pytest.raises(PlanError, match="those of llama compute in bfloat16"):
        plan(dense(6), request(weight_dtype="float16", stages=2))
