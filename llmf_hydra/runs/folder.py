"""Run folders: made once, never reused; their manifest. `listing` finds them.

    outputs/<stage>/<time>_<id>/
        config.yaml     the run's only truth        manifest.json   how it came about, and its status
        log.jsonl       a line a logging step       metrics.json    the last values
        checkpoint-*/   final/                      *.png

Stdlib only: the launcher uses it before torch.
"""

import json
import os
import socket
import tempfile
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NotRequired, Required, TypedDict

from llmf_hydra.errors import DONE, INTERRUPTED, PRUNED, Problem, Refused, shown

CONFIG, MANIFEST, METRICS = "config.yaml", "manifest.json", "metrics.json"
STATUSES = ("created", "running", "done", "pruned", "failed", "killed")
ENDED = {DONE: "done", PRUNED: "pruned", INTERRUPTED: "killed"}  # the status that an exit code stands for
TEXT, NUMBER, MAPPING = (str, type(None)), (int, type(None)), (dict, type(None))
FORMS = {  # of what is read again in a manifest; an older run may lack some
    **dict.fromkeys(
        ("created", "started", "ended", "host", "pid_started", "job", "stage", "method", "model"), TEXT
    ),
    **dict.fromkeys(("data", "cwd", "reason", "direction"), TEXT),
    **dict.fromkeys(("pid", "exit_code", "parameters"), NUMBER),
    **dict.fromkeys(("sweep", "objective", "machine"), MAPPING),
}


class Objective(TypedDict):
    """The metric by which runs are compared, and its last value."""

    name: str
    value: float


class Sweep(TypedDict):
    """The sweep that a trial belongs to."""

    dir: str
    name: str
    trial: int
    overrides: list[str]
    study: NotRequired[
        str
    ]  # the study's name and what tells it from others of that name, wherever its folder is
    varied: NotRequired[list[str]]  # those of the overrides that differ between its trials


class Manifest(TypedDict, total=False):
    """What `manifest.json` holds; `machine`, `digests`, `estimate` and the like are only read by people."""

    status: Required[str]
    created: Required[str]  # times are ISO 8601, in UTC
    started: str
    ended: str
    exit_code: int
    reason: str  # why it failed
    host: str
    peak_memory_mb: int
    pid: int  # of the worker
    pid_started: str  # see `process_identity`
    job: str
    parameters: int  # that its config.yaml was written with
    stage: Required[str]
    method: Required[str]
    model: Required[str | None]
    data: Required[str | None]
    command: Required[list[str]]
    cwd: Required[str]
    sweep: Required[Sweep | None]
    git: Required[dict[str, object] | None]
    objective: Objective | None
    direction: str  # of the objective: minimize or maximize


def ended_as(code: int) -> str:
    """The status of a run whose worker ended with this exit code, -N where signal N ended it."""
    return "killed" if code < 0 else ENDED.get(code, "failed")


def now() -> str:
    """The time in UTC, to the millisecond, as ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def check_free(out: Path, key: str, apart_from: Collection[str] = ()) -> None:
    """Raise Refused where a run may not write: a folder that holds files, the home folder, no folder at all.

    `key` is the setting that named it; entries in `apart_from` may be there.
    """
    there = next(folder for folder in (out, *out.parents) if folder.exists())
    if out in (Path.home(), Path(out.root)):
        raise Refused([Problem(key, out, "is no folder for one run", "name a new folder")])
    if not there.is_dir():
        raise Refused([Problem(key, out, f"{there} is a file", "name a new folder")])
    if not os.access(there, os.W_OK | os.X_OK):
        raise Refused([Problem(key, out, f"{there} may not be written to", "name another folder")])
    if (out / CONFIG).exists():
        raise Refused([_taken(key, out)])
    held = sorted({entry.name for entry in out.iterdir()} - set(apart_from)) if there == out else []
    if held:
        what = f"holds files already ({', '.join(held[:3])}{', …' if len(held) > 3 else ''})"
        raise Refused([Problem(key, out, what, "name a new folder or an empty one")])


def remove_empty(out: Path, since: float) -> None:
    """Take away a folder that is empty and was made after `since` (seconds since 1970); an older one is the user's."""
    with suppress(OSError):
        if out.stat().st_ctime >= since:
            out.rmdir()


def _taken(key: str, out: Path) -> Problem:
    remedy = "choose another folder, or `llmf resume` to go on with that run"
    return Problem(key, out, "holds a run already", remedy)


