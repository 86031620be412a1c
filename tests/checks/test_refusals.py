"""Wrong configs, each through the real command line: exit code 2, what is wrong and what to do, torch not imported.

One process imports the launcher once and forks a child for each config, so that a hundred of them take seconds.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.command_line import Cli
from support.forked_cli import Answer, answers
from support.wrong_configs import WRONG, WRONG_ENVIRONMENT

from llmf_hydra.checks.values import GPU_DRIVERS
from llmf_hydra.config.choices import JOBS, TRAINING_JOBS

WORDS = {name: (words, {}) for name, (words, _) in WRONG.items()} | {
    f"environment: {name}": (["model=tiny"], env) for name, (env, _) in WRONG_ENVIRONMENT.items()
}
NAMED = {name: named for name, (_, named) in WRONG.items()} | {
    f"environment: {name}": named for name, (_, named) in WRONG_ENVIRONMENT.items()
}


@pytest.fixture(scope="module")
def refused(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Answer]:
    folder = tmp_path_factory.mktemp("refusals")
    found = dict(zip(WORDS, answers(list(WORDS.values()), folder, environment), strict=True))
    assert list(folder.iterdir()) == [], "a refused config left something on disk"
    return found


@pytest.mark.parametrize("name", list(NAMED))
def test_a_wrong_config_is_refused(name: str, refused: dict[str, Answer]) -> None:
    code, said, torch = refused[name]
    assert code == 2, said
    assert "Traceback" not in said and not torch
    assert "refused: nothing was started" in said and "append to your config" not in said
    for part in NAMED[name]:
        assert part in said


def test_there_are_at_least_sixty() -> None:
    assert len(NAMED) >= 60


def test_all_problems_come_in_one_answer(tmp_path: Path, environment: dict[str, str]) -> None:
    words = ["stage=dpo", "method.lora_rnk=8", "rlhf.pref_beta=-1", "model=tyni", "training.seed=x"]
    done = subprocess.run([sys.executable, "-m", "llmf_hydra", *words], cwd=tmp_path, env=environment, check=False,
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 2 and done.stdout == ""
    assert "(4 problems)" in done.stderr and all(word.split("=")[0] in done.stderr for word in words[1:])


def test_a_wrong_value_hides_no_other_problem(tmp_path: Path, environment: dict[str, str]) -> None:
    """What names and files the other words give is looked at; what depends on the wrong value is not."""
    cases = [
        (["data.template=nope", "training.logging_steps=bad", "data.dataset=gone.jsonl"], 3,
         ["data.template=nope", "training.logging_steps=bad", "data.dataset=gone.jsonl: there is no such file"]),
        (["data.streaming=perhaps", "data.buffer_size=7"], 1, ["data.streaming=perhaps"]),
        (["stage=dop", "data.template=nope"], 1, ["stage=dop"]),
    ]  # fmt: skip
    found = answers([(["model=tiny", *words], {}) for words, _, _ in cases], tmp_path, environment)
    for (_, count, parts), (code, said, torch) in zip(cases, found, strict=True):
        assert code == 2 and not torch and said.count("\n  ") == count, said
        assert all(part in said for part in parts), said


def test_problems_across_parameters_come_in_one_answer_too(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    words = ["stage=sft", "rlhf.pref_beta=0.2", "training.warmup_steps=5", "training.warmup_ratio=0.1",
             "data.dataset=demo_instrct"]  # fmt: skip
    done = subprocess.run([sys.executable, "-m", "llmf_hydra", *words], cwd=tmp_path, env=environment, check=False,
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 2 and "(3 problems)" in done.stderr


def test_allow_extra_args_warns_instead(tmp_path: Path, environment: dict[str, str]) -> None:
    words = ["stage=sft", "model=tiny", "job=check", "rlhf.pref_beta=0.2"]
    (answer,) = answers([(words, {"ALLOW_EXTRA_ARGS": "1"})], tmp_path, environment)
    assert answer.code == 0 and "warning: rlhf.pref_beta=0.2: has no effect" in answer.said


@pytest.mark.skipif(any(map(Path.exists, GPU_DRIVERS)), reason="needs a machine without a GPU")
def test_gpus_are_named_in_vain_where_there_are_none(tmp_path: Path, environment: dict[str, str]) -> None:
    run = ["stage=sft", "model=tiny"]
    found = answers([([*run, "launch.cuda_visible_devices=99"], {}), ([*run, "launch.cuda_visible_devices=''"], {}),
                     (run, {"CUDA_VISIBLE_DEVICES": "99"})], tmp_path, environment)  # fmt: skip
    assert [answer.code for answer in found] == [2, 0, 0], found
    assert "launch.cuda_visible_devices=99: has no effect: this machine has no GPU" in found[0].said


def test_a_run_of_many_times_the_memory_is_refused_by_the_check_and_by_the_training(
    cli: Cli, tmp_path: Path
) -> None:
    batch = "training.per_device_train_batch_size=1000000"
    endless = ["data.streaming=true", "training.max_steps=1", "data.val_size=0", "training.eval_strategy=no"]
    for job in ("check", "train"):
        done = cli("stage=sft", "model=tiny", f"job={job}", batch, *endless)
        assert done.returncode == 2 and "found nothing" not in done.stdout, done.stderr
        assert re.search(f"{batch}: the run needs about [\\d,]+ GiB of memory", done.stderr)
    assert not list(tmp_path.glob("outputs/sft/*"))


ONLY_TRAINING_NEEDS = {  # key that is asked for -> words of a run that lacks it
    "rlhf.reward_model": ["stage=ppo"],
    "training.eval_strategy": ["stage=sft", "training.eval_strategy=epoch", "data.dataset=demo_instruct"],
    "data.streaming": ["stage=sft", "data.streaming=true", "data.dataset=demo_instruct"],
    "training.per_device_train_batch_size": [
        "stage=kto", "training.per_device_train_batch_size=1", "training.gradient_accumulation_steps=1"
    ],
    "rlhf.ref_model": ["stage=dpo", "rlhf.ref_model=./none"],
    "training.resume_from_checkpoint": ["stage=sft", "training.resume_from_checkpoint=./none"],
}  # fmt: skip


def test_a_job_is_not_asked_for_what_only_training_needs(
    cli: Cli, tmp_path: Path, environment: dict[str, str]
) -> None:
    """`check` foresees a training and is asked, `preview` looks at rows; the others are refused for what they are."""
    planned = [job for job, info in JOBS.items() if info.planned]
    cases = [(job, key, words) for key, words in ONLY_TRAINING_NEEDS.items() for job in TRAINING_JOBS]
    cases += [(job, *next(iter(ONLY_TRAINING_NEEDS.items()))) for job in planned]
    lines = [(["model=tiny", f"job={job}", *words], {}) for job, _, words in cases]
    wrong = []
    for (job, key, words), answer in zip(cases, answers(lines, tmp_path, environment), strict=True):
        asked, problems = f"  {key}" in answer.said, answer.said.count("\n  ")
        expected = {"train": (2, True), "check": (2, True), "preview": (0, False)}.get(job, (2, False))
        if (answer.code, asked) != expected or (JOBS[job].planned and problems != 1):
            wrong.append((job, words, answer))
    assert not wrong, wrong
    shown = cli("job=preview", "stage=ppo", "model=tiny", "job.preview_rows=1", "hydra.run.dir=shown")
    assert shown.returncode == 0, shown.stderr
    assert (tmp_path / "shown" / "preview.txt").read_text(encoding="utf8").strip()
