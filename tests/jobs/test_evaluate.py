"""`job=evaluate` gives the accuracy that can be computed by hand, and each of its parameters acts or is refused."""

import json
from importlib.util import find_spec
from pathlib import Path
from statistics import stdev
from typing import Any

import pytest
import torch
from support.benchmarks import Row, ceval, mmlu, questions
from support.job_runs import refused, run_job
from support.killed_runs import kill_when
from transformers import AutoModelForCausalLM, AutoTokenizer

from llmf_hydra.errors import Refused
from llmf_hydra.evaluation.prompts import draw_examples
from llmf_hydra.evaluation.questions import Question, Subject
from llmf_hydra.jobs.results import read
from llmf_hydra.models.builtin import tiny
from llmf_hydra.serve.transformers_engine import TransformersEngine

NAMES = {"astronomy": "astronomy", "law": "the law"}
SHOWN = {"astronomy": questions("astronomy", 6, 20), "law": questions("law", 6, 40)}
ASKED = {"astronomy": questions("astronomy", 9), "law": questions("law", 6, 10)}
WRONG = {"astronomy": {0, 4, 5}, "law": {1}}  # questions of which the files call another choice right
OPENINGS = {
    "en": "The following are multiple choice questions (with answers) about {}.\n\n",
    "zh": "以下是中国关于{}考试的单项选择题，请选出其中的正确答案。\n\n",
}
ENDS = {"en": "Answer:", "zh": "答案："}


@pytest.fixture(autouse=True)
def _cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMF_CACHE", str(cache))


@pytest.fixture(scope="module")
def plain() -> Any:
    """The letter that the tiny model puts after messages, by Transformers alone."""
    folder = tiny.ready()
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    letters = [tokenizer.convert_tokens_to_ids(letter) for letter in "ABCD"]

    def choose(messages: list[dict[str, str]]) -> str:
        ids = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )["input_ids"]
        with torch.no_grad():
            return "ABCD"[int(model(input_ids=ids).logits[0, -1][letters].argmax())]

    return choose


def asked(row: Row, lang: str) -> str:
    return f"{row[0]}\nA. {row[1]}\nB. {row[2]}\nC. {row[3]}\nD. {row[4]}\n{ENDS[lang]}"


def messages_of(subject: str, row: Row, n_shot: int, lang: str, seed: int = 42) -> list[dict[str, str]]:
    examples = tuple(Question(one[0], one[1:5], one[5]) for one in SHOWN[subject])
    drawn = draw_examples(Subject(subject, "", None, (), examples), n_shot, seed)
    messages = []
    for one in drawn:
        shown = next(row for row in SHOWN[subject] if row[0] == one.text)
        messages += [
            {"role": "user", "content": asked(shown, lang)},
            {"role": "assistant", "content": shown[5]},
        ]
    messages.append({"role": "user", "content": asked(row, lang)})
    messages[0]["content"] = OPENINGS[lang].format(NAMES[subject]) + messages[0]["content"]
    return messages


def with_answers(plain: Any, n_shot: int, lang: str) -> dict[str, list[Row]]:
    """The questions, with the model's own choices called right, but for those in WRONG."""
    made: dict[str, list[Row]] = {}
    for subject, rows in ASKED.items():
        made[subject] = []
        for number, row in enumerate(rows):
            letter = plain(messages_of(subject, row, n_shot, lang))
            if number in WRONG[subject]:
                letter = "ABCD"[("ABCD".index(letter) + 1) % 4]
            made[subject].append((*row[:5], letter))
    return made


@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize("n_shot", [0, 5])
def test_the_accuracy_is_the_known_one(n_shot: int, lang: str, plain: Any, tmp_path: Path) -> None:
    mmlu(tmp_path, {"dev": SHOWN, "test": with_answers(plain, n_shot, lang)}, packed=lang == "zh")
    out = run_job(
        tmp_path / "run", "job=evaluate", "evaluation.task=mmlu_test", f"evaluation.task_dir={tmp_path}",
        f"evaluation.n_shot={n_shot}", f"evaluation.lang={lang}", "model.infer_dtype=float32",
        f"evaluation.save_dir={tmp_path / 'saved'}",
    )  # fmt: skip
    found = json.loads((out / "results.json").read_text())
    right = [number not in WRONG[subject] for subject in ASKED for number in range(len(ASKED[subject]))]
    assert found["average"]["accuracy"] == pytest.approx(100 * 11 / 15)
    assert found["average"]["stderr"] == pytest.approx(100 * stdev(right) / 15**0.5)
    assert found["subjects"]["astronomy"]["accuracy"] == pytest.approx(100 * 6 / 9)
    assert found["categories"]["Humanities"]["accuracy"] == pytest.approx(100 * 5 / 6)
    assert (found["task"], found["n_shot"], found["lang"], found["seed"]) == ("mmlu_test", n_shot, lang, 42)
    lines = read(out / "questions.jsonl")
    order = [(subject, number) for subject in ASKED for number in range(len(ASKED[subject]))]
    assert [(line["subject"], line["number"]) for line in lines] == order
    assert [line["correct"] for line in lines] == right and {line["shots"] for line in lines} == {n_shot}
    assert all(sum(line["probabilities"].values()) == pytest.approx(1, abs=1e-4) for line in lines)
    for name in ("results.json", "questions.jsonl", "results.log"):
        assert (tmp_path / "saved" / name).read_bytes() == (out / name).read_bytes()
    assert json.loads((out / "manifest.json").read_text())["objective"]["name"] == "accuracy"


