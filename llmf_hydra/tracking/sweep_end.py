"""`close`: has a sweep's own MLflow run say how the sweep ended, from a process that never imports MLflow.

python -m llmf_hydra.tracking.sweep_end      reads JSON from stdin; started by `close` only
"""

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from llmf_hydra.config.groups.tracking import TrackingConfig
from llmf_hydra.config.secrets import masked_text
from llmf_hydra.runs import isolation
from llmf_hydra.tracking import mlflow
from llmf_hydra.tracking.contract import DONE, KILLED
from llmf_hydra.tracking.reach import Unreachable, check

PATIENCE = 60.0  # seconds that closing may take


@dataclass(frozen=True)
class SweepEnd:
    """How a sweep ended: done, failed or killed (stopped), and why."""

    sweep: str  # its name
    folder: str  # absolute
    status: str = DONE
    reason: str = ""


def close(tracking: TrackingConfig, outputs: Path, end: SweepEnd) -> None:
    """Close the sweep's run in MLflow, if its trials have made one; prints a warning where that fails."""
    uri = mlflow.store_uri(tracking.mlflow_tracking_uri, outputs)
    # Through stdin: the URI may hold a password, and arguments are for all to see.
    order = {"uri": uri, "project": tracking.project, "end": asdict(end)}
    try:
        done = subprocess.run(
            isolation.command("llmf_hydra.tracking.sweep_end"),
            input=json.dumps(order),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
            start_new_session=True,  # Ctrl-C has ended the sweep, and must not end this
        )
        reason = done.stderr.strip().rpartition("\n")[2] if done.returncode else ""
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = str(error)
    if reason:
        print(masked_text(f"warning: the sweep's run in MLflow stays as it is: {reason}"), file=sys.stderr)


def main() -> None:
    order = json.load(sys.stdin)
    uri, end = order["uri"], SweepEnd(**order["end"])
    try:
        check(uri)
    except Unreachable as unreachable:
        sys.exit(str(unreachable))
    mlflow.set_environment()
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(order["project"])
    if experiment is None:
        return
    of_sweep = mlflow.sweep_filter(end.sweep, end.folder)
    for parent in client.search_runs([experiment.experiment_id], of_sweep):
        run = parent.info.run_id
        running = f"tags.`{mlflow.PARENT_TAG}` = '{run}' AND attributes.status = 'RUNNING'"
        for trial in client.search_runs([experiment.experiment_id], running):  # killed, and its tracker too
            client.set_tag(trial.info.run_id, mlflow.STATUS_TAG, KILLED)
            client.set_terminated(trial.info.run_id, mlflow.STATUSES[KILLED])
        client.set_tag(run, mlflow.STATUS_TAG, end.status)
        client.set_tag(run, mlflow.REASON_TAG, end.reason)
        client.set_terminated(run, mlflow.STATUSES[end.status])


if __name__ == "__main__":
    main()
