"""stage=grpo in longer proofs: beside configs, stopped early, led by its reward, over two processes."""

import json
import re
import shlex
from pathlib import Path

import pytest
import torch
from support.command_line import Cli, log_of
from support.grpo_runs import LETTERS, SHORT, grouped, sums, table

pytestmark = pytest.mark.slow
FALLING = """
calls = 0


def falling(prompts, completions):
    global calls
    calls += 1
    return [i / 100 - calls for i, _ in enumerate(completions)]
"""
EXPERIMENT = """# @package _global_
defaults: [{override /stage: grpo}, {override /model: tiny}]
rlhf: {rewards: ["python:mine:share"], num_generations: 4}
"""
HELD_OUT = ["training.eval_strategy=steps", "training.eval_steps=1", "data.val_size=4",
            "training.per_device_eval_batch_size=4"]  # fmt: skip


def test_a_reward_beside_the_configs_works_everywhere(cli: Cli, tmp_path: Path) -> None:
    """From another folder: a run, its repetition from a third, and a study."""
    for name in ("conf/experiment", "work", "away"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "vowels.yaml").write_text(EXPERIMENT, encoding="utf8")
    work = tmp_path / "work"
    sums(work)
    (work / "letters.py").rename(tmp_path / "conf" / "mine.py")
    words = ["--config-dir", "../conf", "experiment=vowels", *(w for w in SHORT[1:] if "rewards" not in w)]
    done = cli(*words, "hydra.run.dir=run", cwd=work)
    assert done.returncode == 0, done.stderr
    files = json.loads((work / "run" / "manifest.json").read_text(encoding="utf8"))["files"]["rewards"]
    assert files["share"]["path"] == str(tmp_path / "conf") and "mine.py" in files["share"]["files"]
    again = cli("reproduce", str(work / "run"), "--out", str(work / "again"), cwd=tmp_path / "away")
    assert again.returncode == 0 and "identical" in again.stdout, again.stdout + again.stderr
    assert table(work / "again") == table(work / "run")
    study = cli("-m", *words, "rlhf.beta=0,0.1", "hydra.sweep.dir=study", cwd=work)
    assert study.returncode == 0, study.stdout + study.stderr
    assert len(list((work / "study").rglob("completions"))) == 2


def test_a_run_stops_where_its_reward_has_ceased_to_rise(cli: Cli, tmp_path: Path) -> None:
    """A reward that falls with each call: the first evaluation is the best, and two more are waited for."""
    sums(tmp_path)
    (tmp_path / "letters.py").write_text(LETTERS + FALLING, encoding="utf8")
    done = cli(*SHORT, *HELD_OUT, "model=tiny", "rlhf.rewards=[python:letters:falling]", "training.max_steps=9",
               "training.metric_for_best_model=eval_reward", "training.early_stopping_patience=2",
               "training.load_best_model_at_end=true", "training.save_strategy=steps", "training.save_steps=1",
               "hydra.run.dir=run")  # fmt: skip
    assert done.returncode == 0, done.stderr
    held = [line for line in log_of(tmp_path / "run") if "eval_reward" in line]
    assert [line["step"] for line in held] == [1, 2, 3]
    assert held[0]["eval_reward"] > held[1]["eval_reward"] > held[2]["eval_reward"]
    first = tmp_path / "run" / "checkpoint-1" / "adapter_model.safetensors"
    assert first.read_bytes() == (tmp_path / "run" / "final" / "adapter_model.safetensors").read_bytes()


@pytest.mark.parametrize("varied", [
    "rlhf.beta=0,0.5", "rlhf.num_generations=2,4", "training.learning_rate=0.01,0.05",
])  # fmt: skip
def test_a_study_finds_the_greatest_reward_and_says_how_to_repeat_it(
    varied: str, cli: Cli, tmp_path: Path
) -> None:
    sums(tmp_path)
    words = [word for word in SHORT if not word.startswith(varied.partition("=")[0])]
    done = cli("-m", *words, *HELD_OUT, "model=tiny", "training.max_steps=3", varied, "hydra.sweep.dir=study",
               "tracking.objective=eval_reward", "tracking.direction=maximize")  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = [json.loads((tmp_path / "study" / n / "metrics.json").read_text(encoding="utf8"))["eval_reward"]
             for n in "01"]  # fmt: skip
    assert found[0] != found[1]
    best = re.search(r"best: trial (\d), eval_reward \S+; repeat it with\n +(.+)", done.stdout)
    assert best and int(best[1]) == found.index(max(found)), done.stdout
    again = cli(*shlex.split(best[2])[1:], "hydra.run.dir=best")
    assert again.returncode == 0, again.stderr
    assert log_of(tmp_path / "best") == log_of(tmp_path / "study" / best[1])


def test_two_processes_share_groups_and_no_random_numbers(cli: Cli, tmp_path: Path) -> None:
    """A group lies half in each process: its answers differ, its advantages are those of the whole group, and a run
    that failed goes on to the result of one that didn't."""
    sums(tmp_path)
    words = [*(word for word in SHORT if "batch_size" not in word), "model=tiny", "launch.nproc_per_node=2",
             "training.per_device_train_batch_size=2", "training.max_steps=4", "training.save_strategy=steps",
             "training.save_steps=2", "data.eval_dataset=null"]  # fmt: skip
    whole = cli(*words, "hydra.run.dir=whole", timeout=240)
    assert whole.returncode == 0, whole.stderr
    rows = table(tmp_path / "whole")
    assert [row["step"] for row in rows] == [step for step in range(4) for _ in range(4)]
    for start in range(0, 16, 4):
        assert len({row["row"] for row in rows[start : start + 4]}) == 1
        assert len({row["completion"] for row in rows[start : start + 4]}) == 4
    rewards, advantages = grouped(rows, "reward"), grouped(rows, "advantage")
    expected = (rewards - rewards.mean(dim=1, keepdim=True)) / (rewards.std(dim=1, keepdim=True) + 1e-4)
    torch.testing.assert_close(advantages, expected, atol=1e-5, rtol=1e-4)
    broken = LETTERS.replace("    return [sum", "    count['calls'] += 1\n    if count['calls'] == 4:\n"
                                               "        raise ValueError('no more')\n    return [sum")  # fmt: skip
    (tmp_path / "letters.py").write_text(f"count = {{'calls': 0}}\n{broken}", encoding="utf8")
    failed = cli(*words, "hydra.run.dir=run", timeout=240)
    assert failed.returncode == 1 and "raised ValueError: no more" in failed.stderr, failed.stderr
    (tmp_path / "letters.py").write_text(LETTERS, encoding="utf8")
    resumed = cli("resume", "run", timeout=240)
    assert resumed.returncode == 0, resumed.stderr
    assert table(tmp_path / "run") == rows
    assert log_of(tmp_path / "run") == log_of(tmp_path / "whole")
    final = [tmp_path / name / "final" / "adapter_model.safetensors" for name in ("run", "whole")]
    assert final[0].read_bytes() == final[1].read_bytes()
