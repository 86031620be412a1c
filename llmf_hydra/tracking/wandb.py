"""Weights & Biases: online with a key, offline into the run's folder without one."""

import json
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    import wandb

TAG_LENGTH = 64  # the most characters wandb takes
# In the run's folder: the id of its wandb run, and the last step of each metric there.
NOTE = "wandb_run.json"
EXIT_CODES = {DONE: 0, PRUNED: 0, FAILED: 1, KILLED: 130}


class WandbTracker(Tracker):
    """A run at wandb, in the group of its sweep. What it holds on disk is in the folder's `wandb/`."""

    name = "wandb"

    def __init__(self, tracking: TrackingConfig):
        self._tracking = tracking
        self._pid = os.getpid()  # of the training, also where the tracker has moved to another process

    def start(self, info: RunInfo) -> None:
        """Open the run. Raises Unreachable without network, and wandb's own errors: a key that isn't known."""
        import wandb

        settings = self.settings(info)
        self._note, note = info.out / NOTE, _read(info.out / NOTE)
        own = None if info.sweep else os.environ.get("WANDB_RUN_ID")  # of trials each needs its own
        self._id: str = note.get("id") or own or secrets.token_hex(4)
        self._logged = Logged(note.get("logged"))
        self._write_note()
        settings.run_id = self._id
        theirs = wandb.setup().settings  # with the user's WANDB_MODE, WANDB_BASE_URL and `wandb login --host`
        if "online" == settings.mode == theirs.mode:
            check(theirs.base_url, "WANDB_MODE=offline keeps the run on disk, to be synced later")
            settings.resume = "allow"  # offline it goes on under the same id without being told
        config: dict[str, object] = {**info.params, "git": info.git}
        self._run = wandb.init(config=config, dir=os.environ.get("WANDB_DIR") or info.out, settings=settings)

    def settings(self, info: RunInfo) -> "wandb.Settings":
        """What the config says, as wandb's own settings object; where it says nothing, the user's WANDB_* count."""
        import wandb

        tracking, env = self._tracking, os.environ
        settings = wandb.Settings(
            project=tracking.project,
            entity=tracking.wandb_entity,
            api_key=tracking.wandb_api_key,
            run_name=tracking.run_name or env.get("WANDB_NAME") or info.name,
            run_group=env.get("WANDB_RUN_GROUP") or info.study or info.sweep,
            run_job_type=env.get("WANDB_JOB_TYPE") or ("trial" if info.sweep else info.tags.get("stage")),
            run_tags=tuple(f"{key}:{value}"[:TAG_LENGTH] for key, value in info.tags.items()),
            git_commit=info.git.get("commit"),
            disable_git=True,  # ours is the code's state; wandb's would be that of the current folder
            x_stats_pid=self._pid,
            console="off",
            silent=True,
        )
        if tracking.wandb_api_key is None and not env.get("WANDB_MODE"):
            settings.mode = "offline"
        return settings

    def log(self, metrics: dict[str, float], step: int) -> None:
        fresh = self._logged.fresh(metrics, step)
        if fresh:
            self._run.log(fresh, step=step)
            self._write_note()

    def log_table(self, table: Table) -> None:
        import wandb

        columns = table.columns() if self._logged.fresh({table.name: 0.0}, table.step) else {}
        if columns:
            rows: list[Any] = [list(row) for row in zip(*columns.values(), strict=True)]
            self._run.log({table.name: wandb.Table(columns=list(columns), data=rows)})
            self._write_note()

    def _write_note(self) -> None:
        write_whole(self._note, json.dumps({"id": self._id, "logged": self._logged.last}) + "\n")

    def log_model(self, model: FinalModel) -> None:
        import wandb

        digests = {name: f"sha256:{digest}" for name, digest in model.digests.items()}
        artifact = wandb.Artifact(f"model-{self._id}", type="model", metadata={"digests": digests})
        for name in model.digests:
            artifact.add_file(str(model.folder / name), name=name, policy="immutable")
        self._run.log_artifact(artifact)

    def finish(self, status: str, summary: dict[str, float], files: list[Path]) -> None:
        self._run.summary.update(summary)
        for file in files:
            self._run.save(file, base_path=file.parent, policy="now")
        self._run.finish(exit_code=EXIT_CODES[status])


def _read(note: Path) -> dict[str, Any]:
    return json.loads(note.read_text(encoding="utf8")) if note.exists() else {}