def test_c_eval_and_the_plain_template(tmp_path: Path) -> None:
    ceval(tmp_path, {"dev": SHOWN, "val": ASKED})
    words = [
        "job=evaluate",
        f"evaluation.task_dir={tmp_path}",
        "evaluation.n_shot=1",
        "data.template=fewshot",
    ]
    out = [
        run_job(tmp_path / name, *words, f"evaluation.task={name}")
        for name in ("ceval_validation", "eval_validation")
    ]
    first, second = [read(folder / "questions.jsonl") for folder in out]
    assert first == second and len(first) == 15


def test_seed_batch_size_and_system_message_act(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mmlu(tmp_path, {"dev": SHOWN, "test": ASKED})
    calls: list[int] = []
    forward = TransformersEngine.next_logits

    def counted(self: TransformersEngine, prompts: Any) -> torch.Tensor:
        calls.append(len(prompts))
        return forward(self, prompts)

    monkeypatch.setattr(TransformersEngine, "next_logits", counted)
    words = ["job=evaluate", "evaluation.task=mmlu_test", f"evaluation.task_dir={tmp_path}", "evaluation.n_shot=2",
             "model.infer_dtype=float32"]  # fmt: skip

    def probabilities(name: str, *more: str) -> list[dict[str, float]]:
        return [
            line["probabilities"]
            for line in read(run_job(tmp_path / name, *words, *more) / "questions.jsonl")
        ]

    base = probabilities("base")
    assert calls == [4, 4, 4, 3]
    calls.clear()
    one_by_one = probabilities("single", "evaluation.batch_size=1")
    assert calls == [1] * 15
    for one, other in zip(base, one_by_one, strict=True):
        assert one == pytest.approx(other, abs=2e-5)
    assert probabilities("seed", "evaluation.seed=7") != base
    assert probabilities("system", "generation.default_system='Be brief.'") != base


def test_examples_that_the_model_cannot_read_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    long = [(f"{'Once upon a time ' * 60}{row[0]}", *row[1:]) for row in SHOWN["law"]]
    mmlu(tmp_path, {"dev": {"astronomy": SHOWN["astronomy"], "law": long}, "test": ASKED})
    out = run_job(
        tmp_path / "run", "job=evaluate", "evaluation.task=mmlu_test", f"evaluation.task_dir={tmp_path}"
    )
    shots = {line["subject"]: line["shots"] for line in read(out / "questions.jsonl")}
    assert shots["astronomy"] == 5 and 0 < shots["law"] < 5
    more = [
        "job=evaluate",
        "evaluation.task=mmlu_test",
        f"evaluation.task_dir={tmp_path}",
        "evaluation.n_shot=9",
    ]
    with pytest.raises(Refused, match=r"evaluation.n_shot=9: 2 subjects have fewer examples.*set it to 6"):
        run_job(tmp_path / "more", *more)


@pytest.mark.slow
def test_killed_and_resumed_it_continues(environment: dict[str, str], cli: Any, tmp_path: Path) -> None:
    many = {"astronomy": questions("astronomy", 150), "law": questions("law", 150, 10)}
    mmlu(tmp_path, {"dev": SHOWN, "test": many})
    words = ["job=evaluate", "model=tiny", "evaluation.task=mmlu_test", f"evaluation.task_dir={tmp_path}",
             "evaluation.batch_size=1"]  # fmt: skip
    partial = ".questions.jsonl.partial"
    out = tmp_path / "killed"
    kill_when(lambda run: (run / partial).exists() and (run / partial).read_bytes().count(b"\n") > 20, words, out,
              environment)  # fmt: skip
    before = (out / partial).read_bytes().count(b"\n") - 1
    assert 20 <= before < 300
    done = cli("resume", "killed")
    assert done.returncode == 0, done.stderr
    assert f"{before} of 300 questions were there before" in done.stdout
    assert not (out / partial).exists()
    whole = cli(*words, "hydra.run.dir=whole")
    assert whole.returncode == 0 and "average: " in whole.stdout, whole.stderr
    for name in ("questions.jsonl", "results.json"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "evaluation.task=null: no task is named"),
        (["evaluation.task=mmlu_tset"], "evaluation.task=mmlu_tset: is not one of mmlu_test, ceval_validation"),
        (["evaluation.task=lm_eval:"], "evaluation.task=lm_eval:: names no task of lm-eval"),
        (["evaluation.task=mmlu_test"], "evaluation.task_dir=evaluation: there is no such folder"),
        (["evaluation.task=mmlu_test", "evaluation.task_dir=HERE", "evaluation.download_mode=force_redownload"],
         "evaluation.download_mode=force_redownload: has no effect"),
        (["evaluation.task=cmmlu_test", "evaluation.task_dir=HERE"], "holds no tables of cmmlu"),
        (["evaluation.task=mmlu_test", "evaluation.task_dir=HERE", "evaluation.n_shot=7"],
         "evaluation.n_shot=7: 2 subjects have fewer examples, the first of them astronomy; set it to 6"),
        (["evaluation.task=mmlu_test", "evaluation.task_dir=HERE", "evaluation.save_dir=HERE"],
         "is there already; name a new folder"),
        (["evaluation.task=mmlu_test", "evaluation.task_dir=HERE", "launch.nproc_per_node=2"],
         "launch.nproc_per_node=2: job=evaluate is one process"),
        (["evaluation.task=mmlu_test", "evaluation.task_dir=HERE", "stage=rm"], "a model that gives scores"),
        (["evaluation.task=lm_eval:hellaswag", "evaluation.lang=zh"], "evaluation.lang=zh: has no effect"),
        (["evaluation.task=mmlu_test", "evaluation.task_dir=HERE", "training.seed=3"],
         "training.seed=3: has no effect with job=evaluate"),
        (["evaluation.task=mmlu_test", "evaluation.task_dir=HERE", "data.packing=true"],
         "data.packing=true: has no effect with job=evaluate"),
    ],
)  # fmt: skip
def test_what_cannot_be_evaluated_is_refused(words: list[str], told: str, tmp_path: Path) -> None:
    mmlu(tmp_path, {"dev": SHOWN, "test": ASKED})
    found = refused("job=evaluate", *(word.replace("HERE", str(tmp_path)) for word in words))
    assert any(told in problem for problem in found), found


