# ruff: noqa: E501 (a case a line reads better as a table)
"""Named templates: their text is that of the models' own templates, and the answers found in it are the answers."""

import dataclasses
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.command_line import Cli
from support.data_samples import make_tokenizer

from llmf_hydra.config.groups.data import DataConfig
from llmf_hydra.config.groups.generation import GenerationConfig
from llmf_hydra.data.chat.calls import parse_calls
from llmf_hydra.data.chat.index import TEMPLATES, index, template_names, template_text
from llmf_hydra.data.chat.jinja import compiled
from llmf_hydra.data.chat.render import render_dialogue, render_prompt
from llmf_hydra.data.chat.template import Chat, load_chat
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
ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Adds.",
        "parameters": {
            "type": "object",
            "properties": {
                "x": {"type": "integer", "description": "one"},
                "of": {"type": "string", "enum": ["a", "b"]},
                "more": {"type": "array", "items": {"type": "number"}},
                "at": {"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"]},
            },
            "required": ["x"],
        },
    },
}
NOW = {
    "type": "function",
    "function": {"name": "now", "description": "Time.", "parameters": {"type": "object", "properties": {}}},
}
TOOLS = [ADD, NOW]


def call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def calling(*calls: dict[str, Any], said: str = "", **rest: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": said, "tool_calls": list(calls), **rest}


CALLS = [
    {"role": "user", "content": "Add"},
    calling(call("add", x=1, of='it\'s "so"\nü', more=[1, 2.5], at={"on": True})),
    {"role": "tool", "content": "2"},
    {"role": "assistant", "content": "Two"},
]


def chat(name: str, **settings: Any) -> Chat:
    tokenizer = make_tokenizer()
    tokenizer.bos_token, tokenizer.eos_token = "<s>", "</s>"
    return load_chat(DataConfig(template=name, **settings), GenerationConfig(), tokenizer)


def text_of(known: Chat, messages: list[dict[str, Any]], tools: Any, prompt: bool) -> str:
    given, tools = for_template(known, messages, tools)
    return render_prompt(known, given, tools) if prompt else render_dialogue(known, given, tools).text


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
    "glm4": "[gMASK]<sop><|user|>\nHi<|assistant|>\nHello<|user|>\nWho?<|assistant|>",
}  # fmt: skip


def test_the_text_is_that_of_the_model() -> None:
    found = {name: render_prompt(chat(name), TURNS[:3], None) for name in EXACT}
    assert found == EXACT


def test_llama2_puts_the_system_message_into_the_first_question() -> None:
    text = render_dialogue(chat("llama2"), [SYSTEM, *TURNS[:2]], None).text
    assert text == "<s>[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\nHi [/INST] Hello </s>"


# What dialogues a vendor's template has a place for. `thoughts` are compared only where it reads reasoning_content.
COMPARED: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]] | None]] = {
    "plain": (TURNS[:4], None),
    "system": ([SYSTEM, *TURNS[:2]], None),
    "white space": (
        [{**m, "content": f"\n {m['content']} \n"} for m in (SYSTEM, *TURNS[:4])],
        None,
    ),
    "thoughts": (
        [
            SYSTEM,
            TURNS[0],
            {**TURNS[1], "reasoning_content": "old"},
            TURNS[2],
            {**TURNS[3], "reasoning_content": "new"},
        ],
        None,
    ),
    "tools": ([SYSTEM, *CALLS], TOOLS),
    "tools in two turns": (
        [
            CALLS[0],
            calling(call("add", x=1, on=True, no=None), said="Let me see"),
            *CALLS[2:],
            TURNS[0],
            calling(call("now")),
            *CALLS[2:],
        ],
        TOOLS,
    ),
    "two calls": ([CALLS[0], calling(call("now"), call("add", x=1)), CALLS[2], *CALLS[2:]], TOOLS),
    "calls with ids": (
        [
            CALLS[0],
            calling({"id": "call00001", **call("now")}),
            {"role": "tool", "content": '{"t": 2}', "tool_call_id": "call00001"},
            CALLS[3],
        ],
        TOOLS,
    ),
    "thoughts and tools": (
        [
            CALLS[0],
            calling(call("now"), reasoning_content="look"),
            CALLS[2],
            {**CALLS[3], "reasoning_content": "done"},
        ],
        TOOLS,
    ),
    "call at the end": ([CALLS[0], calling(call("now"))], TOOLS),
}
PLAIN = ("plain", "system", "white space")
CALLING = (*PLAIN, "tools", "tools in two turns", "two calls", "calls with ids", "call at the end")
ORIGINAL = Path(str(find_spec("trl").origin)).parent / "chat_templates"  # type: ignore[union-attr]
ORIGINALS: dict[
    str, tuple[str, tuple[str, ...]]
] = {  # the vendors' files that TRL ships, and what is compared
    "gemma3": ("gemma3", PLAIN),
    "gemma4": ("gemma4_v5", tuple(COMPARED)),
    "glm4_moe": ("glm4moe", tuple(COMPARED)),
    "gpt_oss": (
        "gptoss",
        tuple(name for name in COMPARED if name != "two calls"),
    ),  # the vendor's drops the second
    "lfm2": ("lfm2_v2", CALLING),
    "llama3": ("llama3", PLAIN),
    "phi": ("phi3_5", PLAIN),
    "qwen": ("qwen2_5", CALLING),
    "qwen3": ("qwen3", tuple(COMPARED)),
    "qwen3_nothink": ("qwen3_instruct_2507", tuple(COMPARED)),
    "qwen3_5": ("qwen3_5_think", tuple(COMPARED)),
    "qwen3_5_nothink": ("qwen3_5_nothink", CALLING),
    "qwen3_6": ("qwen3_6", tuple(COMPARED)),
}


