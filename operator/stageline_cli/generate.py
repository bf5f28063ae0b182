"""`stageline generate`: text from a language model, as it comes."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stageline_cli.dialling import DEFAULT_ADDRESS, Address, Ca, Server, TokenFile
from stageline_cli.failure import Failure
from stageline_cli.infer import Model, Timeout
from stageline_cli.tensors import Tensor, from_json, from_texts

if TYPE_CHECKING:
    from stageline_cli.client import Client

_WHOLE = from_json("stream", [False], "BOOL")


def generate(
    prompt: Annotated[str, typer.Argument(help="What the text begins with.")],
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Most tokens to generate; the server's own if none.")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(min=0, help="0 takes the likeliest token each time.")
    ] = None,
    top_p: Annotated[
        float | None, typer.Option(min=0, max=1, help="Draw from this much probability.")
    ] = None,
    top_k: Annotated[
        int | None, typer.Option(min=0, help="Draw from this many tokens; 0 is all.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed draws the same text.")] = None,
    stop: Annotated[
        list[str] | None, typer.Option(help="A text that ends the generation; repeatable.")
    ] = None,
    stream: Annotated[
        bool, typer.Option("--stream/--no-stream", help="Print the text as it comes.")
    ] = True,
    model: Model = None,
    address: Address = DEFAULT_ADDRESS,
    ca: Ca = None,
    token_file: TokenFile = None,
    timeout: Timeout = None,
) -> None:
    """Continue a text. Only the new text goes to stdout.

    Speaks the convention of Triton's vLLM backend over the Open Inference Protocol. Ctrl-C cancels
    the generation on the server too.

    \b
    Examples:
      stageline generate "Return the absolute value of" --max-tokens 40
      stageline generate "Once upon a time" --temperature 0.8 --seed 7 --stop "The end"
    """
    from stageline_cli.client import connect, run

    sampling = _given(
        max_tokens=max_tokens, temperature=temperature, top_p=top_p, top_k=top_k, seed=seed,
        stop=stop or None,
    )  # fmt: skip

    async def call() -> None:
        async with connect(Server(address, ca, token_file)) as client:
            name = await client.the_model(model)
            known = (await client.metadata(name)).inputs
            inputs = generation_inputs(name, prompt, sampling, known, stream=stream)
            await _print(_texts(client, name, inputs, timeout, stream=stream))

    run(call())


def _given(**options: Any) -> dict[str, Any]:
    """Those that the caller gave; the server has its own values for the others."""
    return {name: value for name, value in options.items() if value is not None}


def generation_inputs(
    model: str, prompt: str, sampling: dict[str, Any], known: list[Any], *, stream: bool
) -> list[Tensor]:
    """The inputs of a generation, as far as the model's metadata names them."""
    ranks = {tensor.name: len(tensor.shape) for tensor in known}
    if "text_input" not in ranks:
        takes = ", ".join(ranks) or "nothing"
        raise Failure(f"{model} generates no text (it takes {takes}): try `stageline infer`")
    if sampling and "sampling_parameters" not in ranks:
        raise Failure(f"{model} takes no sampling_parameters: leave out {_options(sampling)}")
    wanted = {
        "text_input": from_texts("text_input", [prompt], (1,)),
        "stream": from_json("stream", [stream], "BOOL"),
        "exclude_input_in_output": from_json("exclude_input_in_output", [True], "BOOL"),
    }
    if sampling:
        text = json.dumps(sampling)
        wanted["sampling_parameters"] = from_texts("sampling_parameters", [text], (1,))
    return [
        Tensor(name, tensor.datatype, (1,) * max(ranks[name], 1), tensor.raw)
        for name, tensor in wanted.items()
        if name in ranks
    ]


def _options(sampling: dict[str, Any]) -> str:
    return ", ".join(f"--{name.replace('_', '-')}" for name in sampling)


async def _texts(
    client: Client, model: str, inputs: list[Tensor], seconds: float | None, *, stream: bool
) -> AsyncIterator[str]:
    """Pieces of text: streamed, or the whole when that is asked for or all there is."""
    from stageline_cli.client import NoStream, infer_request

    if stream:
        request = infer_request(model, inputs, triton_enable_empty_final_response=True)
        try:
            async for answer in client.stream(request, seconds):
                yield _text(answer)
            return
        except NoStream:
            inputs = [_WHOLE if tensor.name == _WHOLE.name else tensor for tensor in inputs]
    yield _text(await client.infer(infer_request(model, inputs), seconds))


def _text(answer: list[Tensor]) -> str:
    for tensor in answer:
        if tensor.name == "text_output" and tensor.datatype == "BYTES":
            return "".join(tensor.values())
    if answer:
        raise Failure(f"the server sent no text_output, only {', '.join(t.name for t in answer)}")
    return ""


async def _print(texts: AsyncIterator[str]) -> None:
    last = ""
    try:
        async for text in texts:
            sys.stdout.write(text)
            sys.stdout.flush()
            last = text or last
    finally:
        if last and not last.endswith("\n"):
            sys.stdout.write("\n")
