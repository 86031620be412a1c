"""Workers run by Ray and by Slurm's submitit: the same bytes as at home, and every way to end, told right.

Slurm itself isn't here: submitit runs its job as a process of this machine, through the same pickle and signals.
"""

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from support.command_line import Cli, log_of, losses, only_run, worker_environment

from llmf_hydra.runs import warm

pytest.importorskip("ray", reason="pip install 'llmf_hydra[ray]'")
pytest.importorskip("submitit", reason="pip install 'llmf_hydra[slurm]'")

TOKEN = "hf_ToKenSeCret01"
WORDS = ["stage=sft", "model=tiny", "training.logging_steps=1", "training.eval_strategy=no", "data.val_size=0",
         "training.plot_loss=false", "training.learning_rate=0.01", "data.max_samples=40"]  # fmt: skip
LONG = [*WORDS, "training.max_steps=4000", "training.save_strategy=no"]
SLURM = ["launch=slurm", "launch.slurm_cluster=local"]
CLUSTER = """
import sys, ray
ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
print(ray.get_runtime_context().gcs_address, ray._private.worker._global_node.get_session_dir_path(), flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def alike(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A user's environment with one thread, as is reserved, and a token for Ray; workers are forked from a server
    of this module.
    """
    token = tmp_path_factory.mktemp("ray") / "token"
    token.touch(0o600)
    token.write_text(secrets.token_hex(32))
    ray = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_USAGE_STATS_ENABLED": "0"}
    env = {**environment, "OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0", **ray}
    with warm.started(worker_environment(env)) as address:
        yield {**env, warm.WORKERS: address}


@pytest.fixture(scope="module")
def cluster(alike: dict[str, str]) -> Iterator[tuple[str, Path]]:
    """The address of a Ray cluster, and the folder of all that it writes."""
    command = [sys.executable, "-c", CLUSTER]
    head = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=alike)
    assert head.stdin is not None and head.stdout is not None
    address, folder = head.stdout.readline().split()
    yield address, Path(folder)
    head.stdin.close()
    head.wait(60)


@pytest.fixture(params=["ray", "slurm"])
def launch(request: pytest.FixtureRequest) -> list[str]:
    """The words that have a scheduler run the worker."""
    if request.param == "slurm":
        return SLURM
    address, _ = request.getfixturevalue("cluster")
    return ["launch=ray", f"launch.ray_address={address}"]


def start(env: dict[str, str], folder: Path, *words: str) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, "-m", "llmf_hydra", *words], cwd=folder, env=env, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)  # fmt: skip


def wait_for_step(launcher: "subprocess.Popen[str]", folder: Path) -> Path:
    """The run's folder, once its log holds three steps."""
    for _ in range(1200):
        assert launcher.poll() is None, launcher.communicate()
        for log in folder.glob("outputs/sft/*/log.jsonl"):
            if log.read_text(encoding="utf8").count("\n") >= 3:
                return log.parent
        time.sleep(0.05)
    raise TimeoutError


def manifest(out: Path) -> dict[str, object]:
    return json.loads((out / "manifest.json").read_text(encoding="utf8"))


def holding(secret: str, *folders: Path) -> list[Path]:
    """The files that hold a secret."""
    files = (file for folder in folders for file in folder.rglob("*") if file.is_file())
    return [file for file in files if secret.encode() in file.read_bytes()]


def told(secret: str) -> set[int]:
    """The processes that have a secret on their command line."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if secret.encode() in (folder / "cmdline").read_bytes():
                found.add(int(folder.name))
    return found


@pytest.fixture(scope="module")
def at_home(alike: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run whose worker is a process of this machine."""
    folder = tmp_path_factory.mktemp("home")
    launcher = start(alike, folder, *WORDS, "training.max_steps=6")
    _, said = launcher.communicate(timeout=120)
    assert launcher.returncode == 0, said
    return only_run(folder, "sft")


