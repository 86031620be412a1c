"""`llmf status`: what is declared and not built yet. The list only shrinks."""

from argparse import SUPPRESS
from collections.abc import Sequence

from llmf_hydra.cli.commands import Parser
from llmf_hydra.config.schema import GROUPS, Entry, entries
from llmf_hydra.config.spec import Row, rows
from llmf_hydra.errors import DONE, Refused


def planned() -> list[str]:
    """Every parameter and every choice that is refused because it is not built yet, in the schema's order."""
    found: list[str] = []
    for entry in entries().values():
        if entry.param.planned:
            found.append(entry.key)
        found += [_choice(entry, choice) for choice in entry.param.planned_choices]
    return found


def built_rows() -> list[Row]:
    """The rows of the specification that may be set."""
    return [row for row in rows() if row.place.built]


def main(argv: Sequence[str]) -> int:
    """Answer `llmf status`; it takes no words."""
    parser = Parser("status")
    parser.add_argument("word", nargs="*", help=SUPPRESS)
    words: list[str] = parser.parse_args(argv).word
    if words:
        raise Refused([f"status: takes no words, but got {' '.join(words)}"])
    print(status())
    return DONE


def status() -> str:
    """The list by group, under a line that counts the rows of the specification."""
    waiting = planned()
    lines = [f"built {len(built_rows())} of {len(rows())} rows of the specification"]
    if waiting:
        lines.append(f"declared, not built yet ({len(waiting)}); setting one is refused:")
    for group in GROUPS:
        names = [name for name in waiting if _group_of(name) == group]
        if names:
            lines += ["", f"{group} ({len(names)})", *(f"  {name}" for name in names)]
    return "\n".join(lines)


def _choice(entry: Entry, choice: str) -> str:
    """A choice as it is written: `stage=ppo`, or `model.flash_attn=fa2` where it is no file."""
    return f"{entry.group if entry.is_choice else entry.key}={choice}"


def _group_of(written: str) -> str:
    return written.partition("=")[0].partition(".")[0]
