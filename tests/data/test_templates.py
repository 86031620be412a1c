# ruff: noqa: E501 (a case a line reads better as a table)
"""Named templates: their text, and that the answers found in it are the answers."""

import dataclasses
import re
from typing import Any

import pytest
from support.data_samples import make_tokenizer

from llmf_hydra.config.groups.data import DataConfig
from llmf_hydra.config.groups.generation import GenerationConfig
from llmf_hydra.data.chat.render import render_dialogue, render_prompt
from llmf_hydra.data.chat.template import TEMPLATES, Chat, load_chat, template_names
from llmf_hydra.data.chat.tools import for_template
from llmf_hydra.errors import Refused

SYSTEM = {"role": "system", "content": "Be kind."}
TURNS = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"},
    {"role": "user", "content": "Who?"},
    {"role": "assistant", "content": "Me"},
    {"role": "user", "content": "Why?"},
    {"role": "assistant", "content": "So"},
]
TOOLS = [{"type": "function", "function": {"name": "add", "description": "adds", "parameters": {}}}]
CALLS = [
    {"role": "user", "content": "Add"},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"function": {"name": "add", "arguments": {"x": 1}}}],
    },
    {"role": "tool", "content": "2"},
    {"role": "assistant", "content": "Two"},
]


def chat(name: str, **settings: Any) -> Chat:
    tokenizer = make_tokenizer()
    tokenizer.bos_token, tokenizer.eos_token = "<s>", "</s>"
    return load_chat(DataConfig(template=name, **settings), GenerationConfig(), tokenizer)


EXACT = {  # three messages: what the models' own templates write of them
    "chatml": "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n<|im_start|>user\nWho?<|im_end|>\n"
    "<|im_start|>assistant\n",
    "llama2": "<s>[INST] Hi [/INST] Hello </s><s>[INST] Who? [/INST]",
    "llama3": "<s><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    "Hello<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nWho?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    "mistral": "<s>[INST] Hi[/INST] Hello</s>[INST] Who?[/INST]",
    "gemma": "<s><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\nHello<end_of_turn>\n<start_of_turn>user\n"
    "Who?<end_of_turn>\n<start_of_turn>model\n",
    "qwen": "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n<|im_start|>user\nWho?<|im_end|>\n"
    "<|im_start|>assistant\n",
    "qwen3": "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n<|im_start|>user\nWho?<|im_end|>\n"
    "<|im_start|>assistant\n",
    "phi4": "<|im_start|>user<|im_sep|>Hi<|im_end|><|im_start|>assistant<|im_sep|>Hello<|im_end|>"
    "<|im_start|>user<|im_sep|>Who?<|im_end|><|im_start|>assistant<|im_sep|>",
    "zephyr": "<|user|>\nHi</s>\n<|assistant|>\nHello</s>\n<|user|>\nWho?</s>\n<|assistant|>\n",
    "deepseek3": "<s><｜User｜>Hi<｜Assistant｜>Hello<｜end▁of▁sentence｜><｜User｜>Who?<｜Assistant｜>",
    "glm4": "[gMASK]<sop><|user|>\nHi<|assistant|>\nHello<|user|>\nWho?<|assistant|>\n",
}  # fmt: skip


@pytest.mark.parametrize("name", EXACT)
def test_the_text_is_that_of_the_model(name: str) -> None:
    assert render_prompt(chat(name), TURNS[:3], None) == EXACT[name]


def test_llama2_puts_the_system_message_into_the_first_question() -> None:
    text = render_dialogue(chat("llama2"), [SYSTEM, *TURNS[:2]], None).text
    assert text == "<s>[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\nHi [/INST] Hello </s>"


def test_there_is_a_file_for_each_line_of_the_index() -> None:
    assert template_names() == sorted(path.stem for path in TEMPLATES.glob("*.jinja"))
    assert len(template_names()) == 28


DIALOGUES = {  # the first turn may call a tool, and then has its result and a second answer
    f"{turns} turns{', system' * system}{', tools' * tools}": (
        [SYSTEM] * system + (CALLS if tools else TURNS[:2]) + TURNS[2 : 2 * turns],
        TOOLS if tools else None,
    )
    for turns in (1, 2, 3)
    for system in (False, True)
    for tools in (False, True)
}