def test_a_run_elsewhere_is_the_run_at_home_to_the_byte(
    launch: list[str], at_home: Path, alike: dict[str, str], cli: Cli, tmp_path: Path
) -> None:
    done = cli(*WORDS, "training.max_steps=6", *launch, env=alike)
    assert done.returncode == 0, done.stderr
    out = only_run(tmp_path, "sft")
    assert losses(out) == losses(at_home) and len(losses(out)) == 6
    adapter = Path("final", "adapter_model.safetensors")
    assert (out / adapter).read_bytes() == (at_home / adapter).read_bytes()
    assert manifest(out)["status"] == "done"
    assert "step 6/6" in done.stdout and "step 6/6" in (out / "worker.log").read_text()


def test_a_stopped_run_saves_its_state_where_it_runs_and_no_file_holds_its_secret(
    launch: list[str], alike: dict[str, str], cluster: tuple[str, Path], tmp_path: Path
) -> None:
    launcher = start(alike, tmp_path, *LONG, *launch, f"model.hf_hub_token={TOKEN}")
    out = wait_for_step(launcher, tmp_path)
    assert holding(TOKEN, tmp_path, cluster[1]) == [] and told(TOKEN) == {launcher.pid}
    launcher.send_signal(signal.SIGTERM)
    shown, said = launcher.communicate(timeout=60)
    assert launcher.returncode == 130, said
    assert "llmf resume" in shown and "Traceback" not in said
    assert manifest(out)["status"] == "killed" and holding(TOKEN, tmp_path, cluster[1]) == []
    done = len(losses(out))
    assert (out / f"checkpoint-{done}" / "trainer_state.json").exists()

    cold = {"HF_TOKEN": TOKEN} if launch == SLURM else {}  # not the environment of the server
    again = start({**alike, **cold}, tmp_path, "resume", str(out))
    for _ in range(1200):
        if len(losses(out)) > done or again.poll() is not None:
            break
        time.sleep(0.05)
    os.killpg(
        again.pid, signal.SIGINT
    )  # Ctrl-C reaches all of the terminal's processes, submitit's among them
    _, said = again.communicate(timeout=60)
    assert again.returncode == 130, said
    steps = [line["step"] for line in log_of(out) if "loss" in line]
    assert steps == list(range(1, len(steps) + 1)) and len(steps) > done
    assert (out / f"checkpoint-{len(steps)}" / "trainer_state.json").exists()
    assert holding(TOKEN, tmp_path, cluster[1]) == []


def test_a_worker_that_is_killed_there_is_told_as_killed(
    launch: list[str], alike: dict[str, str], tmp_path: Path
) -> None:
    launcher = start(alike, tmp_path, *LONG, *launch)
    out = wait_for_step(launcher, tmp_path)
    os.kill(int(str(manifest(out)["pid"])), signal.SIGKILL)
    _, said = launcher.communicate(timeout=60)
    assert launcher.returncode == 1 and "Traceback" not in said, said
    assert manifest(out)["status"] == "killed"


@pytest.mark.slow
def test_when_its_launcher_is_killed_an_actor_saves_and_a_job_goes_on(
    launch: list[str], alike: dict[str, str], tmp_path: Path
) -> None:
    launcher = start(alike, tmp_path, *LONG, *launch)
    out = wait_for_step(launcher, tmp_path)
    launcher.kill()
    launcher.wait()
    if launch == SLURM:
        before = len(losses(out))
        time.sleep(1.0)
        assert manifest(out)["status"] == "running" and len(losses(out)) > before
        os.kill(int(str(manifest(out)["pid"])), signal.SIGTERM)
    for _ in range(400):
        if manifest(out)["status"] != "running":
            break
        time.sleep(0.05)
    assert manifest(out)["status"] == "killed"
    assert (out / f"checkpoint-{len(losses(out))}" / "trainer_state.json").exists()


GRID = [*WORDS, "training.max_steps=2", "method.lora_rank=4,8", "training.seed=1,2"]


