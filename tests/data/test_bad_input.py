# ruff: noqa: E501 (a case a line reads better as a table)
"""Broken data: each fault is named with file, row, field and remedy, before and while it is tokenized."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.data_samples import alpaca, described, run

from llmf_hydra.config.groups.data import DataConfig
from llmf_hydra.data.sources.resolve import check_sources
from llmf_hydra.errors import Refused

GOOD = {"instruction": "hello", "output": "good"}
SHAREGPT = {"formatting": "sharegpt"}
OPENAI = {"formatting": "openai"}
RANKED = {"ranking": True}


def turns(*pairs: tuple[str, Any]) -> dict[str, Any]:
    return {"conversations": [{"from": who, "value": what} for who, what in pairs]}


def messages(*rows: dict[str, Any]) -> dict[str, Any]:
    return {"messages": list(rows)}


ASK = {"role": "user", "content": "hello"}
SAY = {"role": "assistant", "content": "good"}

# name: (kind, row of the table, a good row, a bad row, field, reason, part of the remedy)
ROWS: dict[str, tuple[str, dict[str, Any], Any, Any, str, str]] = {
    "an empty answer": ("dialogue", {}, GOOD, {"instruction": "a", "output": " "}, "output is empty", "needs text"),
    "an empty question": ("dialogue", {}, GOOD, {"instruction": "", "output": "a"}, "instruction is empty", "needs text"),
    "a missing question": ("dialogue", {}, GOOD, {"output": "a"}, "instruction is missing", "name the right column"),
    "a missing named column": (
        "dialogue", {"columns": {"prompt": "q", "response": "a"}}, {"q": "x", "a": "y"}, {"q": "x"},
        "a is missing (columns.response)", "the row has q",
    ),
    "an answer that is a number": ("dialogue", {}, GOOD, {"instruction": "a", "output": 3}, "output is a number, not text", "string"),
    "an answer that is a list": ("dialogue", {}, GOOD, {"instruction": "a", "output": ["b"]}, "output is a list of answers", "ranking: true"),
    "a broken history": (
        "dialogue", {}, GOOD, {**GOOD, "history": [["only a question"]]},
        "history is not a list of [question, answer] pairs", "[[question, answer], ...]",
    ),
    "a row that is no mapping": ("dialogue", {}, GOOD, ["hello"], "is a list, not a mapping of columns", "{...}"),
    "a missing dialogue": ("dialogue", SHAREGPT, turns(("human", "a"), ("gpt", "b")), {"talk": []}, "conversations is missing", "columns {messages: ...}"),
    "an empty dialogue": ("dialogue", SHAREGPT, turns(("human", "a"), ("gpt", "b")), {"conversations": []}, "conversations is empty", "{from, value}"),
    "an unknown role": (
        "dialogue", SHAREGPT, turns(("human", "a"), ("gpt", "b")), turns(("humn", "a"), ("gpt", "b")),
        "conversations[0].from is the unknown role 'humn'", "did you mean 'human'?",
    ),
    "a missing role": (
        "dialogue", SHAREGPT, turns(("human", "a"), ("gpt", "b")), {"conversations": [{"role": "human", "value": "a"}]},
        "conversations[0].from is missing", "tags {role_tag: ...}",
    ),
    "roles out of order": (
        "dialogue", SHAREGPT, turns(("human", "a"), ("gpt", "b")), turns(("gpt", "a"), ("human", "b"), ("gpt", "c")),
        "conversations has the role assistant in turn 1, where user is expected", "take turns",
    ),
    "the same role twice": (
        "dialogue", OPENAI, messages(ASK, SAY), messages(ASK, ASK, SAY),
        "messages has the role user in turn 2, where assistant is expected", "join neighbours of one role",
    ),
    "a system message late": (
        "dialogue", OPENAI, messages(ASK, SAY), messages(ASK, SAY, {"role": "system", "content": "x"}, ASK, SAY),
        "messages has the role system in turn 3, where user is expected", "put the one system message first",
    ),
    "a dialogue that ends with a question": (
        "dialogue", OPENAI, messages(ASK, SAY), messages(ASK, SAY, ASK),
        "holds prompts, where dialogues with an answer are needed", "columns of the answer",
    ),
    "a message that is no mapping": ("dialogue", OPENAI, messages(ASK, SAY), {"messages": ["hello"]}, "messages[0] is not a mapping", "{role, content}"),
    "a message without content": (
        "dialogue", OPENAI, messages(ASK, SAY), messages(ASK, {"role": "assistant"}),
        "messages[1].content is missing", "fill it in",
    ),
    "a part that is no text": (
        "dialogue", OPENAI, messages(ASK, SAY), messages({"role": "user", "content": [{"type": "image_url"}]}, SAY),
        "messages[0].content holds a part of type image_url", "<image>",
    ),
    "tools that are no JSON": ("dialogue", {}, GOOD, {**GOOD, "tools": "[{]"}, "tools is not valid JSON", "list of function descriptions"),
    "a tool without a name": ("dialogue", {}, GOOD, {**GOOD, "tools": [{"description": "x"}]}, "tools holds a tool without a name", "{name, description, parameters}"),
    "a call that is no JSON": (
        "dialogue", SHAREGPT, turns(("human", "a"), ("gpt", "b")), turns(("human", "a"), ("function_call", "f(1)")),
        "conversations[1].value holds a call of a tool that is not valid JSON", '{"name": ..., "arguments": {...}}',
    ),
    "arguments that are no JSON": (
        "dialogue", OPENAI, messages(ASK, SAY),
        messages(ASK, {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{x"}}]}),
        "messages[1].tool_calls calls f with arguments that are not valid JSON", "as a mapping",
    ),
    "a ranked row without a second answer": (
        "preference", RANKED, {"instruction": "a", "chosen": "b", "rejected": "c"}, {"instruction": "a", "chosen": "b"},
        "rejected is missing in a ranked row", "give chosen and rejected",
    ),
    "a ranked list of one": (
        "preference", RANKED, {"instruction": "a", "output": ["b", "c"]}, {"instruction": "a", "output": ["b"]},
        "output has fewer than two answers to rank", "a better and a worse one",
    ),
    "an empty rejected answer": (
        "preference", RANKED, {"instruction": "a", "chosen": "b", "rejected": "c"}, {"instruction": "a", "chosen": "b", "rejected": ""},
        "rejected is empty", "needs text",
    ),
    "a label that is no truth": (
        "feedback", {}, {**GOOD, "kto_tag": True}, {**GOOD, "kto_tag": "maybe"},
        "kto_tag is 'maybe', not true or false", "true for a wanted answer",
    ),
    "a missing label": ("feedback", {}, {**GOOD, "kto_tag": True}, GOOD, "where answers with a true/false label are needed", "kto_tag"),
    "an empty text": ("text", {"formatting": "text"}, {"text": "a"}, {"text": "  "}, "text is empty", "remove the row"),
    "a missing image": (
        "dialogue", {"columns": {"prompt": "instruction", "response": "output", "images": "images"}},
        {**GOOD, "images": []}, {**GOOD, "images": ["none.png"]}, "none.png, which does not exist", "data.media_dir",
    ),
    "half a surrogate pair": ("dialogue", {}, GOOD, {"instruction": "a\ud83d", "output": "b"}, "holds the character U+D83D", "remove it"),
    "a noncharacter": ("dialogue", {}, GOOD, {"instruction": "a", "output": "b\ufdd0"}, "holds the character U+FDD0", "remove it"),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_a_bad_row_is_named_and_skipping_loses_just_it(name: str, tokenizer: Any, tmp_path: Path) -> None:
    kind, info, good, bad, reason, remedy = ROWS[name]
    table = described(tmp_path, [good, bad, good], info)
    with pytest.raises(Refused) as refused:
        run(tokenizer, "rows", kind, dataset_dir=table)
    first = str(refused.value.problems[0])
    assert first.startswith(f"{tmp_path / 'rows.jsonl'} row 2: ")
    assert reason in first
    assert remedy in first
    assert "data.skip_bad_rows=true" in str(refused.value.problems[-1])
    made = run(tokenizer, "rows", kind, dataset_dir=table, skip_bad_rows=True)
    assert [row["row"] for row in made.train] == [1, 3]
    assert (made.report.sources[0].rows_rejected, made.report.sources[0].rejected) == (1, [2])


@pytest.mark.parametrize("name", [name for name in ROWS if name != "a noncharacter"])
def test_the_check_before_the_start_says_the_same(name: str, tmp_path: Path) -> None:
    kind, info, good, bad, reason, remedy = ROWS[name]
    data = DataConfig(dataset="rows", dataset_dir=described(tmp_path, [good, bad, good], info))
    first = str(check_sources(data, kind)[0])
    assert reason in first
    assert remedy in first


def line(text: bytes) -> Callable[[Path], Path]:
    def written(folder: Path) -> Path:
        path = folder / "rows.jsonl"
        good = json.dumps(GOOD).encode() + b"\n"
        path.write_bytes(good * 2 + text + b"\n" + good)
        return path

    return written


def file(name: str, content: bytes) -> Callable[[Path], Path]:
    def written(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return written


SKIPPABLE = {
    "a line that is no JSON": (line(b'{"instruction": "a",'), "row 3: is not valid JSON: Expecting property name"),
    "a line that is not UTF-8": (line(b'{"instruction": "caf\xe9", "output": "a"}'), "row 3: is not UTF-8 (byte 0xe9 at 20)"),
    "too many cells": (file("a.csv", b"instruction,output\na,b\nc,d\ne,f,g\nh,i\n"), "row 3: has more cells than the header"),
    "too few cells": (file("a.csv", b"instruction,output\na,b\nc,d\ne\nh,i\n"), "row 3: has fewer cells than the header"),
}  # fmt: skip


@pytest.mark.parametrize("name", SKIPPABLE)
def test_a_broken_line(name: str, tokenizer: Any, tmp_path: Path) -> None:
    make, reason = SKIPPABLE[name]
    path = make(tmp_path)
    with pytest.raises(Refused) as refused:
        run(tokenizer, str(path))
    assert f"{path} {reason}" in str(refused.value)
    assert f"{path} {reason}" in str(check_sources(DataConfig(dataset=str(path)), "dialogue")[0])
    assert [row["row"] for row in run(tokenizer, str(path), skip_bad_rows=True).train] == [1, 2, 4]


UNREADABLE = {
    "an array that ends early": (
        file("a.json", b'[{"instruction": "a", "output": "b"},'),
        "is not valid JSON",
    ),
    "an array without a comma": (
        file("a.json", b'[{"instruction": "a", "output": "b"} {"instruction": "a"}]'),
        "a comma is missing after row 1",
    ),
    "an empty json file": (file("a.json", b""), "is empty"),
    "a json file of something else": (
        file("a.json", b"hello"),
        "is neither an array of rows nor a row a line",
    ),
    "a table that is not UTF-8": (file("a.csv", b"instruction,output\ncaf\xe9,b\n"), "is not UTF-8"),
    "no Parquet": (file("a.parquet", b"hello"), "is not a Parquet file"),
    "no Arrow": (file("a.arrow", b"hello there"), "is not an Arrow file"),
    "no rows": (file("a.jsonl", b""), "holds no rows"),
    "columns of no format": (file("a.jsonl", b'{"x": 1}\n'), "has columns of no known format (x)"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_file_that_cannot_be_read(name: str, tokenizer: Any, tmp_path: Path) -> None:
    make, reason = UNREADABLE[name]
    path = make(tmp_path)
    problems = check_sources(DataConfig(dataset=str(path)), "dialogue")
    assert reason in str(problems[0])
    assert str(path) in str(problems[0])
    with pytest.raises(Refused) as refused:
        run(tokenizer, str(path), skip_bad_rows=True)
    assert str(path) in str(refused.value)


def test_line_7312_is_named(tokenizer: Any, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    good = json.dumps(GOOD) + "\n"
    path.write_text(good * 7311 + '{"instruction"\n' + good)
    with pytest.raises(Refused, match=r"rows\.jsonl row 7312: is not valid JSON"):
        run(tokenizer, str(path))


def test_ten_bad_rows_are_listed_and_the_rest_counted(write: Any) -> None:
    path = write([*alpaca(3), *[{"instruction": "a", "output": ""}] * 12])
    problems = check_sources(DataConfig(dataset=path), "dialogue")
    assert len(problems) == 11
    assert str(problems[-1]).startswith("data: 12 bad rows, 2 not shown; correct them")


def test_a_row_without_a_trained_token_is_left_out_and_named(tokenizer: Any, tmp_path: Path) -> None:
    untrained = messages(ASK, {**SAY, "weight": 0})
    table = described(tmp_path, [messages(ASK, SAY), untrained], OPENAI)
    report = run(tokenizer, "rows", dataset_dir=table).report
    assert (report.sources[0].rows_untrained, report.sources[0].untrained) == (1, [2])
    assert "  left out, nothing to train: 1 rows (row 2)" in report.lines()


def test_nothing_left_is_refused(tokenizer: Any, tmp_path: Path) -> None:
    table = described(tmp_path, [messages(ASK, {**SAY, "weight": 0})], OPENAI)
    with pytest.raises(Refused, match="has no row left of 1; left out, nothing to train: 1 rows"):
        run(tokenizer, "rows", dataset_dir=table)


def test_data_of_another_kind_is_one_problem(write: Any) -> None:
    problems = check_sources(DataConfig(dataset=write(alpaca(50))), "preference")
    assert len(problems) == 1
    assert "where pairs of a chosen and a rejected answer are needed; set ranking: true" in str(problems[0])


@pytest.mark.parametrize("streaming", [False, True])
def test_half_a_surrogate_pair_is_written_down_as_it_was_read(
    tokenizer: Any, tmp_path: Path, streaming: bool
) -> None:
    bad = {"instruction": "a\ud83d", "output": "b"}
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{json.dumps(bad)}\n{json.dumps(GOOD)}\n")
    prepared = run(tokenizer, str(path), skip_bad_rows=True, streaming=streaming)
    assert [row["row"] for row in prepared.train] == [2]
    if not streaming:
        assert json.loads(prepared.rejected[0].read_text())["content"] == bad