@pytest.mark.parametrize("dialogue", DIALOGUES)
@pytest.mark.parametrize("name", template_names())
def test_answers_are_found_and_pieces_are_the_whole(name: str, dialogue: str) -> None:
    known, (given, tools) = chat(name), DIALOGUES[dialogue]
    messages, tools = for_template(known, given, tools)
    assert tools is None  # each named template has its tools written by a tool format
    found = render_dialogue(known, messages, None)
    whole = re.sub("[\ufdd0\ufdd1]", "", known.render(messages))
    assert found.text == whole
    answers = [m for m in messages if m["role"] == "assistant"]
    assert len(found.answers) == len(answers)
    for (start, end), answer in zip(found.answers, answers, strict=True):
        trained = found.text[start:end]
        assert answer["content"] in trained
        assert trained.endswith(known.stops)  # the end of the turn is learned
        assert not any(m["content"] in trained for m in messages if m["role"] in ("system", "user"))
    before_last = render_prompt(known, messages[:-1], None)
    assert found.text[: found.answers[-1][0]] == before_last  # what the model sees when it generates


@pytest.mark.parametrize("dialogue", DIALOGUES)
@pytest.mark.parametrize("name", template_names())
def test_the_same_without_marks(name: str, dialogue: str) -> None:
    known, (given, tools) = chat(name), DIALOGUES[dialogue]
    bare = re.sub(r"\{%-? (end)?generation -?%\}", "{%- if true -%}{%- endif -%}", known.text)
    unmarked = dataclasses.replace(known, text=bare, layouts={})
    assert known.marks
    assert not unmarked.marks
    messages, _ = for_template(known, given, tools)
    assert render_dialogue(unmarked, messages, None) == render_dialogue(known, messages, None)


@pytest.mark.parametrize("name", template_names())
def test_transformers_writes_the_same(name: str) -> None:
    tokenizer = make_tokenizer()
    known = load_chat(DataConfig(template=name), GenerationConfig(), tokenizer)
    messages = [SYSTEM, *TURNS]
    own = tokenizer.apply_chat_template(messages, chat_template=known.text, tokenize=False)
    assert render_dialogue(known, messages, None).text == own


@pytest.mark.parametrize("name", [n for n in template_names() if chat(n).own_system])
def test_the_index_knows_the_system_message_that_the_template_puts(name: str) -> None:
    known = chat(name)
    said = [{"role": "system", "content": str(known.own_system)}, *TURNS[:2]]
    assert render_dialogue(known, said, None).text == render_dialogue(known, TURNS[:2], None).text


def test_a_thought_is_kept_after_the_last_question_and_dropped_before() -> None:
    messages = [
        TURNS[0],
        {"role": "assistant", "content": "<think>\nold\n</think>\n\nHello"},
        TURNS[2],
        {"role": "assistant", "content": "Me", "reasoning_content": "new"},
    ]
    known = chat("qwen3")
    found = render_dialogue(known, for_template(known, messages, None)[0], None)
    assert [found.text[a:b] for a, b in found.answers] == [
        "Hello<|im_end|>",
        "<think>\nnew\n</think>\n\nMe<|im_end|>",
    ]
    assert "old" not in found.text


def test_without_a_thought_the_thinking_model_learns_an_empty_one() -> None:
    found = render_dialogue(chat("qwen3"), TURNS[:2], None)
    assert found.text[slice(*found.answers[0])] == "<think>\n\n</think>\n\nHello<|im_end|>"


def test_nothink_leaves_thoughts_out() -> None:
    messages = [TURNS[0], {"role": "assistant", "content": "<think>\nold\n</think>\n\nHello"}]
    found = render_dialogue(chat("qwen3_nothink"), messages, None)
    assert found.text[slice(*found.answers[0])] == "Hello<|im_end|>"


def test_a_template_without_a_place_for_thoughts_gets_them_in_the_content() -> None:
    messages = [TURNS[0], {"role": "assistant", "content": "Hello", "reasoning_content": "why"}]
    known = chat("chatml")
    found = render_dialogue(known, for_template(known, messages, None)[0], None)
    assert found.text[slice(*found.answers[0])] == "<think>\nwhy\n</think>\n\nHello<|im_end|>"


def test_an_unknown_template_is_refused_with_the_nearest() -> None:
    with pytest.raises(Refused, match=r"data\.template=chatmi: .*did you mean 'chatml'\?"):
        chat("chatmi")


def test_a_tokenizer_without_template_is_refused_with_the_key() -> None:
    with pytest.raises(Refused, match=r"data\.template=null: the tokenizer has no chat template"):
        load_chat(DataConfig(), GenerationConfig(), make_tokenizer(template=None))
