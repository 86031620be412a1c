"""MLflow: a run in a local SQLite store or at the server the config names, below its sweep's run."""

import json
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from llmf_hydra.config.groups.tracking import TrackingConfig
from llmf_hydra.tracking.contract import (
    DONE,
    FAILED,
    KILLED,
    PRUNED,
    FinalModel,
    Logged,
    RunInfo,
    Table,
    Tracker,
)
from llmf_hydra.tracking.files import write_whole
from llmf_hydra.tracking.reach import check

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

STORE = "mlflow.db"  # the default store, in the folder of all outputs
ARTIFACTS = "mlartifacts"  # the files of the default store's runs
LOCK = ".mlflow.lock"
RUN_ID = "mlflow_run_id.txt"  # in the run's folder, so that a resumed run goes on with its MLflow run
NEW = ".mlflow.new"  # beside it while the run is made: the key that finds a run whose id was not written down
KEY_TAG = "llmf_hydra.key"
STATUS_TAG = "llmf_hydra.status"  # done, pruned, failed or killed
REASON_TAG = "llmf_hydra.reason"
DIGESTS = "model_digests.json"  # file -> SHA-256, among the artifacts
MODEL = "model"  # the folder of the final model among the run's artifacts
LONGEST_DIGEST = 36  # characters that MLflow takes
SWEEP_TAG = "llmf_hydra.sweep"  # marks the parent of a sweep's runs
FOLDER_TAG = "llmf_hydra.folder"
PARENT_TAG = "mlflow.parentRunId"  # these three are MLflow's own: its pages show them
SOURCE_TAG = "mlflow.source.name"
COMMIT_TAG = "mlflow.source.git.commit"
ENVIRONMENT = {  # read by MLflow when it is imported; what the user has set stays
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",  # seconds, where MLflow waits for 120, and tries it 8 times
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
}
CUT = " … (cut)"
STATUSES = {DONE: "FINISHED", PRUNED: "FINISHED", FAILED: "FAILED", KILLED: "KILLED"}
TRIES = 6  # of a call to a store that is busy; the waits between them make 6 seconds in all

Result = TypeVar("Result")


