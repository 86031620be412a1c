"""Rows longer than data.cutoff_len: what goes, what stays, what is counted."""

from pathlib import Path
from typing import Any

import pytest
from support.data_samples import described, run, texts

from llmf_hydra.data.tokenize.cutoff import cut, cut_answer, shares

OPENAI = {"formatting": "openai"}


def talk(*contents: str, system: str = "") -> dict[str, Any]:
    roles = ("user", "assistant")
    turns = [{"role": roles[n % 2], "content": content} for n, content in enumerate(contents)]
    return {"messages": [{"role": "system", "content": system}, *turns] if system else turns}


def test_question_and_answer_are_cut_in_proportion_and_keep_their_frame(
    tokenizer: Any, tmp_path: Path
) -> None:
    row = talk(" hello" * 20, " good" * 60)
    made = run(tokenizer, "rows", dataset_dir=described(tmp_path, [row], OPENAI), cutoff_len=32)
    assert len(made.train[0]["input_ids"]) == 32
    assert texts(tokenizer, made.train) == [
        "<|im_start|>user\n" + " hello" * 6 + "<|im_end|>\n<|im_start|>assistant\n" + " good" * 16
    ]
    assert texts(tokenizer, made.train, "labels") == [" good" * 16]
    report = made.report.sources[0]
    assert (report.rows_cut, report.tokens_cut, report.answers_cut) == (1, 60, 1)
    assert "  answers cut: 1, trained without an end of turn" in made.report.lines()


def test_old_turns_go_whole_and_the_system_message_stays(tokenizer: Any, tmp_path: Path) -> None:
    row = talk("hello one", "good", "hello two", "bad", "hello three", "good", system="be good")
    full = len(run(tokenizer, "rows", dataset_dir=described(tmp_path, [row], OPENAI)).train[0]["input_ids"])
    made = run(tokenizer, "rows", dataset_dir=described(tmp_path, [row], OPENAI), cutoff_len=full - 1)
    text = texts(tokenizer, made.train)[0]
    assert "be good" in text
    assert "hello one" not in text
    assert "hello two" in text
    assert texts(tokenizer, made.train, "labels") == ["bad<|im_end|>good<|im_end|>"]
    assert made.report.sources[0].tokens_cut == full - len(made.train[0]["input_ids"])


def test_ranked_answers_are_cut_with_the_same_prompt(tokenizer: Any, tmp_path: Path) -> None:
    row = {"instruction": "hello", "chosen": " good" * 50, "rejected": " bad"}
    table = described(tmp_path, [row], {"ranking": True})
    made = run(tokenizer, "rows", "preference", dataset_dir=table, cutoff_len=31).train[0]
    assert (
        tokenizer.decode(made["prompt_ids"]) == "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"
    )
    assert tokenizer.decode(made["chosen_ids"]) == " good" * 20
    assert tokenizer.decode(made["rejected_ids"]) == " bad<|im_end|>"


def test_a_prompt_loses_of_its_question_only(tokenizer: Any, tmp_path: Path) -> None:
    table = described(tmp_path, [{"instruction": " hello" * 30}], {})
    made = run(tokenizer, "rows", "prompt", dataset_dir=table, cutoff_len=20)
    assert texts(tokenizer, made.train, "prompt_ids") == [
        "<|im_start|>user\n" + " hello" * 10 + "<|im_end|>\n<|im_start|>assistant\n"
    ]


def test_plain_text_is_cut_unpacked_and_goes_on_packed(tokenizer: Any, tmp_path: Path) -> None:
    table = described(tmp_path, [{"text": " good" * 25}], {"formatting": "text"})
    once = run(tokenizer, "rows", "text", dataset_dir=table, cutoff_len=10)
    assert [len(row["input_ids"]) for row in once.train] == [10]
    assert once.report.sources[0].tokens_cut == 16
    packed = run(tokenizer, "rows", "text", dataset_dir=table, cutoff_len=10, packing=True)
    assert sorted(len(row["input_ids"]) for row in packed.train) == [6, 10, 10]
    assert packed.report.sources[0].tokens_cut == 0


@pytest.mark.parametrize(
    ("prompt", "answer", "kept"),
    [
        (10, 10, (10, 10)),
        (100, 10, (90, 10)),
        (10, 100, (10, 90)),
        (100, 100, (50, 50)),
        (300, 100, (75, 25)),
    ],
)
def test_shares(prompt: int, answer: int, kept: tuple[int, int]) -> None:
    assert shares(prompt, answer, 100, (0, prompt)) == kept


def test_cut_takes_the_end_of_the_question_first() -> None:
    ids = [0, 1, 2, 3, 4, 5, 6, 7]
    assert cut(ids, 6, (2, 6)) == [0, 1, 2, 3, 6, 7]
    assert cut(ids, 3, (2, 6)) == [0, 6, 7]
    assert cut(ids, 2, (2, 6)) == [6, 7]
    assert cut(ids, 8, (2, 6)) == ids


def test_a_cut_answer_has_no_end_of_turn() -> None:
    assert cut_answer([1, 2, 3, 4, 99], 3, 1) == [1, 2, 3]
    assert cut_answer([1, 2, 99], 3, 1) == [1, 2, 99]
    assert cut_answer([1, 2, 98, 99], 3, 2) == [1, 2]
    assert cut_answer([1, 2, 98, 99], 1, 2) == [1]
