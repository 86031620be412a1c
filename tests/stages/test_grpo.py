"""stage=grpo from the real command line: a user's own reward, what a run leaves, what stops it, what is refused."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.command_line import Cli, log_of
from support.forked_cli import answers
from support.grpo_runs import LETTERS, SHORT, sums, table
from support.job_runs import refused

from llmf_hydra.runs.manifest import digest_of_file

METRICS = {"reward", "reward_std", "rewards/share/mean", "rewards/share/std", "frac_reward_zero_std", "entropy", "kl",
           "clip_ratio/region_mean", "completions/mean_length", "completions/clipped_ratio", "loss"}  # fmt: skip
HELD_OUT = ["training.eval_strategy=steps", "training.eval_steps=2", "data.val_size=4",
            "training.per_device_eval_batch_size=4"]  # fmt: skip


@dataclass(frozen=True)
class Run:
    """What a command printed, and the folder it left."""

    done: "subprocess.CompletedProcess[str]"
    out: Path


@pytest.fixture(scope="module")
def run(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Three steps of GRPO on sums, with a reward of the user's own, its KL, and an evaluation."""
    cwd = tmp_path_factory.mktemp("grpo")
    sums(cwd)
    words = [*SHORT, *HELD_OUT, "model=tiny", "rlhf=grpo", "training.max_steps=3", "hydra.run.dir=run",
             "training.save_strategy=steps", "training.save_steps=2"]  # fmt: skip
    done = subprocess.run([sys.executable, "-m", "llmf_hydra", *words], cwd=cwd, env=environment, text=True,
                          capture_output=True, check=False, timeout=240)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return Run(done, cwd / "run")


def test_a_run_leaves_its_metrics_answers_and_the_digest_of_its_reward(run: Run) -> None:
    lines = log_of(run.out)
    assert all(line.keys() >= METRICS for line in lines if "loss" in line)
    assert re.search(r"loss \S+  reward \S+  no spread 0\.\d\d", run.done.stdout)
    assert "reward" in run.done.stdout and "eval_reward" in run.done.stdout
    held = [line for line in lines if "eval_reward" in line]
    assert held and {"eval_pass_at_1", "eval_pass_at_k", "eval_loss"} <= held[0].keys()
    assert [row["step"] for row in table(run.out)] == [0] * 8 + [1] * 8 + [2] * 8
    manifest = json.loads((run.out / "manifest.json").read_text(encoding="utf8"))
    digest = digest_of_file(run.out.parent / "letters.py")
    assert manifest["files"]["rewards"] == {
        "share": {"path": str(run.out.parent), "files": {"letters.py": digest}}
    }
    assert {"checkpoint-2", "final", "completions"} <= {file.name for file in run.out.iterdir()}
    assert not (run.out / "README.md").exists()  # TRL's card of a checkpoint


def test_samples_shows_no_command_to_the_terminal(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(run.out, out)
    (file, *_) = sorted((out / "completions").glob("*.parquet"))
    rows = [{**row, "completion": "\x1b[2J<b>\u202eyes"} for row in pq.read_table(file).to_pylist()]
    pq.write_table(pa.Table.from_pylist(rows), file)
    shown = subprocess.run([sys.executable, "-m", "llmf_hydra", "samples", str(out), "--step", "0"],
                           capture_output=True, text=True, check=True).stdout  # fmt: skip
    assert "\x1b" not in shown and "\u202e" not in shown and "\\x1b[2J<b>\\u202eyes" in shown


def test_samples_shows_best_and_worst_side_by_side(run: Run, cli: Cli, tmp_path: Path) -> None:
    def samples(*words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "llmf_hydra", "samples", *words],
            capture_output=True,
            text=True,
            check=False,
        )

    shown = samples(str(run.out), "--step", "1", "--groups", "2")
    assert shown.returncode == 0, shown.stderr
    rows = [row for row in table(run.out) if row["step"] == 1]
    assert (
        f"step 1: 8 answers to 2 prompts, mean reward {sum(row['reward'] for row in rows) / 8:.3f}"
        in shown.stdout
    )
    for group in (rows[:4], rows[4:]):
        best, worst = (pick(row["reward"] for row in group) for pick in (max, min))
        assert f"best: {best:.3f}" in shown.stdout and f"worst: {worst:.3f}" in shown.stdout
    assert [
        json.loads(line)
        for line in samples(str(run.out), "--step", "1", "--json").stdout.splitlines()
        if line
    ] == rows
    wrong = [((str(run.out), "--step", "9"), "answers came at 0, 1, 2"), ((str(tmp_path),), "is not a run folder"),
             ((str(run.out), "--last", "0"), "must be >= 1")]  # fmt: skip
    for words, told in wrong:
        refused = samples(*words)
        assert refused.returncode == 2 and told in refused.stderr, refused.stderr