class MlflowTracker(Tracker):
    """A run of the experiment `tracking.project`."""

    name = "mlflow"

    def __init__(self, tracking: TrackingConfig):
        self._project = tracking.project
        self._uri = tracking.mlflow_tracking_uri  # None: the default store
        self._registered_model = tracking.registered_model
        self._system_metrics = tracking.system_metrics
        self._monitor: SystemMetricsMonitor | None = None

    def start(self, info: RunInfo) -> None:
        """Open the run, its experiment and its sweep's parent run. Raises Unreachable, MlflowException, OSError."""
        if self._uri is not None:
            check(self._uri)
        set_environment()
        from filelock import FileLock

        self._latest: dict[str, float] = {}
        self._step, self._logged = 0, Logged()
        self._lock = FileLock(info.outputs / LOCK)
        with self._naming_the_server():
            with (
                self._lock
            ):  # making the tables, the experiment and the parent are each for one process to do
                self._store = store_uri(self._uri, info.outputs)
                self._client = self._open_store()
                self._experiment = self._find_experiment(info)
                self._parent = self._find_parent(info) if info.sweep else None
                self._run = self._find_run(info)
            self._log_params(info.params)
            self._log_inputs(info)
            if self._system_metrics:
                self._monitor = _monitor(self._run, self._store, info)

    def log(self, metrics: dict[str, float], step: int) -> None:
        from mlflow.entities import Metric

        self._step = step
        now = int(time.time() * 1000)
        named = {_allowed(key): value for key, value in metrics.items()}
        points = [Metric(key, value, now, step) for key, value in self._logged.fresh(named, step).items()]
        self._latest.update(named)
        self._call(lambda: self._client.log_batch(self._run, metrics=points))

    def log_table(self, table: Table) -> None:
        """A file of its own among the artifacts, which MLflow's pages show as a table."""
        name = f"{table.name}/{table.step:07d}.json"

        def send() -> None:  # which appends to what is there
            held = self._client.list_artifacts(self._run, table.name)
            if name not in {artifact.path for artifact in held} and (columns := table.columns()):
                self._client.log_table(self._run, columns, name)

        self._call(send)

    def log_model(self, model: FinalModel) -> None:
        """Log the model's files, with their digests beside them, and register it where a name is given."""
        for name in model.digests:
            folder = "/".join((MODEL, *name.split("/")[:-1]))
            self._call(
                lambda name=name, to=folder: self._client.log_artifact(
                    self._run, str(model.folder / name), to
                )
            )
        self._call(lambda: self._client.log_dict(self._run, model.digests, DIGESTS))
        if self._registered_model is not None:
            self._register(self._registered_model)

    def _register(self, name: str) -> None:
        """Make this run's model a version of a registered one, once."""
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        source = f"{self._client.get_run(self._run).info.artifact_uri}/{MODEL}"
        versions = self._client.search_model_versions(f"name = '{name}' and run_id = '{self._run}'")
        if not versions:
            self._client.create_model_version(name, source, self._run)

    def finish(self, status: str, summary: dict[str, float], files: list[Path]) -> None:
        extra = {key: value for key, value in summary.items() if self._latest.get(_allowed(key)) != value}
        if extra:
            self.log(extra, self._step)
        for file in files:
            self._call(lambda file=file: self._client.log_artifact(self._run, str(file)))
        if self._monitor is not None:
            self._monitor.finish()
        with self._lock:
            self._call(lambda: self._client.set_tag(self._run, STATUS_TAG, status))
            self._call(lambda: self._client.set_terminated(self._run, STATUSES[status]))
            if self._parent is not None:
                self._call(self._close_parent_after_its_last)

    def _call(self, call: Callable[[], Result]) -> Result:
        """The call's result; raises Unreachable where the server is gone."""
        with self._naming_the_server():
            return _patiently(call)

    @contextmanager
    def _naming_the_server(self) -> Iterator[None]:
        """Within, the error of a server that is gone becomes Unreachable, which names it and the cause."""
        from mlflow.exceptions import MlflowException

        try:
            yield
        except (MlflowException, OSError):  # uploads raise those of `requests`, which are OSErrors
            if self._uri is not None:
                check(self._uri)
            raise

    def _open_store(self) -> "MlflowClient":
        """The client; it makes a new store's tables. Raises OSError where the store can't be written."""
        if self._uri is None:  # MLflow would retry for minutes what can't be opened
            Path(self._store.removeprefix("sqlite:///")).open("ab").close()
        from mlflow import MlflowClient

        return MlflowClient(self._store)

    def _find_experiment(self, info: RunInfo) -> str:
        """The id of the project's experiment, made if it isn't there."""
        from mlflow.exceptions import MlflowException

        found = self._client.get_experiment_by_name(self._project)
        if found is not None:
            return found.experiment_id
        artifacts = (info.outputs.resolve() / ARTIFACTS).as_uri() if self._uri is None else None
        try:
            return self._client.create_experiment(self._project, artifact_location=artifacts)
        except MlflowException:  # a process elsewhere, which our lock doesn't reach, was faster
            found = self._client.get_experiment_by_name(self._project)
            if found is None:
                raise
            return found.experiment_id

    def _find_parent(self, info: RunInfo) -> str:
        """The id of the sweep's own run, made by the first of its trials."""
        folder = str(info.sweep_folder or "")
        of_sweep = sweep_filter(str(info.sweep), folder)
        found = self._client.search_runs([self._experiment], of_sweep, max_results=1)
        if found:
            self._client.update_run(found[0].info.run_id, status="RUNNING")
            return found[0].info.run_id
        tags = {SWEEP_TAG: info.sweep, FOLDER_TAG: folder, **_git_tags(info.git)}
        return self._client.create_run(self._experiment, run_name=info.sweep, tags=tags).info.run_id

    def _find_run(self, info: RunInfo) -> str:
        """The id of this run: the one its folder names, or a new one."""
        note = info.out / RUN_ID
        if note.exists():
            run_id = note.read_text(encoding="utf8")
            self._client.update_run(run_id, status="RUNNING")
            self._look_back(run_id)
            return run_id
        run_id = self._make_run(info)
        write_whole(note, run_id)
        (info.out / NEW).unlink(missing_ok=True)
        return run_id

    def _make_run(self, info: RunInfo) -> str:
        """The id of a new run, or of one that a process made which was killed before it noted the id."""
        begun = info.out / NEW
        if begun.exists():
            of_key = f"tags.`{KEY_TAG}` = '{begun.read_text(encoding='utf8')}'"
            found = self._client.search_runs([self._experiment], of_key, max_results=1)
            if found:
                return found[0].info.run_id
        key = secrets.token_hex(8)
        write_whole(begun, key)
        own = {FOLDER_TAG: str(info.out), SOURCE_TAG: "llmf_hydra", KEY_TAG: key}
        tags = {**info.tags, **_git_tags(info.git), **own}
        if self._parent is not None:
            tags[PARENT_TAG] = self._parent
        return self._client.create_run(self._experiment, run_name=info.name, tags=tags).info.run_id

    def _look_back(self, run_id: str) -> None:
        """What the run holds of each metric: its last value and step."""
        self._latest = dict(self._client.get_run(run_id).data.metrics)
        own = [key for key in self._latest if not key.startswith("system/")]
        points = {key: self._client.get_metric_history(run_id, key) for key in own}
        self._logged = Logged({key: max(point.step for point in of) for key, of in points.items()})

    def _log_params(self, params: Mapping[str, object]) -> None:
        from mlflow.entities import Param
        from mlflow.utils.validation import MAX_PARAM_VAL_LENGTH, MAX_PARAMS_TAGS_PER_BATCH

        texts = {_allowed(key): "null" if value is None else str(value) for key, value in params.items()}
        every = [Param(key, _cut(text, MAX_PARAM_VAL_LENGTH)) for key, text in texts.items()]
        for start in range(0, len(every), MAX_PARAMS_TAGS_PER_BATCH):
            batch = every[start : start + MAX_PARAMS_TAGS_PER_BATCH]
            _patiently(lambda batch=batch: self._client.log_batch(self._run, params=batch))

    def _log_inputs(self, info: RunInfo) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        inputs = [
            DatasetInput(
                Dataset(data.name, data.digest[:LONGEST_DIGEST], "local", json.dumps({"name": data.name})),
                [InputTag("mlflow.data.context", "training" if data.use == "train" else "eval")],
            )
            for data in info.datasets
        ]
        if inputs:
            _patiently(lambda: self._client.log_inputs(self._run, inputs))

    def _close_parent_after_its_last(self) -> None:
        """Close the sweep's run if none of its trials runs: finished if all of them are, failed otherwise."""
        if not self._has_trial("= 'RUNNING'"):
            status = "FAILED" if self._has_trial("!= 'FINISHED'") else "FINISHED"
            self._client.set_terminated(str(self._parent), status)

    def _has_trial(self, status: str) -> bool:
        """Whether the sweep has a trial whose status fits, such as `= 'RUNNING'`."""
        trials = f"tags.`{PARENT_TAG}` = '{self._parent}' AND attributes.status {status}"
        return bool(self._client.search_runs([self._experiment], trials, max_results=1))


