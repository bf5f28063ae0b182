"""Chat messages become the prompt that transformers makes of them."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import tritonclient.grpc as triton
from tokenizers import AddedToken
from tokenizers import Tokenizer as Library
from transformers import PreTrainedTokenizerFast

from stageline_router.chat import ChatTemplate, DamagedTemplate, read_messages
from stageline_router.errors import Invalid
from stageline_router.tensors import Input
from stageline_router.text import Tokenizer
from support.clients import infer, outcome, text_input, triton_input
from support.front import front_door
from support.lettered import lettered
from support.streams import Stream, text_of

CHATML = """{% for message in messages %}
{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}
{% endfor %}
{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""
TEMPLATES = {
    "chatml": CHATML,
    "llama": """{{ bos_token }}{%- for m in messages -%}
        {%- if m.role == 'system' and not loop.first -%}
            {{ raise_exception('a system message comes first') }}
        {%- endif -%}
        {{ '<|' ~ m.role ~ '|>' }}
        {{ m.content | trim }}{{ eos_token }}
    {% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}""",
    "namespace": """{% set ns = namespace(system='', turns=0) %}{% for m in messages %}
        {% if m['role'] == 'system' %}{% set ns.system = m['content'] %}{% continue %}{% endif %}
        {% set ns.turns = ns.turns + 1 %}{{ ns.turns }}{{ m['content'] }}{% endfor %}{{ ns.system }}
        {{ tools is none }}{{ documents is none }}""",
    "json": """{% for m in messages %}{{ m | tojson }}{{ m | tojson(indent=2) }}{% endfor %}
        {{ dict(a=1) | tojson }}{{ strftime_now('%Y') }}""",
    "marked": """{% for m in messages %}{% if m.role == 'assistant' %}
        {% generation %}{{ m.content }}{{ eos_token }}{% endgeneration %}
        {% else %}{{ m.content }}{% endif %}{% endfor %}""",
    "thinking": """{% for m in messages %}{{ m.content }}[{{ m.reasoning_content }}|
        {{ m.thinking }}]{% if m.tool_calls is defined %}!{% endif %}{% endfor %}
        {{ unk_token }}{{ image_token }}""",
}
CHATS = {
    "one": [{"role": "user", "content": "Héllo <b>&</b> 🚂"}],
    "turns": [
        {"role": "system", "content": "  Be brief. "},
        {"role": "user", "content": "What turns?"},
        {"role": "assistant", "content": "The ring.", "reasoning": "hm", "tool_calls": None},
        {"role": "user", "content": "Again"},
    ],
}


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> PreTrainedTokenizerFast:
    """transformers' own tokenizer, saved as a model's folder would have it."""
    library = Library.from_file(str(lettered() / "tokenizer.json"))
    library.add_special_tokens([AddedToken("<|im_start|>"), AddedToken("<|im_end|>")])
    made = PreTrainedTokenizerFast(
        tokenizer_object=library, bos_token="<s>", eos_token="</s>", pad_token="<pad>",
        extra_special_tokens={"image_token": "<|im_start|>"},
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("chat")
    made.save_pretrained(folder)
    return PreTrainedTokenizerFast.from_pretrained(folder)


@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("beside", ["chat_template.jinja", "tokenizer_config.json"])
def test_prompts_and_tokens_are_those_of_transformers(reference, tmp_path, name, chat, beside):
    reference.chat_template = TEMPLATES[name]
    raw = beside == "chat_template.jinja"
    reference.save_pretrained(tmp_path, save_jinja_files=raw)
    template, tokenizer = ChatTemplate.load(str(tmp_path)), Tokenizer.load(tmp_path.as_uri())
    assert template is not None
    assert tokenizer is not None
    options = {"add_generation_prompt": True, "return_dict": False}
    expected = reference.apply_chat_template(CHATS[chat], tokenize=False, **options)
    prompt = template.render(CHATS[chat])
    assert prompt == expected
    ids = reference.apply_chat_template(CHATS[chat], tokenize=True, **options)
    assert tokenizer.encode(prompt, bare=True) == ids


def given(value: object) -> Input:
    text = value if isinstance(value, str) else json.dumps(value)
    return Input("messages", "BYTES", (1,), elements=(text.encode(),))


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("[", "messages is no JSON: "),
        ("[" * 100_000, "messages is no JSON: "),
        ({}, "it must be a JSON list of messages, not empty"),
        ([], "it must be a JSON list of messages, not empty"),
        (["hello"], "message 0 of messages is 'hello': it must have a role and a content"),
        ([{"content": "x"}], "it must have a role and a content"),
        ([{"role": "user", "content": 3}], "the content of message 0 of messages is 3: it must be"),
        ([{"role": "user", "content": "x"}] * 4097, "has 4097 messages: at most 4096 go"),
    ],
)
def test_messages_that_are_none_are_a_sentence(value, sentence):
    with pytest.raises(Invalid) as refused:
        read_messages(given(value))
    assert sentence in str(refused.value)


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        ("{{ raise_exception('roles must take turns') }}", "roles must take turns"),
        ("{{ messages[0].content.no() }}", "has no attribute 'no'"),
        ("{{ messages.append(1) }}", "attribute 'append'"),
        ("{{ ''.__class__.__mro__ }}", "access to attribute '__class__'"),
        ("{% set ns = namespace(__init__=1) %}", "no name for an attribute"),
        ("{% for i in range(10000000) %}{% endfor %}", "Range too big"),
    ],
)
def test_what_a_template_refuses_or_may_not_do_is_a_sentence(template, sentence):
    with pytest.raises(Invalid, match="chat template does not take these messages") as refused:
        ChatTemplate(template, {}).render([{"role": "user", "content": "x"}])
    assert sentence in str(refused.value)


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        ("chat_template.jinja", "{% for %}", "it is no chat template"),
        ("tokenizer_config.json", "{", "is no JSON"),
        ("tokenizer_config.json", "[]", "is no JSON object"),
    ],
)
def test_a_damaged_file_is_a_sentence(tmp_path, file, content, sentence):
    (tmp_path / file).write_text(content)
    with pytest.raises(DamagedTemplate, match=sentence):
        ChatTemplate.load(str(tmp_path))


