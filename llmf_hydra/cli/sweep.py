"""`llmf sweep show | resume | report DIR`: look at a study, go on with it, make a page of it."""

import argparse
import json
import os
import shlex
import shutil
import sys
import time
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from llmf_hydra.cli.commands import Parser
from llmf_hydra.config.secrets import masked_text, masked_word
from llmf_hydra.errors import DONE, NO_VALUE, Problem, Refused

if TYPE_CHECKING:
    from llmf_hydra.sweeps.folder import SweepFolder

PERIOD = 1.0  # seconds between two looks
IDLE = 5  # looks in a row at which nothing ran: the launcher is gone
BACK = "\x1b[{}F\x1b[J"  # so many lines up, and all below it cleared
HIDE, UNHIDE = "\x1b[?25l", "\x1b[?25h"  # the cursor


class _Verb(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Refused([Problem(self.prog.removeprefix("llmf "), NO_VALUE, message, f"`{self.prog} --help`")])


def main(argv: Sequence[str]) -> int:
    """Run one of the verbs; returns the exit code."""
    asked = _parser().parse_args(argv)
    return asked.run(asked)


def _parser() -> argparse.ArgumentParser:
    parser = Parser("sweep")
    verbs = parser.add_subparsers(required=True, metavar="show|resume|report", parser_class=_Verb)
    showing = verbs.add_parser("show", help="the trials, the best so far, what runs and for how long still")
    showing.add_argument("dir", type=Path, help="the sweep's folder")
    form = showing.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="for programs")
    form.add_argument("--csv", action="store_true", help="a row per trial")
    form.add_argument("--watch", action=argparse.BooleanOptionalAction, default=None,
                      help="again every second until the study is over; the default on a terminal")  # fmt: skip
    showing.set_defaults(run=_show)
    resuming = verbs.add_parser("resume", help="go on with a study: its own command, in its own folder")
    resuming.add_argument("dir", type=Path, help="the sweep's folder")
    resuming.add_argument(
        "overrides", nargs="*", help="words that are added, or replace those of the command"
    )
    resuming.set_defaults(run=_resume)
    reporting = verbs.add_parser("report", help="one HTML page with plots and all trials")
    reporting.add_argument("dir", type=Path, help="the sweep's folder")
    reporting.add_argument("--out", type=Path, help="the page; default: DIR/report.html")
    reporting.add_argument("--open", choices=("yes", "no"), default="yes" if _has_screen() else "no",
                           help="show it in the browser; default: where there is a screen")  # fmt: skip
    reporting.set_defaults(run=_report)
    for verb in (showing, reporting):
        verb.add_argument(
            "--storage", metavar="URL", help="where the study is, if its URL was moved or has a password"
        )
    return parser


def _show(asked: argparse.Namespace) -> int:
    from llmf_hydra.sweeps import show
    from llmf_hydra.sweeps.folder import SweepFolder

    folder = SweepFolder.open(asked.dir, asked.storage)
    seen = show.view(folder)
    if asked.json:
        print(json.dumps(show.for_programs(seen), indent=2, ensure_ascii=False))
    elif asked.csv:
        print(show.as_csv(seen), end="")
    elif sys.stdout.isatty() and (asked.watch or (asked.watch is None and seen.running)):
        _watch(folder)
    else:
        print(show.text(seen))
    return DONE


def _watch(folder: "SweepFolder") -> None:
    """Show the study anew every second, in place, until it is over, nothing runs any more, or Ctrl-C."""
    from llmf_hydra.sweeps import show

    drawn = idle = 0
    print(HIDE, end="")
    try:
        while True:
            seen = show.view(folder)
            idle = 0 if seen.running else idle + 1
            if seen.over or idle > IDLE:
                break
            drawn = _redraw(show.text(seen), drawn)
            time.sleep(PERIOD)
    except KeyboardInterrupt:
        pass
    finally:
        print(UNHIDE, end="")
    print(f"{BACK.format(drawn) if drawn else ''}{show.text(show.view(folder))}")


def _redraw(text: str, drawn: int) -> int:
    """Draw over the `drawn` lines of the last time what fits the terminal; returns how many lines that is."""
    width, height = shutil.get_terminal_size()
    lines = [line[: width - 1] for line in text.splitlines()]
    if len(lines) > height - 1:
        lines = [*lines[: height - 2], "…"]
    print((BACK.format(drawn) if drawn else "") + "\n".join(lines), flush=True)
    return len(lines)


def _resume(asked: argparse.Namespace) -> int:
    from llmf_hydra import launch
    from llmf_hydra.sweeps import folder, plan

    path = asked.dir.expanduser().absolute()
    known = plan.read(path)
    words = folder.resuming(path, known, asked.overrides)
    cwd = Path(known["cwd"])
    if not cwd.is_dir():
        raise Refused(
            [Problem("cwd", cwd, "the study was begun there, and the folder is gone", "make it again")]
        )
    folder.settle(path, known)
    os.chdir(cwd)
    print(f"in {cwd}: {masked_text(shlex.join(['llmf-hydra', *map(masked_word, words)]))}", flush=True)
    return launch.main(words)


def _report(asked: argparse.Namespace) -> int:
    from llmf_hydra.sweeps.folder import SweepFolder
    from llmf_hydra.sweeps.report import page

    folder = SweepFolder.open(asked.dir, asked.storage)
    out: Path = (asked.out or folder.path / "report.html").expanduser().absolute()
    if out.is_dir() or not out.parent.is_dir():
        what = "is a folder" if out.is_dir() else "lies in a folder that isn't there"
        raise Refused([Problem("--out", out, what, "name a file")])
    out.write_text(page.html(folder, out), encoding="utf8")
    print(os.path.relpath(out))
    if asked.open == "yes":
        webbrowser.open(out.as_uri())
    return DONE


def _has_screen() -> bool:
    """Whether somebody sits before a screen on which a browser can show a page."""
    display = sys.platform == "darwin" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
    return sys.stdout.isatty() and display
