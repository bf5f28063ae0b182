"""What units cost: memory to the byte, and the shape of the time estimate."""

import pytest

from stageline_api.sizing import (
    ACTIVATION_VALUES,
    DECODE,
    DRAW_BYTES,
    EDGE_PICOSECONDS,
    RUNTIME_BYTES,
    Settings,
    model_load,
)
from support.profiles import dense, unit


def settings(**changes):
    values = {
        "dtype": "bfloat16",
        "max_model_len": 1000,
        "max_sequences": 4,
        "prefill_chunk": 100,
        "max_batch_size": 8,
    }
    return Settings(**(values | changes))


def one_layer(layer, **changes):
    profile = dense().model_copy(update={"units": (layer,)})
    return model_load(profile, settings(**changes)).layers[0]


def test_a_layer_weighs_its_parameters_in_the_type_of_the_stage():
    assert one_layer(unit("layer", 1000)).weight_bytes == 2000
    assert one_layer(unit("layer", 1000), dtype="float32").weight_bytes == 4000


def test_only_the_matrices_of_linear_layers_are_halved():
    layer = unit("layer", 1000, kv=64).model_copy(update={"matrix_parameters": 900})
    whole, halved = (
        one_layer(layer, dtype="float32", weight_dtype=weights) for weights in (None, "float16")
    )
    assert (whole.weight_bytes, halved.weight_bytes) == (4000, 4 * 100 + 2 * 900)
    assert halved.kv_bytes == whole.kv_bytes, "keys and values stay in float32"
    assert halved.picoseconds < whole.picoseconds


def test_a_profile_that_tells_no_matrices_is_planned_as_if_none_were_halved():
    layer = unit("layer", 1000)
    assert one_layer(layer, dtype="float32", weight_dtype="float16").weight_bytes == 4000


def test_kv_room_is_sequences_times_tokens_times_values_times_bytes():
    assert one_layer(unit("layer", 1, kv=64)).kv_bytes == 4 * 1000 * 64 * 2


def test_a_sliding_window_bounds_the_tokens_that_are_kept():
    assert one_layer(unit("layer", 1, kv=64, window=128)).kv_bytes == 4 * 128 * 64 * 2
    assert one_layer(unit("layer", 1, kv=64, window=5000)).kv_bytes == 4 * 1000 * 64 * 2


def test_equal_layers_are_counted_one_by_one():
    profile = dense(5)
    assert len(model_load(profile, settings()).layers) == 5


def test_first_and_last_stage_hold_embedding_and_head():
    load = model_load(dense(hidden=8, vocabulary=100), settings())
    every = RUNTIME_BYTES + ACTIVATION_VALUES * 8 * 104 * 2
    assert load.beside_layers(0, 3).weight_bytes == 100 * 8 * 2
    assert load.beside_layers(1, 3).weight_bytes == 0
    assert load.beside_layers(1, 3).needs_bytes == every
    assert load.beside_layers(2, 3).weight_bytes == 100 * 8 * 2
    assert load.beside_layers(2, 3).runtime_bytes == every + DRAW_BYTES * 4 * 100, "draws of 4"
    assert load.beside_layers(0, 1).weight_bytes == 2 * 100 * 8 * 2


def test_a_tied_head_brings_the_embedding_along_unless_it_is_there_already():
    tied = model_load(dense(hidden=8, vocabulary=100, tied=True), settings())
    untied = model_load(dense(hidden=8, vocabulary=100), settings())
    assert tied.beside_layers(1, 2).weight_bytes == 100 * 8 * 2
    assert tied.beside_layers(0, 1).weight_bytes == 100 * 8 * 2
    assert tied.head.picoseconds == untied.head.picoseconds, "it computes the same"


def test_the_time_of_a_layer_is_a_b_bytes_and_c_operations():
    kept = min(1000, DECODE.context)
    touched = 2 * (1_000_000 + DECODE.tokens * kept * 64)
    operations = 2 * 1_000_000 * DECODE.tokens
    assert one_layer(unit("layer", 1_000_000, kv=64)).picoseconds == (
        DECODE.picoseconds_per_layer
        + touched * DECODE.picoseconds_per_byte
        + operations * DECODE.picoseconds_per_operation
    )


def test_wider_numbers_take_longer():
    narrow = one_layer(unit("layer", 10**9))
    assert one_layer(unit("layer", 10**9), dtype="float32").picoseconds > narrow.picoseconds


def test_of_a_mixture_the_experts_that_any_token_chose_are_read():
    dense_part, experts = 1_000_000, 8_000_000  # 2 of 8 experts for each token
    layer = unit("layer", dense_part + experts, active=dense_part + experts // 4, experts=experts)
    share = 1 - (1 - 2 / 8) ** DECODE.tokens
    bytes_read = 2 * (dense_part + int(experts * share))
    operations = 2 * (dense_part + experts // 4) * DECODE.tokens
    assert one_layer(layer).picoseconds == (
        DECODE.picoseconds_per_layer
        + bytes_read * DECODE.picoseconds_per_byte
        + operations * DECODE.picoseconds_per_operation
    )


def test_an_embedding_costs_rows_and_a_head_its_whole_matrix():
    load = model_load(dense(hidden=1024, vocabulary=100_000), settings())
    rows = 2 * DECODE.tokens * 1024 * DECODE.picoseconds_per_byte
    assert load.embedding.picoseconds == EDGE_PICOSECONDS + rows
    assert load.head.picoseconds > 100 * load.embedding.picoseconds


@pytest.mark.parametrize(("length", "tokens"), [(512, 512), (0, 256)])
def test_an_encoder_has_no_kv_room_and_activations_for_whole_batches(length, tokens):
    profile = dense(hidden=8, task="infer", kv_values=64)
    load = model_load(profile, settings(max_model_len=length))
    assert load.layers[0].kv_bytes == 0
    assert load.every.runtime_bytes == RUNTIME_BYTES + ACTIVATION_VALUES * 8 * 8 * tokens * 2
    assert load.head.runtime_bytes == 0
