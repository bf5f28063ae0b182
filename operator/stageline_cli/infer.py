"""`stageline infer`: one inference call to any server of the Open Inference Protocol."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stageline_cli.dialling import DEFAULT_ADDRESS, Address, Ca, Server, TokenFile
from stageline_cli.failure import Failure
from stageline_cli.tensors import Tensor, from_file, from_json, from_texts

if TYPE_CHECKING:
    from stageline_cli.client import Client

Model = Annotated[
    str | None, typer.Option(help="Name of the model; the server's only one if not given.")
]
Timeout = Annotated[
    float | None, typer.Option(min=0.001, help="Seconds to wait for the answer; no limit if none.")
]
_ROWS, _HEAD, _TAIL = 8, 5, 2


def infer(
    text: Annotated[
        list[str] | None, typer.Option(help="A text for the model's text input; repeatable.")
    ] = None,
    input: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="A tensor as JSON, or from a file: @FILE with a .npy array or JSON; repeatable.",
        ),
    ] = None,
    output: Annotated[
        list[str] | None, typer.Option(help="An output that is wanted; all if none; repeatable.")
    ] = None,
    model: Model = None,
    address: Address = DEFAULT_ADDRESS,
    ca: Ca = None,
    token_file: TokenFile = None,
    timeout: Timeout = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print every value, as the protocol's JSON.")
    ] = False,
) -> None:
    """Send tensors or text to a model and print what it answers.

    Works with every server of the Open Inference Protocol v2 over gRPC.

    \b
    Examples:
      stageline infer --text "A cat sat." --text "A dog ran."
      stageline infer --input 'input_ids=[[101, 2023, 102]]' --output last_hidden_state --json
      stageline infer --model vit --input pixel_values=@image.npy
    """
    from stageline_cli.client import connect, infer_request, run

    if not text and not input:
        raise typer.BadParameter("give the model something: --text TEXT or --input NAME=VALUE")

    async def call() -> None:
        async with connect(Server(address, ca, token_file)) as client:
            name = await client.the_model(model)
            tensors = await _inputs(client, name, text or [], input or [])
            request = infer_request(name, tensors, output or [])
            answer = await client.infer(request, timeout)
        typer.echo(as_document(name, answer) if as_json else "\n".join(readable(answer)))

    run(call())


async def _inputs(client: Client, model: str, texts: list[str], inputs: list[str]) -> list[Tensor]:
    known = {tensor.name: tensor for tensor in (await client.metadata(model)).inputs}
    tensors = [parse_input(argument, known) for argument in inputs]
    return [text_tensor(texts, known), *tensors] if texts else tensors


def parse_input(argument: str, known: dict[str, Any]) -> Tensor:
    """The tensor that NAME=JSON or NAME=@FILE stands for; `known` has the model's inputs."""
    name, equals, value = argument.partition("=")
    if not equals or not name:
        raise typer.BadParameter(f"--input {argument} has no name: write NAME=VALUE")
    if known and name not in known:
        raise Failure(f"the model has no input {name}: it takes {', '.join(known)}")
    datatype = known[name].datatype if known else None
    if value.startswith("@"):
        return from_file(name, Path(value[1:]), datatype)
    try:
        return from_json(name, json.loads(value), datatype)
    except (ValueError, RecursionError):
        raise Failure(f"the value of {name} is not JSON: {value[:40]!r}") from None


def text_tensor(texts: list[str], known: dict[str, Any]) -> Tensor:
    """The model's text input: text_input, or its only input of BYTES."""
    names = [name for name, tensor in known.items() if tensor.datatype == "BYTES"]
    if known and "text_input" not in names and len(names) != 1:
        raise Failure(f"the model takes no text, only {', '.join(known)}: use --input")
    name = names[0] if len(names) == 1 else "text_input"
    rank = len(known[name].shape) if name in known else 1
    return from_texts(name, texts, (len(texts), *(1,) * (rank - 1)))


def as_document(model: str, answer: list[Tensor]) -> str:
    """The answer in the form of the protocol's REST side."""
    outputs = [
        {"name": t.name, "datatype": t.datatype, "shape": t.shape, "data": t.values()}
        for t in answer
    ]
    return json.dumps({"model_name": model, "outputs": outputs}, ensure_ascii=False)


def readable(answer: list[Tensor]) -> Iterator[str]:
    """Lines for people: name, datatype and shape, then the rows, the long ones shortened."""
    for tensor in answer:
        yield f"{tensor.name}  {tensor.datatype} {list(tensor.shape)}"
        width = tensor.shape[-1] if tensor.shape else 1
        rows = tensor.size // width if width else 0
        for row in range(min(rows, _ROWS)):
            yield "  " + _row(tensor, row * width, width)
        if rows > _ROWS:
            yield f"  … {rows - _ROWS} more rows (--json prints all)"


def _row(tensor: Tensor, start: int, width: int) -> str:
    if width <= _HEAD + _TAIL + 1:
        return " ".join(map(_value, tensor.values(start, width)))
    head = map(_value, tensor.values(start, _HEAD))
    tail = map(_value, tensor.values(start + width - _TAIL, _TAIL))
    return " ".join((*head, "…", *tail))


def _value(value: object) -> str:
    return f"{value:10.5g}" if isinstance(value, float) else str(value)