def test_texts_equal_those_of_the_vendors_own_templates() -> None:
    """Byte for byte, whole dialogues and prompts."""
    different = []
    for name, (file, dialogues) in ORIGINALS.items():
        known, original = chat(name), compiled((ORIGINAL / f"{file}.jinja").read_text(encoding="utf-8"))
        for dialogue in dialogues:
            messages, tools = COMPARED[dialogue]
            for prompt in (False, True):
                given = messages[:-1] if prompt else messages
                named = [
                    {**m, "thinking": m["reasoning_content"]} if "reasoning_content" in m else m
                    for m in given
                ]
                theirs = original.render(
                    messages=named, tools=tools, add_generation_prompt=prompt, **known.special_tokens
                )
                if name == "glm4_moe" and not prompt:
                    theirs += "<|endoftext|>"  # a turn ends where the next begins; the last one has none
                if text_of(known, given, tools, prompt) != theirs:
                    different.append((name, dialogue, "prompt" if prompt else "dialogue"))
    assert different == []


VENDOR_TEXTS = yaml.safe_load((Path(__file__).parent / "vendor_texts.yaml").read_text(encoding="utf-8"))


def test_texts_equal_those_that_the_vendors_templates_wrote() -> None:
    """For templates that TRL does not ship: what the vendor's file made of the same messages, kept as text."""
    different = []
    for name, expected in VENDOR_TEXTS.items():
        known = chat(name)
        for dialogue, theirs in expected.items():
            what, _, prompt = dialogue.partition(", ")
            messages, tools = COMPARED[what]
            if text_of(known, messages[:-1] if prompt else messages, tools, bool(prompt)) != theirs:
                different.append((name, dialogue))
    assert different == []


def test_the_docs_name_the_templates_that_no_vendors_file_verifies() -> None:
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    sentence = page[page.index("These could not be compared") :].split(". Where")[0]
    verified = {index()[name]["file"] for name in (*ORIGINALS, *VENDOR_TEXTS)}
    ours = {"default", "empty", "fewshot"}
    unverified = {index()[name]["file"] for name in template_names()} - verified - ours
    assert {index()[name]["file"] for name in re.findall(r"`(\w+)`", sentence)} == unverified


def test_the_index_and_the_files_agree() -> None:
    files = {path.stem for path in TEMPLATES.glob("*.jinja")}
    assert {entry["file"] for entry in index().values()} == files
    parts = {path.name for path in (TEMPLATES / "parts").glob("*.jinja")}
    written = "".join(path.read_text(encoding="utf-8") for path in TEMPLATES.rglob("*.jinja"))
    assert set(re.findall(r"include 'parts/(\w+\.jinja)'", written)) == parts
    for name in template_names():
        assert "{%- include" not in template_text(name), name
        assert index()[name]["source"], name
    texts = [template_text(file) for file in files]
    assert len(set(texts)) == len(texts)  # the same text under two names is an alias
    assert {"gemma2", "gemma3", "yi"} <= {*template_names()} - files


DIALOGUES = {  # the first turn may call a tool, and then has its result and a second answer
    f"{turns} turns{', system' * system}{', tools' * tools}": (
        [SYSTEM] * system + (CALLS if tools else TURNS[:2]) + TURNS[2 : 2 * turns],
        TOOLS if tools else None,
    )
    for turns in (1, 2, 3)
    for system in (False, True)
    for tools in (False, True)
}


