"""Messages to a prompt, by the chat template that lies beside a model's tokenizer.

Rendered as transformers' `apply_chat_template(messages, add_generation_prompt=True)` does, without
transformers: same sandbox, same extensions, same variables. A template is a stranger's program and
messages are another stranger's data, so neither sees more than plain JSON values.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NoReturn

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox
import jinja2.utils

from stageline_router.beside import read_beside
from stageline_router.errors import Invalid
from stageline_router.options import read_json, shortened
from stageline_router.tensors import Input

_TEMPLATE = "chat_template.jinja"
_CONFIG = "tokenizer_config.json"
_LARGEST = 16 << 20  # bytes
_REASONING = ("reasoning_content", "thinking", "reasoning")  # names of one thing, the first is ours
_MOST_MESSAGES = 4096

Message = dict[str, Any]


class DamagedTemplate(ValueError):
    """What lies beside the model cannot be used; the message is a sentence."""


class ChatTemplate:
    """`tokens` are the model's special tokens by their names, as templates know them."""

    def __init__(self, template: str, tokens: Mapping[str, str]) -> None:
        """Raises DamagedTemplate."""
        try:
            self._template = _environment().from_string(template)
        except (jinja2.TemplateError, RecursionError) as error:
            raise DamagedTemplate(f"it is no chat template: {error}") from None
        self._tokens = dict(tokens)

    @classmethod
    def load(cls, uri: str) -> ChatTemplate | None:
        """Of the model at `uri`: a folder, file://, hf:// or s3://; None when it has none.

        Raises DamagedTemplate, and another ValueError when a file cannot be had.
        """
        own = read_beside(uri, _TEMPLATE, _LARGEST)
        written = read_beside(uri, _CONFIG, _LARGEST)
        config = _config(uri, written) if written is not None else {}
        template = own.decode(errors="replace") if own is not None else _template_of(config)
        if template is None:
            return None
        try:
            return cls(template, _special_tokens(config))
        except DamagedTemplate as error:
            raise DamagedTemplate(
                f"{_TEMPLATE if own is not None else _CONFIG} of {uri}: {error}"
            ) from None

    def render(self, messages: list[Message]) -> str:
        """The prompt that asks for the next message. Raises Invalid when the template refuses."""
        try:
            return self._template.render(
                messages=[_plain(message) for message in messages],
                tools=None,
                documents=None,
                add_generation_prompt=True,
                **self._tokens,
            )
        except Exception as error:  # it is a program: anything may come of it
            raise Invalid(
                f"the model's chat template does not take these messages: {error}"
            ) from None


def read_messages(given: Input) -> list[Message]:
    """The messages of a BYTES input of one element, a JSON list. Raises Invalid."""
    name = given.name
    if given.datatype != "BYTES" or len(given.elements) != 1:
        raise Invalid(f"input {name} must be BYTES [1]: a JSON list of messages")
    try:
        found = read_json(name, given.elements[0].decode())
    except UnicodeDecodeError:
        raise Invalid(f"input {name} is no UTF-8") from None
    except ValueError as error:
        raise Invalid(str(error)) from None
    if not isinstance(found, list) or not found:
        raise Invalid(
            f"{name} is {shortened(found)}: it must be a JSON list of messages, not empty"
        )
    if len(found) > _MOST_MESSAGES:
        raise Invalid(f"{name} has {len(found)} messages: at most {_MOST_MESSAGES} go")
    for index, message in enumerate(found):
        _check(name, index, message)
    return found


def _check(name: str, index: int, message: Any) -> None:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise Invalid(
            f"message {index} of {name} is {shortened(message)}: it must have a role and a "
            'content, like {"role": "user", "content": "Hello"}'
        )
    if not isinstance(message.get("content"), str | list | None):
        raise Invalid(
            f"the content of message {index} of {name} is {shortened(message['content'])}: it must "
            "be a text"
        )


def _plain(message: Message) -> Message:
    """What templates expect of a message: nothing that is null, reasoning by each of its names."""
    said = {key: value for key, value in message.items() if value is not None}
    thought = next((said[name] for name in _REASONING if name in said), None)
    return said if thought is None else {"thinking": thought, **said, "reasoning_content": thought}


def _config(uri: str, data: bytes) -> dict[str, Any]:
    try:
        config = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DamagedTemplate(f"{uri}/{_CONFIG} is no JSON: {error}") from None
    if not isinstance(config, dict):
        raise DamagedTemplate(f"{uri}/{_CONFIG} is no JSON object")
    return config


def _template_of(config: Mapping[str, Any]) -> str | None:
    """One template, or of several that have names the default one."""
    found = config.get("chat_template")
    if isinstance(found, list):
        named = {each.get("name"): each.get("template") for each in found if isinstance(each, dict)}
        found = named.get("default")
    return found if isinstance(found, str) else None


def _special_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """Everything that is called a token; a model may have more of them than others."""
    more = config.get("extra_special_tokens")
    given = {name: value for name, value in config.items() if name.endswith("_token")}
    given |= more if isinstance(more, dict) else {}
    texts = {name: t.get("content") if isinstance(t, dict) else t for name, t in given.items()}
    return {name: text for name, text in texts.items() if isinstance(text, str)}


class _Generation(jinja2.ext.Extension):
    """{% generation %} marks what an assistant said, for training: here it says what is in it."""

    tags = {"generation"}  # noqa: RUF012  # jinja2 declares it so

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Namespace(jinja2.utils.Namespace):
    """One that takes no name beginning with _, through which a template could leave its sandbox."""

    def __init__(*args: Any, **given: Any) -> None:  # so that `namespace(self=...)` works
        self, *rest = args
        attributes = dict(*rest, **given)
        for name in attributes:
            _check_name(name)
        jinja2.utils.Namespace.__init__(self, attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"{name} is no name for an attribute here")


class _Dict:
    """`dict` without its attributes."""

    def __call__(self, *args: Any, **given: Any) -> dict[Any, Any]:
        return dict(*args, **given)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


def _environment() -> jinja2.Environment:
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals |= {
        "raise_exception": _raise,
        "strftime_now": _now,
        "dict": _Dict(),
        "namespace": _Namespace,
    }
    return environment


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """jinja2's own would escape what HTML does not like."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _now(form: str) -> str:
    return datetime.now().strftime(form)
