"""Answers generated at evaluation: the metrics by hand, and the generation group on the tiny model."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from support.stage_runs import Build

from llmf_hydra.stages.sft import last_answer
from llmf_hydra.training import text_metrics

WORDS = ["stage=sft", "data.max_samples=20", "data.val_size=5", "training.max_steps=2", "training.eval_steps=2",
         "training.save_strategy=no", "training.predict_with_generate=true", "generation.max_new_tokens=6",
         "training.per_device_eval_batch_size=2", "model.print_param_status=false"]  # fmt: skip


def test_metrics_by_hand() -> None:
    said, wanted = ["the", "cat", "sat", "on", "it"], ["the", "cat", "sat", "on", "the", "mat"]
    # 4 of 5 words, 3 of 4 pairs, 2 of 3 triples, 1 of 2 quadruples; one added to each of n > 1
    precisions = 4 / 5 * (3 + 1) / (4 + 1) * (2 + 1) / (3 + 1) * (1 + 1) / (2 + 1)
    assert text_metrics.bleu(said, wanted) == pytest.approx(100 * math.exp(1 - 6 / 5) * precisions**0.25)
    assert text_metrics.rouge_n(said, wanted, 1) == pytest.approx(
        100 * 2 * (4 / 5) * (4 / 6) / (4 / 5 + 4 / 6)
    )
    assert text_metrics.rouge_n(said, wanted, 2) == pytest.approx(100 * 2 * 3 / (4 + 5))
    assert text_metrics.rouge_l(["a", "b", "c", "d"], ["b", "x", "d", "a"]) == pytest.approx(100 * 2 * 2 / 8)


def test_metrics_at_their_ends() -> None:
    same = text_metrics.scores(" The cat sat on the mat.", "The cat sat on the mat. ")
    assert set(same.values()) == {100.0}
    assert set(text_metrics.scores("", "The cat").values()) == {0.0}
    assert set(text_metrics.scores("dogs bark", "The cat").values()) == {0.0}
    assert text_metrics.words("It's 3 PM: 東京タワー") == [
        "it",
        "'",
        "s",
        "3",
        "pm",
        ":",
        "東",
        "京",
        "タ",
        "ワ",
        "ー",
    ]


def test_the_last_answer_of_a_row() -> None:
    row = {"input_ids": [1, 2, 3, 4, 5, 6, 7], "labels": [-100, 2, -100, -100, 5, 6, -100]}
    assert last_answer(row) == ([1, 2, 3, 4], [5, 6])
    assert last_answer({"input_ids": [1, 2], "labels": [-100, 2]}) == ([1], [2])


def answers(trainer: Any) -> list[dict[str, str]]:
    trainer.train()
    (file,) = (Path(trainer.args.output_dir) / "generated").iterdir()
    assert file.name == "step-2.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_held_out_prompts_are_answered_and_compared(build: Build) -> None:
    trainer = build(*WORDS, "generation.do_sample=false")
    lines = answers(trainer)
    assert len(lines) == 5
    (logged,) = [line for line in trainer.state.log_history if "eval_loss" in line]
    by_hand = [text_metrics.scores(line["answer"], line["reference"]) for line in lines]
    for name in by_hand[0]:
        assert logged[f"eval_{name}"] == pytest.approx(sum(of[name] for of in by_hand) / 5, abs=1e-4)
    tokenizer = trainer.context.tokenizer
    for line, row in zip(lines, trainer.eval_dataset, strict=True):
        prompt, reference = last_answer(row)
        assert line["prompt"] == tokenizer.decode(prompt) and line["reference"] == tokenizer.decode(
            reference, skip_special_tokens=True
        )
        assert len(tokenizer(line["answer"])["input_ids"]) <= 6 and line["answer"]


@pytest.mark.parametrize(
    ("words", "other"),
    [
        (["generation.do_sample=false"], ["generation.do_sample=false", "generation.eval_num_beams=4"]),
        (["generation.do_sample=false"], ["generation.do_sample=false", "generation.num_beams=4"]),
        (["generation.do_sample=false"], ["generation.do_sample=false", "generation.max_new_tokens=3"]),
        (["generation.do_sample=false"], ["generation.do_sample=false", "generation.repetition_penalty=5"]),
        (["generation.do_sample=false"], ["generation.do_sample=true"]),
        (["generation.top_k=2"], ["generation.top_k=900"]),
        (["generation.top_k=0", "generation.top_p=0.01"], ["generation.top_k=0", "generation.top_p=1.0"]),
        (["generation.top_p=1.0", "generation.temperature=0.01"], ["generation.top_p=1.0", "generation.temperature=5"]),
    ],
    ids=lambda words: words[-1].removeprefix("generation."),
)  # fmt: skip
def test_each_parameter_of_generation_changes_the_answers(
    words: list[str], other: list[str], build: Build
) -> None:
    one, two = answers(build(*WORDS, *words)), answers(build(*WORDS, *other))
    assert [line["answer"] for line in one] != [line["answer"] for line in two]


def test_what_is_generated_does_not_change_the_training(build: Build) -> None:
    words = [*WORDS, "training.max_steps=4", "training.logging_steps=2", "method.lora_dropout=0.2"]
    off = ["training.predict_with_generate=false", "generation.max_new_tokens=1024"]
    losses = []
    for more in ([], off):
        trainer = build(*words, *more)
        trainer.train()
        losses.append([line["loss"] for line in trainer.state.log_history if "loss" in line])
    assert losses[0] == losses[1] and len(losses[0]) == 2