def set_environment() -> None:
    """Set what MLflow reads when it is imported, where the user has not."""
    for variable, value in ENVIRONMENT.items():
        os.environ.setdefault(variable, value)


def sweep_filter(name: str, folder: str) -> str:
    """What finds a sweep's own run among those of an experiment."""
    return f"tags.`{SWEEP_TAG}` = {_quoted(name)} AND tags.`{FOLDER_TAG}` = {_quoted(folder)}"


def _quoted(text: str) -> str:
    quote = '"' if "'" in text else "'"
    return f"{quote}{text}{quote}"


def store_uri(given: str | None, outputs: Path) -> str:
    """The URI of the store: the one that the config gives, or that of the default store."""
    return given if given is not None else f"sqlite:///{outputs.resolve() / STORE}"


def _monitor(run: str, uri: str, info: RunInfo) -> "SystemMetricsMonitor":
    """MLflow's own sampler, started; it goes on counting where a resumed run's samples end."""
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    monitor = SystemMetricsMonitor(
        run,
        resume_logging=info.logged is not None,
        tracking_uri=uri,
    )
    monitor.collect_metrics()  # the first sample now: its loop waits for an interval before it publishes
    monitor.publish_metrics(monitor.aggregate_metrics())
    monitor.start()
    return monitor


def _patiently(call: Callable[[], Result]) -> Result:
    """The call's result, tried again while the store is busy (several processes and one SQLite file)."""
    from mlflow.exceptions import MlflowException

    for tried in range(1, TRIES):
        try:
            return call()
        except MlflowException as error:
            if error.error_code != "TEMPORARILY_UNAVAILABLE":
                raise
            time.sleep(0.2 * 2 ** (tried - 1))
    return call()


def _git_tags(git: dict[str, str]) -> dict[str, str]:
    tags = {f"git.{key}": value for key, value in git.items()}
    return tags | ({COMMIT_TAG: git["commit"]} if "commit" in git else {})


def _allowed(name: str) -> str:
    """The name with what MLflow refuses replaced."""
    return re.sub(r"[^\w\-./: ]", "_", name)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - len(CUT)] + CUT
