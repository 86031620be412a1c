"""Studies from the real command line: killed and resumed, shared, pruned, spread over processes and schedulers."""

import json
import random
import re
import shlex
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from support.command_line import Cli
from support.killing import MARK, kill_all

from llmf_hydra.runs import warm

ROOT = Path(__file__).resolve().parents[2]

SHORT = [
    "stage=dpo",
    "model=tiny",
    "training.learning_rate=0.02",
    "training.logging_steps=1",
    "training.eval_strategy=no",
    "training.save_strategy=no",
    "data.val_size=0",
    "data.max_samples=16",
]


def trials(folder: Path) -> dict[int, dict[str, Any]]:
    """The trials of a sweep's account, by number."""
    account = json.loads((folder / "sweep.json").read_text(encoding="utf8"))
    return {trial["number"]: trial for trial in account["trials"]}


def trained_steps(folder: Path) -> int:
    """Optimizer steps that all workers of a sweep have taken, those that were lost and taken again included."""
    logs = (log.read_text(encoding="utf8") for log in folder.glob("*/worker.log"))
    return sum(len(re.findall(r"^step \d+/\d+  loss", log, re.MULTILINE)) for log in logs)


def own_server(environment: dict[str, str]) -> dict[str, str]:
    """The environment without the server of the tests: a sweep starts its own."""
    return {name: value for name, value in environment.items() if name != warm.WORKERS}


KILLED = [
    *SHORT,
    "training.max_steps=10",
    "training.save_strategy=steps",
    "training.save_steps=1",
    "training.save_total_limit=1",
    "rlhf.pref_beta=0.05,0.1",
]


@pytest.mark.parametrize(
    ("kills", "seeds", "trackers"),
    [
        pytest.param(1, "1,2", [], id="once"),
        pytest.param(
            5,
            "1,2,3,4",
            ["tracking=[files,mlflow,wandb]"],
            id="five",
            marks=[pytest.mark.slow, pytest.mark.timeout(1200)],
        ),
    ],
)
def test_a_study_that_is_killed_goes_on_until_each_trial_is_done_once(
    environment: dict[str, str], tmp_path: Path, kills: int, seeds: str, trackers: list[str]
) -> None:
    mark = str(tmp_path)
    env = own_server(environment) | {MARK: mark}  # a server that dies with the rest
    words = [*KILLED, *trackers, f"training.seed={seeds}", "hydra.sweep.dir=study"]
    command = [sys.executable, "-m", "llmf_hydra", "-m", *words]
    chance, study = random.Random(kills), tmp_path / "study"
    steps = 2 * 10 * len(seeds.split(","))

    try:
        for number in range(kills):
            sweep = subprocess.Popen(
                command, cwd=tmp_path, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
            )
            target = chance.randint(steps * number // (kills + 1), steps * (number + 1) // (kills + 1))
            while trained_steps(study) < target and sweep.poll() is None:
                time.sleep(0.05)
            time.sleep(chance.random() / 3)
            kill_all(mark)
            assert sweep.wait() == -9, sweep.communicate()
    finally:
        kill_all(mark)

    done = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=280 * kills, check=False
    )
    assert done.returncode == 0, done.stderr
    undisturbed = trials(study)
    assert {trial["status"] for trial in undisturbed.values()} == {"done"} and len(undisturbed) == steps // 10
    for number in undisturbed:
        logged = [json.loads(line) for line in (study / str(number) / "log.jsonl").read_text().splitlines()]
        assert [line["step"] for line in logged if "loss" in line] == list(range(1, 11))
    assert trained_steps(study) <= 1.1 * steps
    if trackers:
        children = [run for run in mlflow_runs(tmp_path) if "mlflow.parentRunId" in run.data.tags]
        assert len(children) == len(undisturbed) == len(mlflow_runs(tmp_path)) - 1
        ids = {number: wandb_ids(study / str(number)) for number in undisturbed}
        assert all(len(found) == 1 for found in ids.values())
        assert len(set().union(*ids.values())) == len(ids)

    again = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert again.returncode == 0 and "0 of" in again.stdout
    assert trials(study) == undisturbed and trained_steps(study) <= 1.1 * steps


def mlflow_runs(folder: Path) -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder / 'outputs' / 'mlflow.db'}")
    return list(client.search_runs([experiment.experiment_id for experiment in client.search_experiments()]))