def test_a_reward_that_fails_stops_the_run_and_a_mended_one_goes_on(cli: Cli, tmp_path: Path) -> None:
    """The checkpoint before it is kept; the resumed run ends as one that never failed."""
    sums(tmp_path)
    words = [*SHORT, "model=tiny", "training.max_steps=4", "training.save_strategy=steps", "training.save_steps=2",
             "data.eval_dataset=null"]  # fmt: skip
    whole = cli(*words, "hydra.run.dir=whole")
    assert whole.returncode == 0, whole.stderr
    broken = LETTERS.replace("    return [sum", "    count['calls'] += 1\n    if count['calls'] == 4:\n"
                                               "        raise ValueError('no more')\n    return [sum")  # fmt: skip
    (tmp_path / "letters.py").write_text(f"count = {{'calls': 0}}\n{broken}", encoding="utf8")
    failed = cli(*words, "hydra.run.dir=run")
    assert failed.returncode == 1 and "Traceback" not in failed.stderr, failed.stderr
    assert "rlhf.rewards: share raised ValueError: no more" in failed.stderr
    assert (
        "letters.py line" in failed.stderr
        and "./sums.jsonl row" in failed.stderr
        and "llmf resume" in failed.stderr
    )
    assert sorted(file.name for file in (tmp_path / "run").glob("checkpoint-*")) == ["checkpoint-2"]
    (tmp_path / "letters.py").write_text(LETTERS, encoding="utf8")
    resumed = cli("resume", "run")
    assert resumed.returncode == 0, resumed.stderr
    assert table(tmp_path / "run") == table(tmp_path / "whole")
    weights = [
        (tmp_path / name / "final" / "adapter_model.safetensors").read_bytes() for name in ("whole", "run")
    ]
    assert weights[0] == weights[1]
    assert log_of(tmp_path / "run") == log_of(tmp_path / "whole")


@pytest.mark.slow
def test_a_users_reward_works_in_a_study_and_after_reproduce(run: Run, cli: Cli, tmp_path: Path) -> None:
    again = cli("reproduce", str(run.out), "--out", str(tmp_path / "again"), cwd=run.out.parent)
    assert again.returncode == 0 and "identical" in again.stdout, again.stdout + again.stderr
    assert table(tmp_path / "again") == table(run.out)
    sums(tmp_path)
    study = cli(
        "-m", *SHORT, "model=tiny", "training.max_steps=1", "rlhf.beta=0,0.1", "hydra.sweep.dir=study"
    )
    assert study.returncode == 0, study.stderr
    assert len(list((tmp_path / "study").rglob("completions"))) == 2
    file = run.out.parent / "letters.py"
    file.write_text(LETTERS.replace("aeiou", "xyz"), encoding="utf8")
    changed = cli("reproduce", str(run.out), "--out", str(tmp_path / "changed"), cwd=run.out.parent)
    file.write_text(LETTERS, encoding="utf8")
    assert "letters.py" in changed.stdout


