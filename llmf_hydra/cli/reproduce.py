"""`llmf reproduce RUN`: compare what a run began with to what is here, run it again, compare log and weights."""

import json
import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmf_hydra import refusals
from llmf_hydra.cli.commands import Parser
from llmf_hydra.cli.run_folder import named_run
from llmf_hydra.comparison import circumstances, outcome, place
from llmf_hydra.comparison.difference import Difference
from llmf_hydra.config import record
from llmf_hydra.config.schema import Config
from llmf_hydra.errors import DONE, FAILED, INTERRUPTED, NO_VALUE, REFUSED, Problem, Refused
from llmf_hydra.runs import folder as runs
from llmf_hydra.runs import processes
from llmf_hydra.runs.manifest import cores, first_manifest

IDENTICAL, DIFFERENT = DONE, FAILED  # exit codes
SUFFIX = "-reproduced"


@dataclass
class Reproduction:
    """A recorded run and what is known of its repetition so far."""

    out: Path
    manifest: runs.Manifest
    cfg: Config
    place: place.Place
    changes: list[Difference] = field(default_factory=list)  # between then and now
    notices: list[str] = field(default_factory=list)


def main(argv: Sequence[str]) -> int:
    """Answer `llmf reproduce`; returns 0 for identical (with --check: the same), 1 for not. Raises Refused."""
    parser = Parser("reproduce")
    parser.add_argument("run", help="a run folder; `llmf runs` lists them")
    parser.add_argument("--out", type=Path, metavar="DIR", help=f"the new run's folder; default: RUN{SUFFIX}")
    parser.add_argument("--check", action="store_true", help="say what differs, and run nothing")
    parser.add_argument("--json", action="store_true", help="print the answer as JSON")
    asked = parser.parse_args(argv)
    if asked.out is not None:
        asked.out = asked.out.expanduser().absolute()  # before the working directory changes
    found = _compared(asked)
    if not asked.json:
        print("\n".join(_before(found)), flush=True)
    if asked.check:
        if asked.json:
            print(json.dumps(_as_dict(found) | {"same": not found.changes}, indent=2))
        return DIFFERENT if found.changes else IDENTICAL
    return _run_again(found, asked)


def _compared(asked: Namespace) -> Reproduction:
    """The recorded run against what is here now. Raises Refused where it can't be repeated."""
    out, manifest = named_run(asked.run)
    status = runs.status(manifest)
    if (job := manifest.get("job", "train")) != "train":
        what = f"is of job={job}, and only training leaves something to compare"
        raise Refused([Problem(asked.run, NO_VALUE, what, "repeat its command")])
    if status in ("created", "running"):
        raise Refused([Problem(asked.run, NO_VALUE, f"is {status}; a run is reproduced when it has ended")])
    cfg = record.load(out / runs.CONFIG)
    if lacking := record.missing(out / runs.CONFIG):
        text = f"secrets are not recorded; this run begins without {', '.join(lacking)}"
        print(f"warning: {text}", file=sys.stderr)
    settled, problems = place.settle(cfg, manifest, out, refusals.of_files)
    problems = [place.missing(problem, manifest) for problem in problems] or refusals.of_values(cfg)
    if problems:
        raise Refused(problems)
    found = Reproduction(out, manifest, cfg, settled)
    now = circumstances.present(cfg)
    found.changes = circumstances.differences(manifest, now)
    found.notices = [*_about_the_run(found, status), *circumstances.notices(manifest, now)]
    found.notices += _use_its_threads(manifest)
    return found


def _about_the_run(found: Reproduction, status: str) -> list[str]:
    said: list[str] = []
    if status != "done":
        said.append(
            f"the recorded run is {status}: what it has logged until then is compared, and no weights"
        )
    if found.manifest.get("resumed"):
        said.append("the recorded run was resumed; it is repeated in one go, which gives the same")
    said += [
        f"the recorded run is of an older version: no {what}"
        for what in circumstances.not_recorded(found.manifest)
    ]
    said += [f"{key}: {old} lies at {new} now" for key, old, new in found.place.moved]
    if str(found.place.cwd) != found.manifest["cwd"]:
        said.append(f"relative paths start from {found.place.cwd}; they started from {found.manifest['cwd']}")
    return said


def _use_its_threads(manifest: runs.Manifest) -> list[str]:
    """Have the worker compute with the recorded number of threads: sums are split among them."""
    threads, here = (manifest.get("machine") or {}).get("threads"), cores()
    if threads is None:
        return []
    os.environ[processes.THREADS] = str(threads)
    if here < threads:
        return [f"this machine has {here} cores for the {threads} threads of the run, which take turns"]
    return []