def wandb_ids(run: Path) -> set[str]:
    return {folder.name.rpartition("-")[2] for folder in run.glob("wandb/offline-run-*")}


@pytest.mark.slow
def test_two_launchers_share_a_study(environment: dict[str, str], tmp_path: Path) -> None:
    words = [*SHORT, "training.max_steps=1", "training.seed=range(0,16)", "hydra.sweeper.study_name=shared"]
    words += [f"hydra.sweeper.storage=sqlite:///{tmp_path}/shared.db"]
    sweeps = [
        subprocess.Popen(
            [sys.executable, "-m", "llmf_hydra", "-m", *words, f"hydra.sweep.dir={name}"],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in ("here", "there")
    ]
    for sweep in sweeps:
        _, said = sweep.communicate(timeout=280)
        assert sweep.returncode == 0, said
    own = [
        {int(out.name) for out in (tmp_path / name).iterdir() if out.is_dir()} for name in ("here", "there")
    ]
    assert own[0] | own[1] == set(range(16)) and not own[0] & own[1] and own[0] and own[1]
    seeds = {
        json.loads((tmp_path / name / str(number) / "manifest.json").read_text())["seeds"]["seed"]
        for name, numbers in zip(("here", "there"), own, strict=True)
        for number in numbers
    }
    assert seeds == set(range(16))


STUDY = [
    "--config-name",
    "dpo_beta_rank_tpe",
    *SHORT[1:],
    "data.val_size=8",
    "data.max_samples=32",
    "training.max_steps=6",
    "training.eval_strategy=steps",
    "training.eval_steps=1",
    "tracking=files",
]


@pytest.mark.slow
def test_a_study_prunes_and_its_best_command_repeats_the_best_value(cli: Cli, tmp_path: Path) -> None:
    done = cli(*STUDY, "hydra.sweep.dir=study")
    assert done.returncode == 0, done.stderr
    found = trials(tmp_path / "study")
    statuses = [trial["status"] for trial in found.values()]
    assert len(found) == 12 and set(statuses) == {"done", "pruned"} and statuses.count("pruned") >= 2
    pruned = next(trial for trial in found.values() if trial["status"] == "pruned")
    manifest = json.loads((Path(pruned["out"]) / "manifest.json").read_text())
    assert manifest["status"] == "pruned" and "pruned at step" in manifest["reason"]
    assert not (Path(pruned["out"]) / "final").exists()

    best = max(
        (trial for trial in found.values() if trial["status"] == "done"), key=lambda trial: trial["objective"]
    )
    command = shlex.split(done.stdout.rstrip().splitlines()[-1])
    assert command[0] == "llmf-hydra" and f"best: trial {best['number']}" in done.stdout
    once = cli(*command[1:], "hydra.run.dir=once")
    assert once.returncode == 0, once.stderr
    assert (
        json.loads((tmp_path / "once" / "manifest.json").read_text())["objective"]["value"]
        == best["objective"]
    )


def test_another_config_data_or_code_is_refused_with_the_difference(cli: Cli, tmp_path: Path) -> None:
    rows = [{"instruction": f"q{i}", "chosen": "yes", "rejected": "no"} for i in range(8)]
    data = tmp_path / "elsewhere.jsonl"
    index: dict[str, dict[str, Any]] = {"mine": {"file_name": str(data), "ranking": True}}
    (tmp_path / "dataset_info.json").write_text(json.dumps(index), encoding="utf8")
    data.write_text("\n".join(map(json.dumps, rows)), encoding="utf8")
    words = [
        *SHORT,
        "data.dataset=mine",
        f"data.dataset_dir={tmp_path}",
        "training.max_steps=1",
        "hydra.sweep.dir=study",
        "training.seed=1,2",
    ]
    assert cli("-m", *words).returncode == 0
    before = trials(tmp_path / "study")

    other = cli("-m", *words, "optimizer.weight_decay=0.5")
    assert other.returncode == 2 and "optimizer.weight_decay: " in other.stderr and " → 0.5" in other.stderr
    space = cli("-m", *words, "training.seed=1,2,3")
    assert space.returncode == 2 and "holds the study study already, whose space is" in space.stderr
    data.write_text(data.read_text() + "\n" + json.dumps(rows[0]), encoding="utf8")
    changed = cli("-m", *words)
    assert changed.returncode == 2 and "mine: elsewhere.jsonl" in changed.stderr
    data.write_text("\n".join(map(json.dumps, rows)), encoding="utf8")
    clone = tmp_path / "clone"
    for folder in ("llmf_hydra", "hydra_plugins", "conf", "data", "sweeps"):
        shutil.copytree(ROOT / folder, clone / folder, ignore=shutil.ignore_patterns("__pycache__"))
    with (clone / "llmf_hydra" / "training" / "losses.py").open("a", encoding="utf8") as source:
        source.write("# changed\n")
    code = cli("-m", *words, env={"PYTHONPATH": str(clone)})
    assert code.returncode == 2 and "another state of training/losses.py;" in code.stderr
    index["mine"]["num_samples"] = 8
    (tmp_path / "dataset_info.json").write_text(json.dumps(index), encoding="utf8")
    described = cli("-m", *words)
    assert described.returncode == 2 and "mine: dataset_info.json" in described.stderr
    assert trials(tmp_path / "study") == before
    allowed = cli("-m", *words, "hydra.sweeper.allow_changes=true")
    assert allowed.returncode == 0 and trials(tmp_path / "study") == before


@pytest.mark.slow
def test_a_failed_trial_is_tried_again_and_too_many_end_the_study(cli: Cli, tmp_path: Path) -> None:
    failing = [*SHORT, "training.max_steps=2", "training.learning_rate=1e25"]
    done = cli("-m", *failing, "training.seed=1", "hydra.sweeper.retries=1", "hydra.sweep.dir=retried")
    assert done.returncode == 1 and done.stdout.count("tried again") == 1
    log = (tmp_path / "retried" / "0" / "worker.log").read_text(encoding="utf8")
    assert log.count("lower training.learning_rate") == 2

    done = cli("-m", *failing, "training.seed=1,2,3", "hydra.sweeper.max_failures=0", "hydra.sweep.dir=ended")
    assert done.returncode == 1 and "hydra.sweeper.max_failures=0" in done.stdout
    assert [trial["status"] for trial in trials(tmp_path / "ended").values()] == [
        "failed",
        "waiting",
        "waiting",
    ]
    more = cli("-m", *failing, "training.seed=1,2,3", "hydra.sweep.dir=ended")  # what failed runs again
    assert more.returncode == 1
    assert [trials(tmp_path / "ended")[n]["attempt"] for n in range(3)] == [2, 1, 1]


@pytest.mark.slow
def test_trials_side_by_side_share_the_cores_and_reach_the_same(
    environment: dict[str, str], tmp_path: Path
) -> None:
    words = [*SHORT, "training.max_steps=2", "rlhf.pref_beta=0.05,0.1,0.2"]
    words.append("launch.omp_num_threads=1")
    for more in (["hydra.sweep.dir=one"], ["hydra.sweep.dir=two", "hydra.sweeper.n_jobs=2"]):
        done = subprocess.run(
            [sys.executable, "-m", "llmf_hydra", "-m", *words, *more],
            cwd=tmp_path,
            env=own_server(environment),  # with the threads of its trials
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    for number in range(3):
        weights = [
            tmp_path / name / str(number) / "final" / "adapter_model.safetensors" for name in ("one", "two")
        ]
        assert weights[0].read_bytes() == weights[1].read_bytes()
    begun = {n: (trial["started"], trial["ended"]) for n, trial in trials(tmp_path / "two").items()}
    assert begun[1][0] < begun[0][1]  # the second began before the first had ended


@pytest.mark.slow
def test_a_full_disk_ends_a_study_that_goes_on_when_there_is_room(
    small_disk: Path, cli: Cli, tmp_path: Path
) -> None:
    words = ["-m", *SHORT, "job=check", "training.seed=1,2", "hydra.sweep.dir=disk/study"]
    filled = small_disk / "filled"
    filled.write_bytes(bytes(2**20))
    refused = cli(*words)
    assert (
        refused.returncode == 2 and "disk/study: cannot be written: No space left on device" in refused.stderr
    )
    filled.unlink()
    shutil.rmtree(small_disk / "study", ignore_errors=True)

    assert cli(*words, "hydra.sweeper.timeout=1e-6").returncode == 0  # plans, and starts nothing
    with filled.open("wb") as file, suppress(OSError):
        file.write(bytes(shutil.disk_usage(small_disk).free - 8192))
    ended = cli(*words)
    assert ended.returncode == 1 and "Traceback" not in ended.stderr
    assert "study cannot be written: No space left on device" in ended.stderr
    assert "go on with: llmf sweep resume disk/study" in ended.stderr
    filled.unlink()
    assert cli("sweep", "resume", "disk/study", "hydra.sweeper.timeout=null").returncode == 0
    assert {trial["status"] for trial in trials(small_disk / "study").values()} == {"done"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["hydra.sweeper.sampler=tpo", "training.seed=1,2"], "did you mean 'tpe'?"),
        (["hydra.sweeper.sampler=tpe", "training.seed=1,2"], "hydra.sweeper.n_trials"),
        (["rlhf.pref_beta=interval(0.1,1)"], "is an interval, and a grid tries single values"),
        (
            ["rlhf.pref_beta=interval(1,0.1)", "hydra.sweeper.sampler=random", "hydra.sweeper.n_trials=2"],
            "empty",
        ),
        (["training.seed=1,2", "hydra.sweeper.storage=somewhere"], "is no URL of a storage"),
        (
            ["training.seed=1,2", "hydra.sweeper.storage=postgresql://me:secretpass@nowhere/db"],
            "cannot be opened",
        ),
        (["model.hf_hub_token=hf_secretpass1,hf_secretpass2"], "is a secret"),
        (["training.seed=1", "hydra.sweeper.sampler=random", "hydra.sweeper.n_trials=2"], "nothing varies"),
        (["training.seed=1,2", "hydra.sweeper.n_jobs=0"], "must be at least 1"),
        (["training.seed=1,2", "hydra.sweeper.pruner=medan"], "did you mean 'median'?"),
        (["training.seed=1,2", "hydra.sweeper.constraints=['x<3']"], "write metric<=number"),
        (["training.seed=1,2", "hydra.sweeper.constraints=['x<=1.2.3']"], "write metric<=number"),
        (["rlhf.pref_beta=0.1,0.2,0.10"], "rlhf.pref_beta=0.1: is there twice"),
        (["training.seed=range(5,1)"], "training.seed=range(5,1): gives no value to try"),
        (["training.seed=1,2", "hydra.sweep.subdir=x"], "hydra.sweep.subdir=x: is not free"),
    ],
)
def test_a_wrong_study_is_refused_before_anything_is_written(
    cli: Cli, tmp_path: Path, words: list[str], said: str
) -> None:
    done = cli("-m", *SHORT, *words, "hydra.sweep.dir=study")
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert "secretpass" not in done.stderr and not (tmp_path / "study").exists()


