"""`job=predict` answers a dataset as the model does prompt by prompt, in the dataset's order, and survives a kill."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support.command_line import Cli
from support.finished_runs import Finished
from support.job_runs import refused, run_job
from support.killed_runs import kill_when
from transformers import AutoModelForCausalLM, AutoTokenizer

from llmf_hydra.errors import Refused
from llmf_hydra.jobs.results import read
from llmf_hydra.models.builtin import tiny
from llmf_hydra.models.scorer import load_saved_scorer
from llmf_hydra.serve.transformers_engine import TransformersEngine
from llmf_hydra.training.text_metrics import scores

GREEDY = ["generation.do_sample=false", "generation.max_new_tokens=6", "model.infer_dtype=float32"]


@pytest.fixture(autouse=True)
def _cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMF_CACHE", str(cache))


def write(file: Path, rows: list[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf8")
    return file


def own(folder: Path, count: int) -> Path:
    """Rows of the user's own, of lengths in no order."""
    rows = [
        {"instruction": f"Say {n}" + ", and once more" * ((n * 5) % 7), "output": f"{n} it is"}
        for n in range(count)
    ]
    return write(folder / "mine.jsonl", rows)


def plain_answer(question: str, length: int) -> str:
    """What Transformers alone makes of a question."""
    folder = tiny.ready()
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    made = model.generate(
        **inputs, do_sample=False, max_new_tokens=length, eos_token_id=tokenizer.eos_token_id
    )
    return tokenizer.decode(made[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def test_own_data_are_answered_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[int]] = []
    generate = TransformersEngine.generate

    def noted(self: TransformersEngine, requests: Any) -> Any:
        asked.append([len(request.prompt) for request in requests])
        return generate(self, requests)

    monkeypatch.setattr(TransformersEngine, "generate", noted)
    file = own(tmp_path, 13)
    words = ["job=predict", f"data.dataset={file}", *GREEDY]
    out = run_job(tmp_path / "run", *words, "training.per_device_eval_batch_size=2")
    lines = read(out / "predictions.jsonl")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["label"] for line in lines] == [row["output"] for row in rows]
    for line, row in zip(lines[:3], rows, strict=False):
        assert row["instruction"] in line["prompt"] and line["answer"] == plain_answer(row["instruction"], 6)
    assert [len(batch) for batch in asked] == [8, 5]
    lengths = [length for batch in asked for length in batch]
    assert lengths == sorted(lengths, reverse=True), "sorted by length"
    metrics = json.loads((out / "metrics.json").read_text())
    found = [scores(line["answer"], line["label"]) for line in lines]
    for name in ("bleu-4", "rouge-1", "rouge-2", "rouge-l", "exact_match"):
        assert metrics[name] == pytest.approx(sum(one[name] for one in found) / 13)
    assert metrics["tokens_per_second"] > 0
    larger = run_job(tmp_path / "larger", *words, "training.per_device_eval_batch_size=16")
    assert read(larger / "predictions.jsonl") == lines, "the batch decides nothing"
    few = run_job(tmp_path / "few", "job=predict", f"data.eval_dataset={file}", "data.max_samples=4", *GREEDY)
    assert read(few / "predictions.jsonl") == lines[:4]


def test_answers_are_sampled_by_the_seed_and_the_group_generation(tmp_path: Path) -> None:
    file = own(tmp_path, 4)
    base = ["job=predict", f"data.dataset={file}", "generation.max_new_tokens=3", "model.infer_dtype=float32"]

    def answers(name: str, *more: str) -> list[str]:
        return [line["answer"] for line in read(run_job(tmp_path / name, *base, *more) / "predictions.jsonl")]

    first = answers("first")
    assert answers("seed", "training.seed=7") != first
    assert answers("hot", "generation.temperature=9", "generation.top_p=1") != first
    greedy = answers("greedy", "generation.do_sample=false")
    assert answers("beams", "generation.do_sample=false", "generation.eval_num_beams=3") != greedy


def test_rows_without_answers_give_no_metrics_and_pairs_their_better_one(tmp_path: Path) -> None:
    prompts = write(tmp_path / "prompts.jsonl", [{"prompt": f"Say {n}"} for n in range(3)])
    blank = write(
        tmp_path / "blank.jsonl", [{"instruction": f"Say {n}", "output": " " * n} for n in range(3)]
    )
    pairs = [{"prompt": f"Say {n}", "chosen": f"{n}", "rejected": "no"} for n in range(3)]
    for name, file, labels in (
        ("prompts", prompts, [None] * 3),
        ("blank", blank, [None] * 3),
        ("pairs", write(tmp_path / "pairs.jsonl", pairs), ["0", "1", "2"]),
    ):
        out = run_job(tmp_path / name, "job=predict", f"data.dataset={file}", *GREEDY)
        assert [line["label"] for line in read(out / "predictions.jsonl")] == labels
        assert ("rouge-l" in json.loads((out / "metrics.json").read_text())) == (labels[0] is not None)