@pytest.fixture(scope="module")
def study_at_home(alike: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    words = ["-m", *GRID, "hydra.sweep.dir=study"]
    subprocess.run(
        [sys.executable, "-m", "llmf_hydra", *words], cwd=folder, env=alike, check=True, capture_output=True
    )
    return folder / "study"


@pytest.mark.slow
def test_a_study_comes_to_the_same_wherever_its_trials_run(
    alike: dict[str, str], study_at_home: Path, launch: list[str], tmp_path: Path
) -> None:
    away = start(alike, tmp_path, "-m", *GRID, *launch, "hydra.sweeper.n_jobs=2", "hydra.sweep.dir=study")
    said = away.communicate(timeout=240)
    assert away.returncode == 0, said
    for number in range(4):
        here, there = study_at_home / str(number), tmp_path / "study" / str(number)
        assert losses(here) == losses(there)
        weights = [out / "final" / "adapter_model.safetensors" for out in (here, there)]
        assert weights[0].read_bytes() == weights[1].read_bytes()
    values = [
        {
            trial["number"]: trial["objective"]
            for trial in json.loads((study / "sweep.json").read_text())["trials"]
        }
        for study in (study_at_home, tmp_path / "study")
    ]
    assert values[0] == values[1]


@pytest.mark.slow
def test_a_trial_whose_node_dies_is_tried_again_from_its_checkpoint(
    launch: list[str], alike: dict[str, str], tmp_path: Path
) -> None:
    words = [*WORDS, "training.max_steps=300", "training.save_steps=10", "training.save_total_limit=2",
             "training.seed=1,2", "hydra.sweeper.retries=1", "hydra.sweep.dir=study"]  # fmt: skip
    sweep = start({**alike, warm.WORKERS: ""}, tmp_path, "-m", *words, *launch)
    out = tmp_path / "study" / "0"
    killed = False
    for _ in range(2400):
        assert sweep.poll() is None, sweep.communicate()
        if (out / "checkpoint-10" / "trainer_state.json").exists():
            for pid in of_the_node(out):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            killed = True
            break
        time.sleep(0.02)
    said = sweep.communicate(timeout=240)
    assert killed and sweep.returncode == 0, said
    assert "trial 0: " in said[0] and said[0].count("tried again") == 1, said
    account = json.loads((tmp_path / "study" / "sweep.json").read_text(encoding="utf8"))
    assert {trial["status"] for trial in account["trials"]} == {"done"}
    assert manifest(out)["resumed"] == 1
    assert [line["step"] for line in log_of(out) if "loss" in line] == list(range(1, 301))

    once = start(
        alike, tmp_path, *words[:-3], "training.seed=1", "launch.omp_num_threads=1", "hydra.run.dir=once"
    )
    assert once.wait(timeout=120) == 0, once.communicate()
    assert losses(tmp_path / "once") == losses(out)


def of_the_node(out: Path) -> list[int]:
    """The processes that a node has of a run: the scheduler's own, the one it started, and the worker."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0")
            if str(out).encode() in words and b"llmf_hydra.runs.schedulers.node" in words:
                status = (process / "status").read_text(encoding="utf8")
                found += [int(process.name), int(status.split("PPid:")[1].split()[0])]
    return [int(str(manifest(out)["pid"])), *found]


def test_a_worker_that_no_node_has_room_for_fails_with_what_there_is(
    alike: dict[str, str], cluster: tuple[str, Path], tmp_path: Path
) -> None:
    words = ["launch=ray", f"launch.ray_address={cluster[0]}", "launch.ray_num_cpus=64"]
    _, said = (launcher := start(alike, tmp_path, *WORDS, *words)).communicate(timeout=60)
    assert launcher.returncode == 1 and "Traceback" not in said
    assert "no node of the Ray cluster has 64 CPUs" in said and "2 CPUs" in said
    assert manifest(only_run(tmp_path, "sft"))["status"] == "failed"
