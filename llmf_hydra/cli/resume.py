"""`llmf resume RUN`: go on with an interrupted run from its last checkpoint, on its own config.yaml."""

import os
import sys
from pathlib import Path

from llmf_hydra import refusals
from llmf_hydra.cli.commands import Parser
from llmf_hydra.cli.run_folder import named_run
from llmf_hydra.config import record
from llmf_hydra.errors import NO_VALUE, REFUSED, Problem, Refused
from llmf_hydra.runs import checkpoints, trained_with
from llmf_hydra.runs import folder as runs
from llmf_hydra.runs import processes as process


def main(argv: list[str]) -> int:
    """Start a worker on a run folder again; returns its exit code. Raises Refused for a run that can't go on."""
    parser = Parser("resume")
    parser.add_argument("run", help="a run folder; `llmf runs` lists them")
    named: str = parser.parse_args(argv).run
    out, manifest = named_run(named)
    status = runs.status(manifest)
    if status in ("done", "running"):
        raise Refused([Problem(named, NO_VALUE, f"the run is {status} and has nothing to go on with")])
    cwd = _working_directory(named, manifest)
    cfg = refusals.recorded(out, manifest)
    choice = checkpoints.choose(out)
    if choice.checkpoint is not None:
        changed = list(trained_with.config_problems(choice.checkpoint, cfg))
        if changed:
            raise Refused(
                [*changed, Problem(f"{out / runs.CONFIG}", NO_VALUE, "was edited after the run began")]
            )
    os.chdir(cwd)
    refusals.check_recorded_files(out, cfg)
    lacking = record.missing(out / runs.CONFIG)
    if lacking:
        print(
            f"warning: secrets are not recorded; this run goes on without {', '.join(lacking)}",
            file=sys.stderr,
        )
    print(choice.sentence(), flush=True)
    code = process.run_worker(out, cfg, quiet=False, resume=True)
    if code == REFUSED:  # nothing was trained, and the run is what it was
        runs.update_manifest(
            out, **{key: manifest.get(key) for key in ("status", "reason", "ended", "exit_code")}
        )
    return code


def _working_directory(named: str, manifest: runs.Manifest) -> Path:
    """The folder that the run was started in, from which its relative paths start. Raises Refused if it is gone."""
    cwd = manifest["cwd"]
    if not Path(cwd).is_dir():
        what = f"its working directory {cwd} is gone, and relative paths of its config.yaml start there"
        raise Refused([Problem(named, NO_VALUE, what, f'make it again, or change "cwd" in {runs.MANIFEST}')])
    return Path(cwd)
