"""One run with all trackers, MLflow's at a real server: each holds what `log.jsonl` holds."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.command_line import Cli
from support.mlflow_server import serving
from support.wandb_files import history, of_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

WORDS = ["stage=dpo", "model=tiny", "data.max_samples=30", "data.val_size=4", "training.logging_steps=1",
         "training.max_steps=6", "training.learning_rate=0.01"]  # fmt: skip
ALL = [*WORDS, "training.eval_steps=3", "tracking=[files,wandb,mlflow,tensorboard]", "tracking.log_model=true",
       "tracking.registered_model=tiny-dpo", "tracking.system_metrics=true", "hydra.run.dir=tracked"]  # fmt: skip
Points = dict[tuple[str, int], float]  # metric and step -> value


@dataclass(frozen=True)
class Tracked:
    """A run that all trackers took."""

    out: Path
    client: "MlflowClient"
    run: "Run"


@pytest.fixture(scope="module")
def tracked(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tracked]:
    from mlflow import MlflowClient  # half a second, in each process of the tests

    folder = tmp_path_factory.mktemp("tracked")
    theirs = {"WANDB_RUN_GROUP": "my group", "WANDB_NAME": "my name", "WANDB_TAGS": "mine"}
    with serving(folder) as server:
        env = {**environment, **theirs, "MLFLOW_TRACKING_URI": server.uri}
        command = [sys.executable, "-m", "llmf_hydra", *ALL]
        done = subprocess.run(
            command, cwd=folder, env=env, capture_output=True, text=True, timeout=240, check=False
        )
        assert done.returncode == 0 and "left out" not in done.stderr, done.stderr
        client = MlflowClient(server.uri)
        (run,) = client.search_runs([entry.experiment_id for entry in client.search_experiments()])
        yield Tracked(folder / "tracked", client, run)


def logged(out: Path) -> Points:
    """What `log.jsonl` holds; the trainer reports `epoch` with each line of a step."""
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text(encoding="utf8").splitlines()]
    points: Points = {}
    for line in lines:
        for key in line.keys() - {"step", "time"}:
            assert points.setdefault((key, line["step"]), line[key]) == line[key]
    assert len(points) > 30
    return points


def test_mlflow_holds_each_step_once_and_what_was_trained_on(tracked: Tracked) -> None:
    run, client = tracked.run, tracked.client
    assert (run.info.status, run.info.run_name) == ("FINISHED", "tracked")
    assert run.data.tags["llmf_hydra.status"] == "done" and run.data.params["training.max_steps"] == "6"
    own = [key for key in run.data.metrics if not key.startswith("system/")]
    points = [
        ((key, point.step), point.value)
        for key in own
        for point in client.get_metric_history(run.info.run_id, key)
    ]
    assert len(points) == len(dict(points))
    assert dict(points) == pytest.approx(logged(tracked.out))
    (source,) = json.loads((tracked.out / "data.json").read_text())["sources"]
    (given,) = run.inputs.dataset_inputs
    assert (given.dataset.name, given.dataset.digest) == ("demo_preference", source["digest"])
    assert given.tags[0].value == "training"


def test_mlflow_holds_system_metrics(tracked: Tracked) -> None:
    metrics = {key for key in tracked.run.data.metrics if key.startswith("system/")}
    assert {"system/cpu_utilization_percentage", "system/system_memory_usage_megabytes"} <= metrics


def test_the_final_model_is_logged_and_registered(tracked: Tracked, tmp_path: Path) -> None:
    run = tracked.run.info.run_id
    final = tracked.out / "final"
    got = Path(tracked.client.download_artifacts(run, "model", str(tmp_path)))
    digests = {file.name: sha256(file.read_bytes()).hexdigest() for file in final.iterdir()}
    assert {file.name: sha256(file.read_bytes()).hexdigest() for file in got.iterdir()} == digests
    noted = Path(tracked.client.download_artifacts(run, "model_digests.json", str(tmp_path)))
    assert json.loads(noted.read_text()) == digests
    (version,) = tracked.client.search_model_versions("name = 'tiny-dpo'")
    assert (version.run_id, version.source) == (run, f"{tracked.run.info.artifact_uri}/model")


def test_wandbs_file_holds_the_run(tracked: Tracked) -> None:
    (log,) = tracked.out.glob("wandb/offline-run-*/run-*.wandb")
    records = of_file(log)
    run = next(record.run for record in records if record.HasField("run"))
    assert (run.display_name, run.run_group, run.job_type) == ("my name", "my group", "dpo")  # WANDB_* count
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert config["training.max_steps"] == 6
    rows = history(log)
    points = [
        ((key, row["_step"]), value) for row in rows for key, value in row.items() if not key.startswith("_")
    ]
    assert len(points) == len(dict(points)) and len({row["_step"] for row in rows}) == len(rows) == 6
    assert dict(points) == pytest.approx(logged(tracked.out))
    summary = {item.key: json.loads(item.value_json)
               for record in records if record.HasField("summary") for item in record.summary.update}  # fmt: skip
    metrics = json.loads((tracked.out / "metrics.json").read_text())
    assert summary["train_loss"] == metrics["train_loss"] and summary["eval_loss"] == metrics["eval_loss"]
    (artifact,) = (record.request.log_artifact.artifact if record.HasField("request") else record.artifact
                   for record in records
                   if record.HasField("artifact") or record.request.HasField("log_artifact"))  # fmt: skip
    assert artifact.type == "model"
    digests = json.loads(artifact.metadata)["digests"]
    expected = {
        file.name: f"sha256:{sha256(file.read_bytes()).hexdigest()}"
        for file in (tracked.out / "final").iterdir()
    }
    assert digests == expected


def test_tensorboard_reads_the_same_steps_and_values(tracked: Tracked) -> None:
    events = EventAccumulator(str(tracked.out / "tensorboard"))
    events.Reload()
    points = [
        ((tag, event.step), event.value) for tag in events.Tags()["scalars"] for event in events.Scalars(tag)
    ]
    assert len(points) == len(dict(points))
    assert dict(points) == pytest.approx(logged(tracked.out), rel=1e-6)
    content = events.summary_metadata[metadata.SESSION_START_INFO_TAG].plugin_data.content
    hparams = metadata.parse_session_start_info_plugin_data(content).hparams
    assert hparams["training.max_steps"].number_value == 6 and hparams["stage.name"].string_value == "dpo"
    assert metadata.SESSION_END_INFO_TAG in events.summary_metadata


@pytest.mark.slow
def test_a_server_killed_half_way_ends_no_training(environment: dict[str, str], tmp_path: Path) -> None:
    words = [*WORDS, "training.max_steps=400", "training.eval_strategy=no", "data.val_size=0",
             "training.save_strategy=no", "tracking=[mlflow,tensorboard]", "hydra.run.dir=run"]  # fmt: skip
    with serving(tmp_path) as server:
        env = {**environment, "MLFLOW_TRACKING_URI": server.uri}
        command = [sys.executable, "-m", "llmf_hydra", *words]
        training = subprocess.Popen(
            command, cwd=tmp_path, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        out = tmp_path / "run"
        end = time.monotonic() + 120
        while not (out / "mlflow_run_id.txt").exists():
            assert training.poll() is None and time.monotonic() < end
            time.sleep(0.02)
        server.kill()
        steps = len((out / "log.jsonl").read_text().splitlines())
        _, said = training.communicate(timeout=240)
        assert steps < 400, "the training was over before the server was killed"
    assert training.returncode == 0, said
    (warning,) = [line for line in said.splitlines() if line.startswith("warning")]
    assert f"tracking=mlflow is left out from here on: {server.uri} does not answer" in warning
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    last = max(line["time"] for line in lines if "step" in line)
    ended = (out / "metrics.json").stat().st_mtime
    assert ended - last < 20
    assert [line["step"] for line in lines if "loss" in line] == [*range(1, 401)]
    assert (out / "final" / "adapter_model.safetensors").exists()
    events = EventAccumulator(str(out / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [*range(1, 401)]


def test_a_model_needs_a_tracker_that_keeps_models(cli: Cli) -> None:
    done = cli(*WORDS, "tracking=tensorboard", "tracking.log_model=true")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "tracking.log_model=true: no tracker of this run stores models" in done.stderr