def _run_again(found: Reproduction, asked: Namespace) -> int:
    out, made = _new_folder(found, asked)
    first = first_manifest(found.cfg, found.manifest["command"][1:], None)
    runs.create(out, record.dump(found.cfg), first | {"reproduces": str(found.out)})
    if not asked.json:
        print(f"runs again in {out}", flush=True)
    code = processes.run_worker(out, found.cfg, quiet=asked.json)
    new = runs.read_manifest(out)
    if code == INTERRUPTED:
        return INTERRUPTED
    if code == REFUSED:
        if asked.json:
            print(f"refused: {new.get('reason')}", file=sys.stderr)
        processes.remove_refused(out, made)
        return REFUSED
    known = {(change.kind, change.name) for change in found.changes}
    late = circumstances.differences(found.manifest, new)
    found.changes += [change for change in late if (change.kind, change.name) not in known]
    found.notices += [
        said for said in circumstances.notices(found.manifest, new) if said not in found.notices
    ]
    return _judge(found, out, new, asked)


def _new_folder(found: Reproduction, asked: Namespace) -> tuple[Path, list[Path]]:
    """The folder of the new run, which is free, and those that are made for it."""
    out = asked.out
    if out is None:
        beside = found.out.with_name(found.out.name + SUFFIX)
        numbered = (beside.with_name(f"{beside.name}-{number}") for number in range(2, 10_000))
        out = beside if not beside.exists() else next(one for one in numbered if not one.exists())
    runs.check_free(out, "--out")
    return out, [folder for folder in (out, *out.parents) if not folder.exists()]


def _judge(found: Reproduction, out: Path, new: runs.Manifest, asked: Namespace) -> int:
    whole = runs.status(found.manifest) == "done"
    log = outcome.compare_logs(found.out, out, until_old=not whole)
    weights = outcome.compare_weights(found.out, out) if whole and new["status"] == "done" else None
    failed = new["status"] != "done" and (whole or new.get("reason") != found.manifest.get("reason"))
    identical = (
        log.parting is None and log.values > 0 and not failed and (weights is None or weights.identical)
    )
    if asked.json:
        answer = _as_dict(found) | {"reproduction": str(out), "identical": identical, "status": new["status"]}
        print(json.dumps(answer | outcome.as_dict(log, weights), indent=2))
    else:
        print("\n".join(_verdict(found, out, identical, log, weights)))
        if failed:
            print(f"  the new run {new['status']}: {new.get('reason') or 'no reason is known'}")
    return IDENTICAL if identical else DIFFERENT


def _before(found: Reproduction) -> list[str]:
    """What is said before the run."""
    lines = [f"notice: {said}" for said in found.notices]
    if found.changes:
        return [
            *lines,
            "since the recorded run these have changed:",
            *(f"  {change}" for change in found.changes),
        ]
    return [*lines, "code, packages, data, tokenizer, template and models are those of the recorded run"]


def _verdict(
    found: Reproduction,
    out: Path,
    identical: bool,
    log: outcome.LogComparison,
    weights: outcome.WeightComparison | None,
) -> list[str]:
    names = f"{os.path.relpath(out)} and {os.path.relpath(found.out)}"
    if identical:
        head = [f"identical: {names} agree in {log.values} values of {log.steps} logged steps"]
    elif log.parting is not None:
        head = [f"not identical: {names} part at {log.parting}"]
    else:
        head = [
            f"not identical: {names} agree in {log.values} values of {log.steps} logged steps, and then part"
        ]
    lines = head + [f"  {line}" for line in (weights.lines() if weights else ())]
    if not identical:
        lines += [f"  changed before it: {change}" for change in found.changes] or [_unexplained(found)]
    return lines


def _unexplained(found: Reproduction) -> str:
    """What can be said where nothing that decides a result has changed."""
    gpus = (found.manifest.get("machine") or {}).get("gpus")
    if gpus and not found.cfg.training.deterministic:
        return "  nothing recorded has changed; on a GPU only training.deterministic=true repeats bit by bit"
    return "  nothing recorded has changed; see the notices above for hardware and threads"


def _as_dict(found: Reproduction) -> dict[str, Any]:
    return {
        "run": str(found.out),
        "changes": [change.as_dict() for change in found.changes],
        "notices": found.notices,
    }