@pytest.mark.slow
def test_ppo_takes_the_same_list(cli: Cli, tmp_path: Path) -> None:
    sums(tmp_path)
    words = [word for word in SHORT if "num_generations" not in word and "stage=" not in word]
    done = cli("stage=ppo", *words, "model=tiny", "hydra.run.dir=run",
               "rlhf.rewards=[{kind: python, function: letters:share, weight: 2},{kind: length, max: 3}]")  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [
        json.loads(line)
        for line in (tmp_path / "run" / "samples.jsonl").read_text(encoding="utf8").splitlines()
    ]
    for line in lines:
        vowels = sum(c in "aeiou" for c in line["response"]) / max(1, len(line["response"]))
        assert line["score"] == pytest.approx(2 * vowels - (line["tokens"] > 3), abs=1e-5)


SCHEMAS = {
    "odd": {"type": "strin"},
    "loop": {"$ref": "#"},
    "away": {"$ref": "http://a.b/c.json"},
    "lines": [1],
}
REFUSED: list[tuple[list[str], list[str]]] = [
    (["rlhf.rewards=null"], ["rlhf.rewards=null: stage=grpo needs a reward", "python:FUNCTION"]),
    (["rlhf.rewards=[exactmatch]"], ["rlhf.rewards=exactmatch", "did you mean 'exact_match'?"]),
    (["rlhf.rewards=[regex]"], ["needs its pattern; write regex:PATTERN"]),
    (["rlhf.rewards=[{kind: regex, pattern: '('}]"], ["is no regular expression"]),
    (["rlhf.rewards=[{kind: numeric, toleranse: 1}]"], ["is no option of numeric", "did you mean 'tolerance'?"]),
    (["rlhf.rewards=[{kind: numeric, weight: 0}]"], ["must be a number other than 0"]),
    (["rlhf.rewards=[{kind: numeric, weight: nan}]"], ["rlhf.rewards.weight=nan: must be a number other than 0"]),
    (["rlhf.rewards=[{kind: numeric, tolerance: nan}]"], ["must be >= 0 and finite"]),
    (["rlhf.rewards=[{kind: numeric, column: ''}]"], ["names no column"]),
    (["rlhf.rewards=[{numeric: 1}]"], ["a mapping without its kind", "write {kind: KIND"]),
    (["rlhf.rewards=[python:letters]"], ["names no function; write my_module:my_function or path/to"]),
    (["rlhf.rewards=[python:..letters:share]"], ["names no function"]),
    (["rlhf.rewards=[python:sub/none.py:share]"], ["there is no file", "sub/none.py"]),
    (["rlhf.rewards=[python:itertools:chain]"], ["itertools is Python's own"]),
    (["rlhf.rewards=[json_schema:odd.json]"], ["is no schema: 'strin' is not valid"]),
    (["rlhf.rewards=[json_schema:loop.json]"], ["refers to itself without end"]),
    (["rlhf.rewards=[json_schema:away.json]"], ["refers to http://a.b/c.json, and a schema must hold all"]),
    (["rlhf.rewards=[json_schema:lines.json]"], ["is no schema: it holds [1], where a mapping is due"]),
    (["rlhf.rewards=[json_schema:.]"], ["json_schema:.: cannot be read: Is a directory"]),
    (["rlhf.rewards=[numeric, numeric]"], ["holds numeric twice"]),
    (["rlhf.rewards=[numeric:3]"], ["takes no argument"]),
    (["rlhf.rewards=[python:letters:sharp]"], ["letters.py defines no sharp; did you mean 'share'?"]),
    (["rlhf.rewards=[python:leters:share]"],
     ["there is no module leters", "put leters.py where the command is started", "path/to/leters.py:share"]),
    (["rlhf.rewards=[json_schema:none.json]"], ["json_schema:none.json: there is no such file"]),
    (["rlhf.rewards=[model:./none]"], ["rlhf.rewards (model)=./none: there is no such folder"]),
    (["rlhf.rewards=[service:here]"], ["is no URL"]),
    (["rlhf.num_generations=3"], ["rlhf.num_generations=3: answers are generated 8 at once", "multiple of 3"]),
    (["training.per_device_eval_batch_size=6", *HELD_OUT[:3]], ["holds no whole groups of rlhf.num_generations=4"]),
    (["generation.do_sample=false"], ["all answers to a prompt would be the same"]),
    (["generation.max_new_tokens=0"], ["generation.max_new_tokens=0"]),
    (["generation.backend=vllm"], ["generation.backend=vllm: needs the package vllm", "llmf_hydra[vllm]"]),
    (["rlhf.ref_model=./x"], ["rlhf.beta=0", "set rlhf.beta above 0"]),
    (["rlhf.loss_type=cispo"], ["rlhf.loss_type=cispo needs it"]),
    (["rlhf.loss_type=rloo", "rlhf.scale_rewards=none"], ["rlhf.scale_rewards=none: has no effect"]),
    (["rlhf.multi_objective_aggregation=normalize_then_sum"], ["has no effect with one reward"]),
    (["data.streaming=true", "data.buffer_size=4"], ["stage=grpo draws its prompts by their number"]),
    (["rlhf.reward_model=./x"], ["rlhf.reward_model=./x: has no effect"]),
    (["tracking.objective=eval_reward"], ["tracking.direction=minimize: would look for the smallest eval_reward"]),
    (["rlhf.epsilon=1.5"], ["rlhf.epsilon=1.5: must be in [0, 1]"]),
    (["rlhf.epsilon=0.1", "rlhf=dapo"], ["rlhf.epsilon=0.1: has no effect", "set rlhf.num_iterations"]),
]  # fmt: skip


