"""Sequences that come and go, packed into microbatches: each is served as if it were alone.

Sequences start at different times, in slots in no order, their prompts in chunks, several at once;
three uneven stages. Compared are the logits of every token with those of the uncut model.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stageline_api.plan import plan
from stageline_api.plan_request import PlanRequest
from stageline_worker.microbatch import Microbatch, Sampling, Segment
from stageline_worker.model import StageError, load
from stageline_worker.model.blueprint import LayerCache
from stageline_worker.model.kv import KeyValues
from stageline_worker.model.profile import profile
from stageline_worker.model.runs import runs
from support import zoo
from support.stages import CUTS, greedy, stages, through, tokens

every_decoder = pytest.mark.parametrize("name", sorted(zoo.DECODERS))
LENGTHS = (41, 26, 33, 18, 5)  # beyond every sliding window of the zoo, which is 8
PROMPTS = (13, 5, 20, 6, 1)
# Their frequencies follow from the longest sequence of a batch.
ALONE = {"phi3_longrope"}
LARGEST_CHUNK = 11  # more than a window at once


@dataclass
class Traffic:
    """Five sequences, of which each step takes some further."""

    random: random.Random
    ids: list[Tensor]

    def microbatches(self):
        """Lists of (sequence, segment), decoding ones first."""
        slots = self.random.sample(range(16), len(self.ids))
        done = [0] * len(self.ids)
        while any(done[at] < len(ids) for at, ids in enumerate(self.ids)):
            going = [at for at, ids in enumerate(self.ids) if done[at] < len(ids)]
            chosen = self.random.sample(going, self.random.randint(1, len(going)))
            if self.random.random() < 0.5:
                chosen.sort(key=lambda at: slots[at])
            step = []
            for at in chosen:
                left = PROMPTS[at] - done[at]
                count = self.random.randint(1, min(left, LARGEST_CHUNK)) if left > 0 else 1
                step.append((at, Segment(slots[at], done[at], count)))
                done[at] += count
            yield sorted(step, key=lambda item: item[1].count > 1)


@cache
def _expected(name):
    """Logits of the uncut model for each sequence, and their ids."""
    ids = [tokens(1, length, seed=length)[0] for length in LENGTHS]
    with torch.inference_mode():
        return ids, [zoo.uncut(name)(part[None]).logits[0] for part in ids]


def _hidden(name, step, ids):
    packed = [ids[at][segment.start : segment.start + segment.count] for at, segment in step]
    microbatch = Microbatch({"input_ids": torch.cat(packed)}, tuple(part for _, part in step))
    for stage in stages(name)[:-1]:
        microbatch = stage.forward(microbatch)
    return microbatch


@every_decoder
def test_every_token_has_the_logits_of_the_uncut_model(name, monkeypatch):
    worst = _worst_difference(name, monkeypatch)
    assert worst <= 2e-6, f"{name}: logits differ by {worst} of the largest"


@pytest.mark.parametrize("name", ["llama", "qwen2", "gemma2", "gpt_oss", "deepseek_v3"])
def test_a_chunk_of_a_long_sequence_goes_in_parts(name, monkeypatch):
    monkeypatch.setattr("stageline_worker.model.scores._MASK", 64)
    monkeypatch.setattr("stageline_worker.model.step._KEPT", 64)
    worst = _worst_difference(name, monkeypatch)
    assert worst <= 2e-6, f"{name}: logits differ by {worst} of the largest"


def _worst_difference(name, monkeypatch):
    """Of the logits of all tokens, against the largest."""
    ids, expected = _expected(name)
    last = stages(name)[-1]
    told = []
    draw = type(last._sampler).draw

    def listen(sampler, logits, segments, ids):
        told.append(logits)
        return draw(sampler, logits, segments, ids)

    monkeypatch.setattr(type(last._sampler), "draw", listen)
    worst = 0.0
    for step in Traffic(random.Random(name), ids).microbatches():
        microbatch = _hidden(name, step, ids)
        drawing = tuple(
            Segment(part.slot, part.start, part.count, Sampling(0, part.start + part.count))
            for part in microbatch.segments
        )
        last.forward(Microbatch(microbatch.tensors, drawing))
        for (at, segment), logits in zip(step, told.pop(), strict=True):
            reference = expected[at][segment.start + segment.count - 1]
            worst = max(worst, ((logits - reference).abs().max() / reference.abs().max()).item())
    return worst


@every_decoder
def test_greedy_tokens_under_load_are_those_of_the_uncut_model(name):
    prompts = {7: tokens(1, 9, seed=1)[0], 2: tokens(1, 14, seed=2)[0], 3: tokens(1, 6, seed=3)[0]}
    expected = {slot: greedy(zoo.uncut(name), ids, 5) for slot, ids in prompts.items()}
    made: dict[int, list[int]] = {slot: [] for slot in prompts}
    for step in range(9):
        # One more sequence joins every second step, and leaves when it has its tokens.
        segments, parts = [], []
        for slot in sorted(list(prompts)[: step // 2 + 1]):
            given_ids, count = prompts[slot], len(made[slot])
            start = len(given_ids) + count - 1 if count else 0
            part = torch.tensor(made[slot][-1:]) if count else given_ids
            if count < 5:
                sampling = Sampling(0, start + len(part))
                segments.append(Segment(slot, start, len(part), sampling))
                parts.append(part)
        result = through(stages(name), Microbatch({"input_ids": torch.cat(parts)}, tuple(segments)))
        for segment, token in zip(segments, result["tokens"].tolist(), strict=True):
            made[segment.slot].append(token)
    assert made == expected


@pytest.mark.parametrize("name", ["llama", "gpt_oss", "deepseek_v3", "gemma2"])
def test_a_slot_of_nonsense_harms_neither_its_neighbour_nor_its_successor(name):
    stage = load(str(zoo.checkpoint(name)), (0, zoo.LAYERS))
    prompt, decode = tokens(1, 6, seed=3)[0], Sampling(0, 7)
    stage.forward(Microbatch({"input_ids": prompt.repeat(2)}, (Segment(0, 0, 6), Segment(1, 0, 6))))
    for layer in stage._generator._kv.layers.values():
        layer.keys[1, :, :6] = float("nan")
        layer.values[1, :, :6] = float("inf")
    both = (Segment(0, 6, 1, decode), Segment(1, 6, 1, decode))
    neighbour = stage.forward(Microbatch({"input_ids": torch.tensor([9, 9])}, both))
    alone = greedy(zoo.uncut(name), torch.cat((prompt, torch.tensor([9]))), 1)
    assert neighbour.tensors["tokens"][:1].tolist() == alone, "slot 0 read slot 1"
    # The successor is shorter, and decodes beside a longer sequence.
    stage.forward(Microbatch({"input_ids": prompt[:3]}, (Segment(1, 0, 3),)))
    both = (Segment(0, 7, 1, decode), Segment(1, 3, 1, decode))
    later = stage.forward(Microbatch({"input_ids": torch.tensor([9, 9])}, both))
    alone = greedy(zoo.uncut(name), torch.cat((prompt[:3], torch.tensor([9]))), 1)
    assert later.tensors["tokens"][1:].tolist() == alone, "slot 1 read what was there before"


def test_a_microbatch_that_is_refused_changes_no_slot():
    stage = stages("llama")[0]
    ids = tokens(1, 8)[0]
    stage.reset()
    stage.forward(Microbatch({"input_ids": ids[:4]}, (Segment(4, 0, 4),)))
    for others in (
        (Segment(4, 4, 1), Segment(5, 3, 1)),  # slot 5 holds nothing
        (Segment(4, 4, 1), Segment(4, 5, 1)),  # a slot twice
        (Segment(4, 0, 1), Segment(16, 0, 1)),  # no such slot
        (Segment(4, 4, 2), Segment(5, 0, 0)),  # no tokens
    ):
        with pytest.raises(StageError):
            stage.forward(Microbatch({"input_ids": ids[:2]}, others))
        assert stage._generator._kv._held[4] == 4
    stage.forward(Microbatch({"input_ids": ids[4:5]}, (Segment(4, 4, 1),)))


@pytest.mark.parametrize("name", ["mistral", "phi3_longrope"])
def test_a_slot_whose_microbatch_broke_half_way_must_begin_anew(name, monkeypatch):
    stage = load(str(zoo.checkpoint(name)), (0, 3))
    ids = tokens(1, 20)[0]
    stage.forward(Microbatch({"input_ids": ids[:12]}, (Segment(0, 0, 12),)))
    with monkeypatch.context() as patch:
        patch.setattr(stage._cut.model.model.layers[2], "mlp", None)
        with pytest.raises(TypeError):
            stage.forward(
                Microbatch({"input_ids": ids[12:14]}, (Segment(0, 12, 1), Segment(1, 0, 1)))
            )
    for slot, start in ((0, 12), (0, 13), (1, 1)):
        with pytest.raises(StageError, match="holds 0 tokens"):
            stage.forward(Microbatch({"input_ids": ids[:1]}, (Segment(slot, start, 1),)))


@pytest.mark.parametrize("name", sorted(set(zoo.DECODERS) - ALONE))
def test_room_for_keys_and_values_is_what_the_plan_says(name):
    uri = f"file://{zoo.checkpoint(name)}"
    partition = tuple(hi - lo for lo, hi in CUTS)
    request = PlanRequest(name, uri, dtype="float32", max_sequences=16, partition=partition)
    planned = [stage.kv_bytes for stage in plan(profile(uri), request).stages]
    allocated = [stage._generator._kv.nbytes for stage in stages(name)]
    assert allocated == planned
    assert all(stage.kv_tokens == 16 * stage.info.max_model_len for stage in stages(name))


def test_a_long_sequence_changes_no_frequencies_of_a_short_one():
    name, both = "phi3_longrope", (tokens(1, 10, seed=2)[0], tokens(1, 80, seed=1)[0])
    draws = [
        Segment(at, 0, len(ids), Sampling(0, len(ids), logprobs=9)) for at, ids in enumerate(both)
    ]
    result = through(stages(name), Microbatch({"input_ids": torch.cat(both)}, tuple(draws)))
    for ids, row, told in zip(both, result["logprobs"], result["logprob_ids"], strict=True):
        with torch.inference_mode():
            expected = zoo.uncut(name)(ids[None]).logits[0, -1].log_softmax(-1)
        torch.testing.assert_close(row, expected[told], rtol=1e-4, atol=1e-4)


@every_decoder
def test_what_cannot_be_packed_says_so(name):
    assert {stage.packs for stage in stages(name)} == {name not in ALONE}


def test_room_that_there_is_not_is_refused_before_it_is_taken():
    caches = {0: LayerCache(heads=8, key_size=128, value_size=128, window=None)}
    with pytest.raises(StageError, match=r"of 1024 sequences needs 8192\.00 GiB, .* GiB are free"):
        KeyValues(caches, 1024, 1 << 20, torch.float32, torch.device("cpu"))


@given(
    st.lists(
        st.tuples(st.integers(0, 40), st.integers(1, 900)), max_size=40, unique_by=lambda r: r[0]
    )
)
@settings(max_examples=200)
def test_runs_cover_every_row_once_and_waste_little(rows):
    slots, lengths = [row[0] for row in rows], [row[1] for row in rows]
    made = runs(slots, lengths)
    assert [length for run in made for length in run.lengths] == lengths
    assert [run.slot + at for run in made for at in range(len(run.lengths))] == slots
    assert [run.row + at for run in made for at in range(len(run.lengths))] == list(
        range(len(rows))
    )
    for run in made:
        read, wanted = run.longest * len(run.lengths), sum(run.lengths)
        assert read - wanted <= 0.1 * wanted + 32, f"{run} reads {read} tokens for {wanted}"


def test_slots_of_equal_length_in_a_row_are_one_run():
    assert len(runs(range(3, 19), [100] * 16)) == 1
    assert len(runs(range(3, 19), range(100, 116))) == 1
    assert len(runs(range(2), [10, 1000])) == 2
    assert len(runs([5, 4], [10, 10])) == 2
