"""Real checkpoints in the ring: the tokens and outputs of the uncut model."""

import pytest
import torch
import transformers

from support import zoo
from support.pipeline import local_pipeline, process_pipeline

CUT = [1, 4, 1]


def prompt(size, seed):
    random = torch.Generator().manual_seed(seed)
    return torch.randint(3, zoo.VOCABULARY, (size,), generator=random).tolist()


def uncut_greedy(model, tokens, count):
    ids = torch.tensor([tokens])
    out = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False,
        eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    return out[0, len(tokens) :].tolist()


@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_generation_over_the_ring_is_the_uncut_models(name):
    checkpoint = zoo.checkpoint(name)
    model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    prompts = {n: prompt(5 + 7 * n, n) for n in range(4)}
    fields = {"prefill_chunk": 6, "max_sequences": 2, "dtype": "float32"}
    with local_pipeline(checkpoint, CUT, **fields) as pipeline, pipeline.router() as router:
        pipeline.wait_ready()
        for n, tokens in prompts.items():
            router.generate(n, tokens, max_tokens=12, ignore_eos=True)
        for n, tokens in prompts.items():
            assert router.tokens_of(n) == uncut_greedy(model, tokens, 12), f"prompt {n}"


def test_sampled_tokens_are_the_same_again_and_in_a_continued_prompt():
    fields = {"temperature": 1.0, "top_k": 40, "seed": 5, "ignore_eos": True}
    with local_pipeline(zoo.checkpoint("llama"), CUT) as pipeline, pipeline.router() as router:
        pipeline.wait_ready()
        first = prompt(9, 1)
        router.generate(1, first, max_tokens=10, **fields)
        tokens = router.tokens_of(1)
        assert len(set(tokens)) > 2, "peaked so much that sampling shows nothing"
        router.generate(2, first + tokens[:4], max_tokens=6, **fields)
        assert router.tokens_of(2) == tokens[4:], "a replay gave other tokens"
        router.generate(3, first, max_tokens=10, **{**fields, "seed": 6})
        assert router.tokens_of(3) != tokens


HOW = [
    {},
    {"temperature": 1.0, "seed": 5},
    {"temperature": 0.8, "seed": 6, "top_p": 0.9, "min_p": 0.02, "repetition_penalty": 1.3},
    {"presence_penalty": 0.7, "frequency_penalty": 0.4},
    {"temperature": 1.0, "seed": 7, "top_k": 9, "frequency_penalty": 0.5, "logprobs": 2},
    {"logprobs": 0},
]


def test_stages_killed_under_load_cost_no_stream_a_token():
    with process_pipeline(
        zoo.checkpoint("llama"), CUT, dtype="float32", prefill_chunk=16, max_sequences=4
    ) as pipeline:
        pipeline.wait_ready()
        with pipeline.router() as router:

            def stream(name):
                for n, how in enumerate(HOW):
                    fields = {"max_tokens": 40, "ignore_eos": True, **how}
                    router.generate(f"{name}{n}", prompt(5 + 6 * n, n), **fields)

            stream("calm")
            calm = [router.tokens_of(f"calm{n}", 90.0) for n in range(len(HOW))]
            stream("rough")
            for killed, progress in ((1, 8), (2, 24)):
                router.wait(lambda least=progress: len(router.tokens["rough0"]) > least)
                pipeline.kill(killed)
                pipeline.restart(killed)
            rough = [router.tokens_of(f"rough{n}", 90.0) for n in range(len(HOW))]
            told = {n: [entry[3] for entry in router.entries(f"calm{n}")] for n in (4, 5)}
            again = {n: [entry[3] for entry in router.entries(f"rough{n}")] for n in (4, 5)}
        assert pipeline.wait_ready().sessions >= 3, "the ring was never lost"
    assert [len(tokens) for tokens in rough] == [40] * len(HOW)
    assert rough == calm
    assert len({tuple(tokens) for tokens in calm}) == len(HOW), "the streams do not differ"
    for n, likeliest in ((4, 2), (5, 0)):
        assert [len(top) for _, top in told[n]] == [likeliest] * 40
        for (mine, top), (other, other_top) in zip(told[n], again[n], strict=True):
            assert mine == pytest.approx(other, abs=1e-4)
            assert [token for token, _ in top] == [token for token, _ in other_top]


def test_inference_over_processes_is_the_uncut_models():
    checkpoint = zoo.checkpoint("bert")
    model = transformers.AutoModel.from_pretrained(checkpoint, dtype=torch.float32).eval()
    ids = torch.tensor([prompt(8, 1), prompt(8, 2)])
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    with process_pipeline(checkpoint, CUT, dtype="float32") as pipeline:
        report = pipeline.wait_ready()
        name = report.info.outputs[0].name
        with pipeline.router() as router:
            router.infer(1, {"input_ids": ids, "attention_mask": mask}, outputs=[name])
            got = router.answer_of(1)[name]
    with torch.inference_mode():
        expected = model(input_ids=ids, attention_mask=mask)[name]
    assert torch.equal(got, expected)
    for stage in report.stages:
        assert 0 < stage.loaded_bytes == stage.total_bytes