def faults(known: Chat, given: list[dict[str, Any]], given_tools: Any) -> list[str]:
    """What is wrong with the answers that are found in a dialogue."""
    messages, tools = for_template(known, given, given_tools)
    found = render_dialogue(known, messages, tools)
    answers = [m for m in messages if m["role"] == "assistant"]
    trained = [found.text[start:end] for start, end in found.answers]
    ends = (
        (*known.stops, "<|end|>") if known.name == "gpt_oss" else known.stops
    )  # there, not what ends a generation
    others = [m["content"] for m in messages if m["role"] in ("system", "user")]
    checks = {
        "the text is not the template's": found.text
        == re.sub("[\ufdd0\ufdd1]", "", known.render(messages, tools)),
        "answers are missing": len(trained) == len(answers),
        "an answer is not trained whole": all(
            m["content"] in text for m, text in zip(answers, trained, strict=False)
        ),
        "an end of turn is not trained": all(text.endswith(ends) for text in trained),
        "a question is trained": not any(other in text for other in others for text in trained),
        "the last answer does not follow its prompt": found.text[: found.answers[-1][0]]
        == render_prompt(known, messages[:-1], tools),
    }
    if known.call_format and given_tools:
        read = [parse_calls(text, known.call_format, TOOLS) for text in trained]
        made = [
            [c["function"] for c in m["tool_calls"]] if "tool_calls" in m else None
            for m in given
            if m["role"] == "assistant"
        ]
        checks["the calls cannot be read back"] = read == made
    return [what for what, right in checks.items() if not right]


def test_answers_are_found_with_their_ends_and_calls_are_read_back() -> None:
    wrong = {
        (name, dialogue): what
        for name in template_names()
        if name != "fewshot"  # has no ends of turns, and is refused where a model is trained
        for dialogue, (messages, tools) in DIALOGUES.items()
        if (what := faults(chat(name), messages, tools))
    }
    assert wrong == {}


def test_the_same_answers_are_found_without_marks() -> None:
    """A copy of a template without {% generation %} gives the same spans, where tools stand in the contents.

    Only the marks know that the end of the text after Phi's last turn is not trained, that `<|end|>` in GPT-OSS's
    turns is, and so is the space before Mistral's answers (where the system message moves on to a later question).
    """
    different = []
    for name in sorted({*template_names()} - {"phi", "phi4_mini", "gpt_oss"}):
        known = chat(name)
        bare = re.sub(r"\{%-? (end)?generation -?%\}", "{%- if true -%}{%- endif -%}", known.text)
        unmarked = dataclasses.replace(known, text=bare)
        assert known.marks
        assert not unmarked.marks
        for dialogue, (given, tools) in DIALOGUES.items():
            if (tools and known.writes_tools) or (name == "mistral" and given[0] is SYSTEM):
                continue
            messages, _ = for_template(known, given, tools)
            if render_dialogue(unmarked, messages, None) != render_dialogue(known, messages, None):
                different.append((name, dialogue))
    assert different == []


def test_transformers_writes_the_same() -> None:
    """The text that is saved with the tokenizer needs nothing that Transformers doesn't have."""
    tokenizer: Any = make_tokenizer()
    different = []
    for name in template_names():
        known = load_chat(DataConfig(template=name), GenerationConfig(), tokenizer)
        for given, given_tools in (DIALOGUES["3 turns, system"], DIALOGUES["2 turns, system, tools"]):
            messages, tools = for_template(known, given, given_tools)
            own = tokenizer.apply_chat_template(
                messages, tools=tools, chat_template=known.text, tokenize=False
            )
            if render_dialogue(known, messages, tools).text != own:
                different.append(name)
    assert different == []


def test_the_index_knows_the_system_message_that_the_template_puts() -> None:
    for known in filter(lambda one: one.own_system, map(chat, template_names())):
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


def test_the_command_line_knows_each_name_and_names_the_nearest(cli: Cli) -> None:
    """An alias is accepted: only the other value is refused."""
    wrong = cli("stage=sft", "model=tiny", "data.template=gema3", "data.tool_format=qwen")
    alias = cli("stage=sft", "model=tiny", "data.template=yi", "data.tool_format=quen")
    assert (wrong.returncode, alias.returncode) == (2, 2)
    assert "data.template=gema3: is not one of" in wrong.stderr
    assert "did you mean 'gemma3'?" in wrong.stderr
    assert "data.tool_format=quen" in alias.stderr
    assert "data.template" not in alias.stderr


def test_an_unknown_template_is_refused_with_the_nearest() -> None:
    with pytest.raises(Refused, match=r"data\.template=chatmi: .*did you mean 'chatml'\?"):
        chat("chatmi")


def test_a_tokenizer_without_template_is_refused_with_the_key() -> None:
    with pytest.raises(Refused, match=r"data\.template=null: the tokenizer has no chat template"):
        load_chat(DataConfig(), GenerationConfig(), make_tokenizer(template=None))