def create(out: Path, config: str, manifest: Mapping[str, object]) -> None:
    """Claim the folder for one run and write its config and manifest down.

    Raises Refused if another run holds the folder: of several that ask at once, exactly one gets it.
    """
    out.mkdir(parents=True, exist_ok=True)
    try:
        with (out / CONFIG).open("x", encoding="utf8") as file:
            file.write(config)
    except FileExistsError:
        raise Refused([_taken("hydra.run.dir", out)]) from None
    write_manifest(out, {"status": "created", "created": now(), **manifest})


def clear_half_made(out: Path, config: str) -> None:
    """Take away what `create` leaves when it is killed: this config or its beginning, and at most a manifest's draft.

    A folder that holds anything else, such as a config of the user's, stays as it is.
    """
    held = {entry.name: entry for entry in out.iterdir()} if out.is_dir() else {}
    if CONFIG not in held or any(name != CONFIG and not name.startswith(f".{MANIFEST}.") for name in held):
        return
    if config.encode().startswith(held[CONFIG].read_bytes()):
        for entry in held.values():
            entry.unlink()


def read_manifest(out: Path) -> Manifest:
    """The manifest of a run folder."""
    return json.loads((out / MANIFEST).read_text(encoding="utf8"))


def manifest_fault(content: object) -> str | None:
    """What keeps parsed JSON from being the manifest of a run, or None."""
    if not isinstance(content, dict):
        return "holds no mapping"
    if content.get("status") not in STATUSES:
        return f"holds no status out of {', '.join(STATUSES)}"
    for key, kinds in FORMS.items():
        if not isinstance(content.get(key), kinds):
            return f"{key} is {shown(content[key])}"
    objective = content.get("objective")
    if objective is not None and not (
        isinstance(objective.get("name"), str) and isinstance(objective.get("value"), int | float)
    ):
        return f"objective={objective} is not a name and a value"
    return None


def write_manifest(out: Path, manifest: Mapping[str, object]) -> None:
    """Replace the manifest in one stroke: a reader never sees half of it."""
    write_json(out / MANIFEST, manifest)


def update_manifest(out: Path, **values: object) -> None:
    """Change some values of the manifest. Launcher and worker take turns, so nobody else writes meanwhile."""
    write_manifest(out, {**read_manifest(out), **values})


def write_json(file: Path, content: object) -> None:
    """Write JSON beside the file and move it over, so that the file is whole at every moment."""
    text = json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n"
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf8") as draft:
            draft.write(text)
    except BaseException:  # a full disk
        Path(name).unlink()
        raise
    Path(name).chmod(0o644)  # mkstemp's own mode would hide the file from a group
    Path(name).replace(file)


def metrics(out: Path) -> dict[str, float]:
    """The last metrics of a run; empty if it has none."""
    file = out / METRICS
    return json.loads(file.read_text(encoding="utf8")) if file.exists() else {}


def process_identity(pid: int) -> str | None:
    """The start time of a process in clock ticks, so that a reused pid isn't taken for it; None if it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf8")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else fields[19]


def status(manifest: Manifest) -> str:
    """The status in force: a run that says `running` and whose process is gone was killed."""
    said = manifest["status"]
    if said != "running" or manifest.get("host") != socket.gethostname():
        return said
    alive = "pid" in manifest and process_identity(manifest["pid"]) == manifest.get("pid_started", "")
    return "running" if alive else "killed"


@dataclass(frozen=True)
class Row:
    """One run as `llmf runs` shows it."""

    out: Path
    manifest: Manifest

    @property
    def status(self) -> str:
        """The status in force."""
        return status(self.manifest)

    @property
    def job(self) -> str:
        return self.manifest.get("job", "train")

    @property
    def objective(self) -> float | None:
        """The value of the run's objective; None where it has none."""
        objective = self.manifest.get("objective")
        return None if objective is None else objective["value"]


def format_table(head: list[str], rows: list[list[str]]) -> str:
    """Columns aligned with two blanks between them."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [head, *rows]
    ]
    return "\n".join(line.rstrip() for line in lines)


def duration(manifest: Manifest) -> str:
    """How long a run took or has been running, as h:mm:ss."""
    return clock(seconds(manifest.get("started"), manifest.get("ended")))


def clock(total: int | None) -> str:
    """Seconds as h:mm:ss; `-` for none."""
    return "-" if total is None else f"{total // 3600}:{total % 3600 // 60:02}:{total % 60:02}"


def seconds(started: str | None, ended: str | None) -> int | None:
    """The seconds between two points in time, or since the first; None without a first, and for what is no time."""
    if started is None:
        return None
    try:
        end = datetime.fromisoformat(ended) if ended else datetime.now(UTC)
        return int((end - datetime.fromisoformat(started)).total_seconds())
    except (TypeError, ValueError):  # no time, or one without its zone
        return None
