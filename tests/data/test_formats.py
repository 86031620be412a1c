"""Each format, from its row to literal token ids and labels."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.data_samples import described, run

N = -100
HELLO = [1, 310, 201, 295, 2, 201, 1, 67, 307, 335, 201]  # user: hello, and the header of the answer
GOOD = [273, 70, 2]
BAD = [300, 2]
HOW = [1, 310, 201, 303, 89, 2, 201, 1, 67, 307, 335, 201]  # user: how, and the header of the answer
END = [201]
USER = {"role": "user", "content": "hello"}
ANSWER = {"role": "assistant", "content": "good"}
WORSE = {"role": "assistant", "content": "bad"}

DIALOGUES = {
    "alpaca": ({"instruction": "hello", "input": "", "output": "good"}, {}),
    "sharegpt": (
        {"conversations": [{"from": "human", "value": "hello"}, {"from": "gpt", "value": "good"}]},
        {"formatting": "sharegpt"},
    ),
    "openai": ({"messages": [USER, ANSWER]}, {"formatting": "openai"}),
    "openai in parts": (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "hello"}]}, ANSWER]},
        {"formatting": "openai"},
    ),
    "trl prompt and completion": ({"prompt": "hello", "completion": "good"}, {"formatting": "trl"}),
    "trl messages": ({"messages": [USER, ANSWER]}, {"formatting": "trl"}),
    "own names": (
        {"talk": [{"who": "me", "says": "hello"}, {"who": "bot", "says": "good"}]},
        {
            "formatting": "sharegpt",
            "columns": {"messages": "talk"},
            "tags": {"role_tag": "who", "content_tag": "says", "user_tag": "me", "assistant_tag": "bot"},
        },
    ),
}


@pytest.mark.parametrize("name", DIALOGUES)
def test_one_turn_is_the_same_whatever_the_format(name: str, tokenizer: Any, tmp_path: Path) -> None:
    row, info = DIALOGUES[name]
    made = run(tokenizer, "rows", dataset_dir=described(tmp_path, [row], info)).train[0]
    assert made["input_ids"] == [*HELLO, *GOOD, *END]
    assert made["labels"] == [*[N] * 11, *GOOD, N]
    assert (made["row"], made["source"]) == (1, 0)


def test_alpaca_with_input_stands_in_one_message(tokenizer: Any, tmp_path: Path) -> None:
    table = described(tmp_path, [{"instruction": "hello", "input": "world", "output": "good"}], {})
    made = run(tokenizer, "rows", dataset_dir=table).train[0]
    assert made["input_ids"] == [
        1, 310, 201, 295, 201, 89, 279, 276, 2, 201, 1, 67, 307, 335, 201, 273, 70, 2, 201,
    ]  # fmt: skip
    assert made["labels"] == [*[N] * 15, 273, 70, 2, N]


def test_alpaca_with_system_and_history(tokenizer: Any, tmp_path: Path) -> None:
    row = {"instruction": "how", "output": "good", "system": "be", "history": [["hello", "world"]]}
    made = run(tokenizer, "rows", dataset_dir=described(tmp_path, [row], {})).train[0]
    system = [1, 85, 312, 301, 201, 68, 71, 2, 201]
    world = [89, 279, 276, 2]
    assert made["input_ids"] == [*system, *HELLO, *world, *END, *HOW, *GOOD, *END]
    assert made["labels"] == [*[N] * 20, *world, N, *[N] * 12, *GOOD, N]


def test_openai_of_two_turns_trains_both_answers(tokenizer: Any, tmp_path: Path) -> None:
    row = {"messages": [USER, ANSWER, {"role": "user", "content": "how"}, WORSE]}
    made = run(tokenizer, "rows", dataset_dir=described(tmp_path, [row], {"formatting": "openai"})).train[0]
    assert made["input_ids"] == [*HELLO, *GOOD, *END, *HOW, *BAD, *END]
    assert made["labels"] == [*[N] * 11, *GOOD, N, *[N] * 12, *BAD, N]


def test_openai_weight_0_is_not_trained(tokenizer: Any, tmp_path: Path) -> None:
    row = {"messages": [USER, {**ANSWER, "weight": 0}, {"role": "user", "content": "how"}, WORSE]}
    made = run(tokenizer, "rows", dataset_dir=described(tmp_path, [row], {"formatting": "openai"})).train[0]
    assert made["labels"] == [*[N] * 11, *[N] * 4, *[N] * 12, *BAD, N]


PREFERENCES = {
    "alpaca": ({"instruction": "hello", "chosen": "good", "rejected": "bad"}, {"ranking": True}),
    "alpaca, the old form": ({"instruction": "hello", "output": ["good", "bad"]}, {"ranking": True}),
    "sharegpt": (
        {
            "conversations": [{"from": "human", "value": "hello"}],
            "chosen": {"from": "gpt", "value": "good"},
            "rejected": {"from": "gpt", "value": "bad"},
        },
        {"formatting": "sharegpt", "ranking": True},
    ),
    "openai": (
        {"messages": [USER], "chosen": [ANSWER], "rejected": [WORSE]},
        {"formatting": "openai", "ranking": True},
    ),
    "trl": ({"prompt": "hello", "chosen": "good", "rejected": "bad"}, {"formatting": "trl"}),
    "trl, messages": (
        {"prompt": [USER], "chosen": [ANSWER], "rejected": [WORSE]},
        {"formatting": "trl"},
    ),
    "trl without a prompt": (
        {"chosen": [USER, ANSWER], "rejected": [USER, WORSE]},
        {"formatting": "trl"},
    ),
}


@pytest.mark.parametrize("name", PREFERENCES)
def test_ranked_answers(name: str, tokenizer: Any, tmp_path: Path) -> None:
    row, info = PREFERENCES[name]
    made = run(tokenizer, "rows", "preference", dataset_dir=described(tmp_path, [row], info)).train[0]
    assert (made["prompt_ids"], made["chosen_ids"], made["rejected_ids"]) == (HELLO, GOOD, BAD)


def test_ranked_answers_of_several_turns(tokenizer: Any, tmp_path: Path) -> None:
    chosen = [ANSWER, {"role": "user", "content": "how"}, ANSWER]
    table = described(
        tmp_path,
        [{"messages": [USER], "chosen": chosen, "rejected": [WORSE]}],
        {"formatting": "openai", "ranking": True},
    )
    made = run(tokenizer, "rows", "preference", dataset_dir=table).train[0]
    assert made["chosen_ids"] == [*GOOD, *END, *HOW, *GOOD]
    assert made["rejected_ids"] == BAD


FEEDBACK = {
    "alpaca": ({"instruction": "hello", "output": "good", "kto_tag": True}, {}, True),
    "sharegpt": (
        {"conversations": DIALOGUES["sharegpt"][0]["conversations"], "wanted": "false"},
        {"formatting": "sharegpt", "columns": {"messages": "conversations", "kto_tag": "wanted"}},
        False,
    ),
    "trl": ({"prompt": "hello", "completion": "good", "label": False}, {"formatting": "trl"}, False),
}


@pytest.mark.parametrize("name", FEEDBACK)
def test_labelled_answers(name: str, tokenizer: Any, tmp_path: Path) -> None:
    row, info, label = FEEDBACK[name]
    made = run(tokenizer, "rows", "feedback", dataset_dir=described(tmp_path, [row], info)).train[0]
    assert (made["prompt_ids"], made["completion_ids"], made["label"]) == (HELLO, GOOD, label)


def test_a_prompt_ends_where_the_answer_would_begin(tokenizer: Any, tmp_path: Path) -> None:
    table = described(tmp_path, [{"instruction": "hello", "output": "good"}], {})
    assert run(tokenizer, "rows", "prompt", dataset_dir=table).train[0]["prompt_ids"] == HELLO


@pytest.mark.parametrize("info", [{"columns": {"prompt": "text"}}, {"formatting": "text"}])
def test_plain_text_ends_with_the_end_of_text(info: dict[str, Any], tokenizer: Any, tmp_path: Path) -> None:
    table = described(tmp_path, [{"text": "hello world"}], info)
    made = run(tokenizer, "rows", "text", dataset_dir=table).train[0]
    assert made["input_ids"] == made["labels"] == [295, 297, 2]


CALL = [
    30, 86, 266, 78, 65, 69, 67, 277, 32, 201, 93, 4, 80, 67, 79, 71, 4, 28, 223, 4, 72, 4, 14, 223, 4,
    67, 84, 73, 87, 79, 71, 80, 86, 85, 4, 28, 223, 93, 4, 90, 4, 28, 223, 19, 95, 95, 201, 30, 17, 86,
    266, 78, 65, 69, 67, 277, 32, 2,
]  # fmt: skip
RESULT = [
    201, 1, 310, 201, 30, 86, 266, 78, 65, 282, 85, 82, 265, 85, 71, 32, 201, 265, 71, 201, 30, 17, 86,
    266, 78, 65, 282, 85, 82, 265, 85, 71, 32, 2, 201, 1, 67, 307, 335, 201,
]  # fmt: skip
TOOL = {"name": "f", "description": "adds"}
WITH_TOOLS = {
    "sharegpt": (
        {
            "conversations": [
                {"from": "human", "value": "hello"},
                {"from": "function_call", "value": '{"name": "f", "arguments": {"x": 1}}'},
                {"from": "observation", "value": "one"},
                {"from": "gpt", "value": "good"},
            ],
            "tools": json.dumps([TOOL]),
        },
        {"formatting": "sharegpt"},
    ),
    "openai": (
        {
            "messages": [
                USER,
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": '{"x": 1}'}}],
                },
                {"role": "tool", "tool_call_id": "a", "content": "one"},
                ANSWER,
            ],
            "tools": [{"type": "function", "function": TOOL}],
        },
        {"formatting": "openai"},
    ),
}


@pytest.mark.parametrize("name", WITH_TOOLS)
def test_calls_of_tools_are_trained_and_their_results_are_not(
    name: str, tokenizer: Any, tmp_path: Path
) -> None:
    row, info = WITH_TOOLS[name]
    made = run(tokenizer, "rows", dataset_dir=described(tmp_path, [row], info), tool_format="qwen").train[0]
    dialogue = [*HELLO, *CALL, *RESULT, *GOOD, *END]
    system = len(made["input_ids"]) - len(dialogue)
    assert made["input_ids"][system:] == dialogue
    assert made["labels"] == [*[N] * (system + 11), *CALL, *[N] * 40, *GOOD, N]
    told = tokenizer.decode(made["input_ids"][:system])
    assert told.startswith("<|im_start|>system\n# Tools\n\n") and told.endswith("</tool_call><|im_end|>\n")
    assert '<tools>\n{"type": "function", "function": {"name": "f", "description": "adds"}}\n</tools>' in told


def test_images_go_along_as_paths(tokenizer: Any, tmp_path: Path) -> None:
    (tmp_path / "media").mkdir()
    (tmp_path / "media" / "a.png").write_bytes(b"x")
    row = {"instruction": "<image>hello", "output": "good", "images": ["a.png"]}
    columns = {"prompt": "instruction", "response": "output", "images": "images"}
    table = described(tmp_path, [row], {"columns": columns})
    made = run(tokenizer, "rows", dataset_dir=table, media_dir=str(tmp_path / "media")).train[0]
    assert made["images"] == [str(tmp_path / "media" / "a.png")]