def test_the_plain_template_is_for_evaluations() -> None:
    (told,) = refused("stage=sft", "data.template=fewshot", "data.dataset=demo_instruct")
    assert told.startswith("data.template=fewshot: writes no ends of turns")


def test_lm_eval_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmf_hydra.optional.importlib.util.find_spec", lambda name: None)
    found = refused("job=evaluate", "evaluation.task=lm_eval:hellaswag")
    assert (
        "evaluation.task=lm_eval:hellaswag: needs the package lm_eval; pip install 'llmf_hydra[lm-eval]'"
        in found
    )


@pytest.mark.slow  # lm-eval imports for long
@pytest.mark.skipif(find_spec("lm_eval") is None, reason="needs lm-eval: pip install 'llmf_hydra[lm-eval]'")
def test_a_task_of_lm_eval_runs_on_the_same_model(
    plain: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    folder = tmp_path / "tasks"
    folder.mkdir()
    rows = [{"q": f"Question {n}", "choices": ["yes", "no"], "gold": n % 2} for n in range(8)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf8")
    (folder / "own.yaml").write_text(
        f"task: own_task\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {folder}/rows.jsonl}}}}\n"
        "test_split: test\noutput_type: multiple_choice\ndoc_to_text: '{{q}}:'\ndoc_to_choice: '{{choices}}'\n"
        "doc_to_target: gold\nmetric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\n",
        encoding="utf8",
    )
    words = ["job=evaluate", "evaluation.task=lm_eval:own_task", f"evaluation.task_dir={folder}"]
    out = run_job(tmp_path / "run", *words, "evaluation.n_shot=0", "model.infer_dtype=float32")
    samples = read(out / "questions.jsonl")
    accuracy = json.loads((out / "results.json").read_text())["results"]["own_task"]["acc,none"]
    assert len(samples) == 8 and accuracy == sum(line["acc"] for line in samples) / 8
    assert json.loads((out / "metrics.json").read_text())["own_task/acc,none"] == accuracy
    with pytest.raises(Refused, match="lm-eval knows no task gone"):
        run_job(
            tmp_path / "gone", "job=evaluate", "evaluation.task=lm_eval:gone", f"evaluation.task_dir={folder}"
        )
