"""`llmf samples RUN`: what a run of stage=grpo was answered, the best and the worst of a group side by side."""

import json
import shutil
import textwrap
from argparse import Namespace
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from llmf_hydra.cli.commands import Parser
from llmf_hydra.cli.run_folder import named_run
from llmf_hydra.errors import DONE, NO_VALUE, Problem, Refused

FOLDER, REWARD = "completions", "reward: "  # as training/rl/groups/table.py writes them
NARROWEST = 60  # columns of a terminal
Row = dict[str, Any]


def main(argv: Sequence[str]) -> int:
    """Answer `llmf samples`; returns the exit code."""
    parser = Parser("samples")
    parser.add_argument("run", metavar="RUN", help="the folder of a run of stage=grpo")
    parser.add_argument(
        "--step", type=int, metavar="N", help="the answers that were generated after step N alone"
    )
    parser.add_argument("--last", type=int, metavar="N", default=3, help="the last N generations; default: 3")
    parser.add_argument(
        "--groups", type=int, metavar="N", default=1, help="groups of each generation; default: 1"
    )
    parser.add_argument("--json", action="store_true", help="print every answer as a line of JSON")
    asked = parser.parse_args(argv)
    for name in ("last", "groups"):
        if getattr(asked, name) < 1:
            raise Refused([Problem(f"--{name}", getattr(asked, name), "must be >= 1")])
    width = max(NARROWEST, shutil.get_terminal_size().columns)
    for rows in _generations(asked):
        lines = map(json.dumps, rows) if asked.json else _shown(rows, asked.groups, width)
        print("\n".join(lines))
    return DONE


def _generations(asked: Namespace) -> Iterator[list[Row]]:
    """The rows of the files that were asked for. Raises Refused where there are none."""
    out, manifest = named_run(asked.run)
    files = sorted((out / FOLDER).glob("*.parquet"))
    if not files:
        remedy = (
            "its answers are in samples.jsonl"
            if (out / "samples.jsonl").exists()
            else "name one of stage=grpo"
        )
        what = f"is of stage={manifest.get('stage')} and has no table of answers"
        raise Refused([Problem(asked.run, NO_VALUE, what, remedy)])
    if asked.step is not None:
        steps = [int(file.stem) for file in files]
        if asked.step not in steps:
            known = ", ".join(map(str, steps[:8])) + (" ..." if len(steps) > 8 else "")
            raise Refused(
                [Problem("--step", asked.step, "nothing was generated then", f"answers came at {known}")]
            )
        files = [files[steps.index(asked.step)]]
    yield from map(_read, files if asked.step is not None else files[-asked.last :])


def _read(file: Path) -> list[Row]:
    import pyarrow.parquet as pq

    rows: list[Row] = pq.read_table(file).to_pylist()
    return rows


def _shown(rows: Sequence[Row], groups: int, width: int) -> Iterator[str]:
    """Some groups of a generation, those with the widest spread first."""
    by_prompt: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        by_prompt.setdefault((row["dataset"], row["row"]), []).append(row)
    mean = sum(row["reward"] for row in rows) / len(rows)
    yield f"step {rows[0]['step']}: {len(rows)} answers to {len(by_prompt)} prompts, mean reward {mean:.3f}"
    for (dataset, number), group in sorted(by_prompt.items(), key=lambda item: -_spread(item[1]))[:groups]:
        best, worst = (pick(group, key=lambda row: row["reward"]) for pick in (max, min))
        yield f"  {dataset} row {number}: {_one_line(group[0]['prompt'], width - len(dataset) - 12)}"
        yield from (
            f"  {line}" for line in _side_by_side(_column("best", best), _column("worst", worst), width - 2)
        )
    yield ""


def _spread(group: Sequence[Row]) -> float:
    rewards = [row["reward"] for row in group]
    return float(max(rewards) - min(rewards))


def _column(name: str, row: Row) -> list[str]:
    """The head and the text of an answer."""
    of_each = ", ".join(
        f"{key.removeprefix(REWARD)} {value:g}"
        for key, value in row.items()
        if key.startswith(REWARD) and value is not None
    )
    ended = "" if row["ended"] else ", cut"
    return [
        f"{name}: {row['reward']:.3f} ({of_each}), {row['tokens']} tokens{ended}",
        *map(_harmless, row["completion"].splitlines()),
    ]


def _harmless(text: str) -> str:
    """A line without what a terminal would obey: an answer may hold any character."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _side_by_side(left: Sequence[str], right: Sequence[str], width: int) -> Iterator[str]:
    half = (width - 3) // 2
    columns = [
        [part for line in side for part in textwrap.wrap(line, half) or [""]] for side in (left, right)
    ]
    yield from (f"{a:<{half}} | {b}".rstrip() for a, b in zip_longest(*columns, fillvalue=""))


def _one_line(text: str, width: int) -> str:
    """The end of a prompt, which is what it asks."""
    flat = _harmless(" ".join(text.split()))
    return flat if len(flat) <= width else f"...{flat[-max(width - 3, 20) :]}"