def test_a_prompt_leaves_room_for_its_answer(tmp_path: Path) -> None:
    file = write(tmp_path / "long.jsonl", [{"instruction": "once more " * 2000, "output": "no"}])
    words = ["job=predict", f"data.dataset={file}", *GREEDY]
    with pytest.raises(
        Refused, match=r"data.cutoff_len=2048: lets prompt 1 have 2048 tokens, and the model takes"
    ):
        run_job(tmp_path / "run", *words)
    (line,) = read(run_job(tmp_path / "cut", *words, "data.cutoff_len=64") / "predictions.jsonl")
    assert len(line["prompt"]) < 1000


def test_plain_texts_go_on(tmp_path: Path) -> None:
    file = write(tmp_path / "texts.jsonl", [{"text": "The sea is"}, {"text": "Water"}])
    out = run_job(tmp_path / "run", "stage=pt", "job=predict", f"data.dataset={file}", *GREEDY)
    assert [line["prompt"] for line in read(out / "predictions.jsonl")] == ["The sea is", "Water"]


def test_a_reward_model_gives_scores(finished: Finished, tmp_path: Path) -> None:
    run = finished("rm")
    pairs = [{"prompt": f"Say {n}", "chosen": f"{n} it is", "rejected": "no" * (n + 1)} for n in range(5)]
    file = write(tmp_path / "pairs.jsonl", pairs)
    words = [
        "job=predict",
        "stage=rm",
        f"model.adapter_name_or_path={run.out / 'final'}",
        "model.infer_dtype=float32",
    ]
    out = run_job(tmp_path / "run", *words, f"data.dataset={file}")
    lines = read(out / "predictions.jsonl")
    model, tokenizer = load_saved_scorer(run.out / "final")
    for line, pair in zip(lines, pairs, strict=True):
        for name in ("chosen", "rejected"):
            dialogue = [
                {"role": "user", "content": pair["prompt"]},
                {"role": "assistant", "content": pair[name]},
            ]
            text = str(tokenizer.apply_chat_template(dialogue, tokenize=False)).rstrip("\n")
            tokens = tokenizer(text, return_tensors="pt", add_special_tokens=False)
            with torch.no_grad():
                expected = float(model(**tokens, use_cache=False).logits)  # pyright: ignore
            assert line[f"score_{name}"] == pytest.approx(expected, abs=1e-4)
    better = sum(line["score_chosen"] > line["score_rejected"] for line in lines)
    assert json.loads((out / "metrics.json").read_text())["accuracy"] == pytest.approx(20 * better)
    dialogues = write(
        tmp_path / "d.jsonl", [{"instruction": p["prompt"], "output": p["chosen"]} for p in pairs]
    )
    alone = run_job(tmp_path / "alone", *words, f"data.dataset={dialogues}")
    for line, pair in zip(read(alone / "predictions.jsonl"), lines, strict=True):
        assert line["score"] == pytest.approx(pair["score_chosen"], abs=1e-4)


def test_killed_and_resumed_it_ends_as_undisturbed(
    environment: dict[str, str], cli: Cli, finished: Finished, tmp_path: Path
) -> None:
    run = finished("sft")
    file = own(tmp_path, 90)
    words = ["job=predict", f"from_run={run.out}", f"data.dataset={file}", "generation.max_new_tokens=24",
             "training.per_device_eval_batch_size=1"]  # fmt: skip
    partial = ".predictions.jsonl.partial"
    out = tmp_path / "killed"
    kill_when(lambda run: (run / partial).exists() and (run / partial).read_bytes().count(b"\n") > 8, words, out,
              environment)  # fmt: skip
    with (out / partial).open("a", encoding="utf8") as half:
        half.write('{"number": 3, "line": {"prom')
    done = cli("resume", "killed")
    assert done.returncode == 0, done.stderr
    assert "of 90 answers were there before" in done.stdout and "tokens/s" in done.stdout
    whole = cli(*words, "hydra.run.dir=whole")
    assert whole.returncode == 0, whole.stderr
    assert (out / "predictions.jsonl").read_bytes() == (tmp_path / "whole" / "predictions.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "data.dataset=null: no dataset is named"),
        (["data.dataset=demo_instruct", "data.eval_dataset=demo_instruct"], "answers one list of datasets"),
        (["data.dataset=gone.jsonl"], "there is no such file"),
        (["data.dataset=demo_instruct", "launch.nproc_per_node=2"], "job=predict is one process"),
        (["data.dataset=demo_instruct", "data.streaming=true"], "data.streaming=true: has no effect"),
        (["data.dataset=demo_instruct", "training.max_steps=3"], "training.max_steps=3: has no effect"),
    ],
)
def test_what_cannot_be_answered_is_refused(words: list[str], told: str) -> None:
    found = refused("job=predict", *words)
    assert any(told in problem for problem in found), found