def test_of_several_templates_the_default_one_is_taken(tmp_path):
    several = [{"name": "tools", "template": "t"}, {"name": "default", "template": "d"}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": several}))
    template = ChatTemplate.load(str(tmp_path))
    assert template is not None
    assert template.render([]) == "d"


def messages(chat: list) -> triton.InferInput:
    return triton_input("messages", np.array([json.dumps(chat).encode()], dtype=object))


def test_a_chat_is_the_text_of_its_prompt(tmp_path):
    for file in lettered().iterdir():
        shutil.copy(file, tmp_path)
    (tmp_path / "chat_template.jinja").write_text(CHATML)
    prompt = ChatTemplate(CHATML, {}).render(CHATS["turns"])
    options = {"max_tokens": 12, "ignore_eos": True}
    with (
        front_door(tmp_path, [6]) as front,
        triton.InferenceServerClient(front.address) as client,
    ):
        names = {tensor.name for tensor in client.get_model_metadata("model").inputs}
        assert "messages" in names
        answer = infer(client, messages(CHATS["turns"]), parameters=options)
        repeated = infer(client, text_input(prompt), parameters=options)
        assert prompt + text_of(answer) == text_of(repeated), "a chat's answer is the answer alone"
        both = outcome(client, messages(CHATS["one"]), text_input("x"))
        assert "give text_input or messages, not both" in str(both)


def test_a_model_without_a_template_takes_no_messages():
    with (
        front_door(lettered(), [6]) as front,
        triton.InferenceServerClient(front.address) as client,
    ):
        assert "messages" not in {t.name for t in client.get_model_metadata("model").inputs}
        refused = outcome(client, messages(CHATS["one"]))
        assert "has no chat template that can be used beside its weights" in str(refused)
        stream = Stream(front.address)
        stream.client.async_stream_infer("model", [messages(CHATS["one"])], request_id="a")
        _, error = stream.answers.get(timeout=30)
        stream.close()
        assert "has no chat template" in str(error)


def test_a_damaged_template_leaves_text(tmp_path):
    for file in lettered().iterdir():
        shutil.copy(file, tmp_path)
    (tmp_path / "chat_template.jinja").write_text("{% for %}")
    with (
        front_door(tmp_path, [6]) as front,
        triton.InferenceServerClient(front.address) as client,
    ):
        assert text_of(infer(client, text_input("x"), parameters={"max_tokens": 2}))
        assert "no chat template" in str(outcome(client, messages(CHATS["one"])))
