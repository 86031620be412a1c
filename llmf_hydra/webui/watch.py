"""What is seen of a run while it runs and afterwards, from its folder alone; and how it is stopped."""

import json
import os
import signal
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas

from llmf_hydra.errors import NO_VALUE, Problem, Refused
from llmf_hydra.runs import folder as runs
from llmf_hydra.runs.folder import Row, manifest_fault
from llmf_hydra.runs.listing import find
from llmf_hydra.tracking.files import LOG, read_log
from llmf_hydra.webui import commands
from llmf_hydra.webui.fields import Place

HEAD = ["run", "status", "job", "method", "model", "objective", "duration"]
LOGGED = ["step", "value", "metric"]
NOT_DRAWN = ("step", "epoch", "time", "total_flos")
CLOCK = ("runtime", "per_second")
POINTS = 500  # of a curve that are drawn


def rows(place: Place) -> list[Row]:
    """All runs, the latest first."""
    return list(find(place.outputs))[::-1]


def name(out: Path, place: Place) -> str:
    """A run as fields name it: its path from the page's folder."""
    return os.path.relpath(out, place.cwd)


def choices(found: Sequence[Row], place: Place, jobs: Sequence[str] = ("train",)) -> list[tuple[str, str]]:
    """The runs for a field to choose from: what it shows, and what it says."""
    named = [(row.manifest, name(row.out, place)) for row in found if row.job in jobs]
    return [(f"{run} ({of.get('method')} of {of.get('model')})", run) for of, run in named]


def table(found: Sequence[Row], place: Place) -> list[list[str]]:
    """The runs, a line each under HEAD."""
    return [
        [
            name(row.out, place),
            row.status,
            row.manifest.get("stage") or "-" if row.job == "train" else row.job,
            row.manifest.get("method") or "-",
            row.manifest.get("model") or "-",
            _objective(row.manifest),
            runs.duration(row.manifest),
        ]
        for row in found
    ]


def _objective(manifest: runs.Manifest) -> str:
    reached = manifest.get("objective")
    return f"{reached['value']:.4f} {reached['name']}" if reached else "-"


def manifest_of(out: Path) -> runs.Manifest | None:
    """The manifest of a run; None while there is none that can be read."""
    try:
        content = json.loads((out / runs.MANIFEST).read_text(encoding="utf8"))
    except (OSError, ValueError):
        return None
    return content if manifest_fault(content) is None else None


def state(out: Path, place: Place) -> str:
    """How a run stands, on one line."""
    manifest = manifest_of(out)
    if manifest is None:
        return f"{name(out, place)}: no manifest"
    parts = [
        runs.status(manifest),
        runs.duration(manifest),
        _objective(manifest),
        manifest.get("reason") or "",
    ]
    return f"{name(out, place)}: {', '.join(part for part in parts if part not in ('', '-'))}"


def is_over(out: Path) -> bool:
    """Whether nothing more is to come of a run."""
    manifest = manifest_of(out)
    return manifest is not None and runs.status(manifest) not in ("created", "running")


def metrics_of(outs: Sequence[Path]) -> list[str]:
    """The metrics that were logged by any of the runs, the losses first."""
    found = {key for out in outs for record in _log(out) for key in record if _is_drawn(key)}
    return sorted(found, key=lambda key: (not key.endswith("loss"), key))


def drawn_of(wanted: Sequence[str], logged: Sequence[str]) -> list[str]:
    """The metrics to draw: those that are wanted and logged, or else the losses that make a curve."""
    return [metric for metric in wanted if metric in logged] or [
        metric for metric in logged if metric.endswith("loss") and metric != "train_loss"
    ]


def curves(outs: Sequence[Path], metrics: Sequence[str], place: Place) -> pandas.DataFrame | None:
    """What the runs have logged of these metrics, a row for each point, and None for no point: a plot that was built
    without any would show none later. Several runs are told apart by name."""
    points = [
        [
            record["step"],
            float(record[metric]),
            metric if len(outs) == 1 else f"{metric} {label}",
        ]
        for out, label in zip(outs, _labels([name(out, place) for out in outs]), strict=True)
        for metric in metrics
        for record in _thinned([record for record in _log(out) if metric in record and "step" in record])
    ]
    return pandas.DataFrame(points, columns=LOGGED) if points else None


def _labels(names: list[str]) -> list[str]:
    """What tells names apart, for a legend that has no room for whole ones: all after what they begin with alike."""
    shared = os.path.commonprefix(names)  # noqa: RUF071 -- of characters: names part within their last component
    begun = max(shared.rfind(mark) for mark in "/_-= ") + 1
    return [found[begun:] or found for found in names]


def _thinned(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    stride = -(-len(records) // POINTS) or 1
    return records[::-stride][::-1]  # the last one stays


def _is_drawn(metric: str) -> bool:
    return metric not in NOT_DRAWN and metric != "warning" and not any(part in metric for part in CLOCK)


def _log(out: Path) -> list[dict[str, Any]]:
    return read_log(out / LOG) if (out / LOG).is_file() else []


def text(out: Path, place: Place) -> str:
    """What a run has printed and warned of, as far as it left that: at its end the traceback of a failed one."""
    return "\n".join(part for part in _texts(out, place) if part)


def _texts(out: Path, place: Place) -> Iterator[str]:
    yield next((started.output for started in commands.all_started(place) if started.run(place) == out), "")
    yield commands.tail(out / "worker.log")
    yield "\n".join(f"warning: {record['warning']}" for record in _log(out) if "warning" in record)
    yield commands.tail(out / "error.txt")


def stop(out: Path, place: Place) -> None:
    """Ask a run to save and end. Raises Refused where it isn't running on this machine."""
    for started in commands.all_started(place):
        if started.running and started.run(place) == out:
            commands.stop(started)
            return
    manifest = manifest_of(out)
    host = manifest.get("host") if manifest else None
    if manifest is None or runs.status(manifest) != "running":
        raise Refused([Problem(name(out, place), NO_VALUE, "isn't running")])
    if host != socket.gethostname() or "pid" not in manifest:
        raise Refused([Problem(name(out, place), NO_VALUE, f"runs on {host}", "stop it there")])
    try:
        os.kill(manifest["pid"], signal.SIGTERM)
    except ProcessLookupError:
        pass  # it has just ended
    except PermissionError:
        raise Refused([Problem(name(out, place), NO_VALUE, "belongs to another user")]) from None