def test_what_cannot_be_is_refused_before_torch(environment: dict[str, str], tmp_path: Path) -> None:
    sums(tmp_path)
    for name, schema in SCHEMAS.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(schema), encoding="utf8")
    found = answers([([*SHORT, "model=tiny", *words], {}) for words, _ in REFUSED], tmp_path, environment)
    for (words, told), answer in zip(REFUSED, found, strict=True):
        assert answer.code == 2 and not answer.torch, (words, answer.said)
        assert all(part in answer.said for part in told), (words, answer.said)


@pytest.mark.parametrize(("preset", "wanted"), [
    ("grpo", {"loss_type": "grpo", "beta": 0.04}), ("dr_grpo", {"loss_type": "dr_grpo", "scale_rewards": "none"}),
    ("dapo", {"loss_type": "dapo", "epsilon_high": 0.28, "mask_truncated_completions": True}),
    ("rloo", {"loss_type": "rloo", "beta": 0.05}),
])  # fmt: skip
def test_a_preset_says_what_its_paper_does(preset: str, wanted: dict[str, object]) -> None:
    from support.stage_runs import composed

    rlhf = composed("stage=grpo", f"rlhf={preset}").rlhf
    assert {name: getattr(rlhf, name) for name in wanted} == wanted


def test_math_is_refused_where_its_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "math_verify", None)
    (said,) = refused("stage=grpo", "rlhf.rewards=[math]")
    assert "needs the package math_verify; pip install 'llmf_hydra[rewards]'" in said


def test_bounds_act_where_answers_are_trained_on_again() -> None:
    assert refused("stage=grpo", "rlhf=dapo") == []  # whose own bound is no word of the user's
    for again in ("rlhf.num_iterations=2", "rlhf.steps_per_generation=2"):
        assert refused("stage=grpo", "rlhf.epsilon=0.1", again) == [], again
    (said,) = refused("stage=grpo", "rlhf.delta=2")
    assert said.startswith("rlhf.delta=2: has no effect: each answer is trained on once")


def test_vllm_is_refused_where_it_is_not_installed() -> None:
    (said,) = refused("stage=grpo", "generation.backend=vllm")
    assert said.startswith("generation.backend=vllm") and "pip install 'llmf_hydra[vllm]'" in said
