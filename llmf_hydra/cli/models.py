"""`llmf models`: the choices of `model=`, with what each stands for."""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from llmf_hydra.cli.commands import Parser
from llmf_hydra.config.conf_files import check_user_conf, choices, file_of, flat_values
from llmf_hydra.errors import DONE

NAME, TEMPLATE = "model.model_name_or_path", "data.template"
SIZE = re.compile(rf"{NAME.partition('.')[2]}:.*#\s*(?P<size>[\d.]+[MBT])\b")
OWN = "the tokenizer's own"


@dataclass(frozen=True)
class Preset:
    """One file of `conf/model`; None for what it doesn't say."""

    choice: str
    name: str | None  # a hub's name, or a built-in model
    size: str | None  # of its weights: 8B
    template: str | None


def presets() -> list[Preset]:
    """The choices of the group, the user's own among them."""
    return [_preset(choice) for choice in choices("model")]


def main(argv: Sequence[str]) -> int:
    """Answer `llmf models`."""
    parser = Parser("models")
    parser.add_argument("--json", action="store_true", help="as JSON")
    asked = parser.parse_args(argv)
    check_user_conf()
    found = presets()
    print(json.dumps([asdict(one) for one in found], indent=2) if asked.json else "\n".join(_lines(found)))
    return DONE


def _preset(choice: str) -> Preset:
    file = file_of("model", choice)
    values = flat_values(file, "model")
    size = SIZE.search(file.read_text(encoding="utf8"))
    name, template = values.get(NAME), values.get(TEMPLATE)
    return Preset(
        choice,
        None if name is None else str(name),
        None if size is None else size["size"],
        None if template is None else str(template),
    )


def _lines(found: Sequence[Preset]) -> list[str]:
    rows = [
        (
            f"model={one.choice}",
            one.size or "",
            one.template or (OWN if one.name else ""),
            one.name or "name your own",
        )
        for one in found
    ]
    widths = [max(len(row[at]) for row in rows) for at in range(3)]
    return [f"{a:<{widths[0]}}  {b:>{widths[1]}}  {c:<{widths[2]}}  {d}".rstrip() for a, b, c, d in rows]
