"""The engine beside vLLM's CPU backend, on one core and over two stages, in one run.

vLLM lives in an environment of its own (`make bench-rivals` makes it). Both serve the same
checkpoint in float32; what is compared is decoding: vLLM's time for the prompts and one token is
taken off. Rounds are interleaved; ratios are medians of each round's ratio.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from decode import FULL, GROUP, PROMPT, QUICK, Measured, Size, median, rate
from pipelines import Cut, LeaderClient, Model, pipeline, prompts

RIVAL = Path(__file__).with_name("rival_vllm.py")
ONE, RING = "stageline, 1 core, 16", "stageline, 2 stages, 32"
VLLM = "vLLM, 1 core"
VLLM_STAGES = "vLLM, pipeline parallel 2"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", type=Path, required=True, help="of vLLM's environment")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, for a first look")
    arguments = parser.parse_args()
    size = QUICK if arguments.quick else FULL
    model = Model()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as running:
        measured = measure(model, size, arguments.python, Path(folder), running)
    show(model, size, measured)
    if shutil.which("llama-batched-bench") is None:
        print("\nllama.cpp is left out: no llama-batched-bench is on the PATH")


def measure(model: Model, size: Size, python: Path, folder: Path, running: ExitStack) -> Measured:
    checkpoint = model.save(folder / "model")
    half = (model.layers + 1) // 2
    cuts = {
        ONE: Cut("one", (model.layers,), ((0,),), GROUP),
        RING: Cut("ring", (half, model.layers - half), ((0,), (1,)), 2 * GROUP),
    }
    ours = {
        name: LeaderClient(running.enter_context(pipeline(cut, checkpoint, folder)))
        for name, cut in cuts.items()
    }
    for client in ours.values():
        client.wait_ready()
    theirs = {
        name: running.enter_context(vllm(python, checkpoint, size, stages))
        for stages, name in ((1, VLLM), (2, VLLM_STAGES))
    }
    measured = Measured()
    for number in range(-1, size.rounds):
        found = Measured() if number < 0 else measured  # the first pays for what is made lazily
        for name, cut in cuts.items():
            found.add(name, rate(ours[name].generate, cut.sequences, size))
        for name, process in theirs.items():
            for sequences in (GROUP, 2 * GROUP):
                found.add(f"{name}, {sequences}", asked(process, sequences))
    return measured


@contextmanager
def vllm(
    python: Path, checkpoint: Path, size: Size, stages: int
) -> Iterator[subprocess.Popen[str]]:
    """vLLM, a core for each stage, ready for `asked`."""
    command = [
        str(python), str(RIVAL), str(checkpoint), "--stages", str(stages),
        "--sequences", str(2 * GROUP), "--tokens", str(size.tokens),
    ]  # fmt: skip
    openmp = next(python.parent.parent.glob("lib/libiomp5.so"), None)
    environment = {
        **os.environ,
        "VLLM_CPU_OMP_THREADS_BIND": "|".join(map(str, range(stages))),
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "LD_PRELOAD": str(openmp) if openmp else "",
    }
    environment.pop("OMP_NUM_THREADS", None)
    process = subprocess.Popen(
        command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield process
    finally:
        _pipe(process.stdin).close()
        process.wait(60)


def asked(process: subprocess.Popen[str], sequences: int) -> float:
    """Tokens a second of that many sequences at once."""
    stdin, stdout = _pipe(process.stdin), _pipe(process.stdout)
    stdin.write(json.dumps(prompts(sequences, PROMPT)) + "\n")
    stdin.flush()
    for line in stdout:
        if line.startswith("RATE "):
            return float(line.removeprefix("RATE "))
    raise RuntimeError(f"vLLM ended with {process.wait()}: run {RIVAL.name} by hand to see why")


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe


def show(model: Model, size: Size, measured: Measured) -> None:
    print(
        f"llama, hidden {model.hidden}, {model.layers} layers, float32; prompts of {PROMPT}, "
        f"{size.tokens} tokens each; {size.rounds} rounds\n"
    )
    one = f"{VLLM}, {GROUP}"
    print(f"| form | tokens/s | x {ONE} | x {one} |\n| --- | --- | --- | --- |")
    for name, rates in measured.rates.items():
        ratios = f"{measured.ratio(name, ONE):.2f} | {measured.ratio(name, one):.2f}"
        print(f"| {name} | {median(rates):.0f} | {ratios} |")


if __name__ == "__main__":
    main()
