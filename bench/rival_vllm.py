"""vLLM's CPU backend, as a process that measures when told to: see rivals.py.

Runs in an environment of its own. Each line on stdin is a number of sequences; each answer on
stdout is their tokens a second, the time of the prompts taken off.
"""

import argparse
import json
import sys
import time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint")
    parser.add_argument("--stages", type=int, required=True)
    parser.add_argument("--sequences", type=int, required=True, help="at once")
    parser.add_argument("--tokens", type=int, required=True)
    arguments = parser.parse_args()
    from vllm import LLM, SamplingParams

    model = LLM(
        arguments.checkpoint,
        dtype="float32",
        max_model_len=512,
        max_num_seqs=arguments.sequences,
        pipeline_parallel_size=arguments.stages,
        distributed_executor_backend="mp" if arguments.stages > 1 else "uni",
        enable_prefix_caching=False,
        disable_log_stats=True,
    )

    def seconds(prompts: list[list[int]], tokens: int) -> float:
        asked = [{"prompt_token_ids": prompt} for prompt in prompts]
        options = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True)
        began = time.perf_counter()
        model.generate(asked, options, use_tqdm=False)
        return time.perf_counter() - began

    print("ready", file=sys.stderr, flush=True)
    for line in sys.stdin:
        prompts = json.loads(line)
        spent = seconds(prompts, arguments.tokens) - seconds(prompts, 1)
        print(f"RATE {len(prompts) * (arguments.tokens - 1) / spent}", flush=True)


if __name__ == "__main__":
    main()