@pytest.mark.slow
def test_an_objective_that_is_never_logged_fails_its_trials(cli: Cli, tmp_path: Path) -> None:
    words = [*SHORT, "training.max_steps=1", "training.seed=1,2", "tracking.objective=eval_los"]
    done = cli("-m", *words, "hydra.sweep.dir=study")
    assert done.returncode == 1
    found = trials(tmp_path / "study").values()
    assert {trial["status"] for trial in found} == {"failed"}
    assert all("eval_los was never logged; logged are " in trial["reason"] for trial in found)
    dry = cli("-m", *words, "job=check", "hydra.sweep.dir=dry")  # a check reaches no value
    assert dry.returncode == 0 and {trial["status"] for trial in trials(tmp_path / "dry").values()} == {
        "done"
    }


@pytest.mark.slow
def test_several_objectives_have_a_front_and_constraints_a_best(cli: Cli, tmp_path: Path) -> None:
    words = [*SHORT, "training.max_steps=1", "method.lora_rank=4,8", "training.seed=1"]
    objectives = "hydra.sweeper.objectives={train_loss: minimize, peak_memory_mb: minimize}"
    done = cli("-m", *words, objectives, "hydra.sweep.dir=front")
    assert done.returncode == 0, done.stderr
    found = trials(tmp_path / "front")
    front = [
        n
        for n, trial in found.items()
        if not any(
            all(a <= b for a, b in zip(other["values"], trial["values"], strict=True))
            and other["values"] != trial["values"]
            for other in found.values()
        )
    ]
    assert f"on the Pareto front: trials {', '.join(map(str, front))}" in done.stdout
    losses = {n: trial["values"][0] for n, trial in found.items()}
    bound = (max(losses.values()) + min(losses.values())) / 2
    done = cli("-m", *words, f"hydra.sweeper.constraints=['train_loss >= {bound}']", "hydra.sweep.dir=bound")
    assert f"best: trial {max(losses, key=lambda n: losses[n])}" in done.stdout, done.stdout + done.stderr
