"""The generated pages: docs/parameters.md for readers, docs/schema.json for editors.

`python -m llmf_hydra.cli.reference` writes both.
"""

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from llmf_hydra.cli import wording
from llmf_hydra.config.schema import GROUPS, Entry, entries
from llmf_hydra.config.spec import rows, rows_at
from llmf_hydra.paths import PACKAGE, conf_dir

JSON_TYPES = {
    "int": "integer",
    "float": "number",
    "bool": "boolean",
    "str": "string",
    "null": "null",
    "mapping": "object",
    "list": "array",
}
INTERPOLATION = {"type": "string", "pattern": r"\$\{.+\}"}

INTRODUCTION = """\
# Parameters

Generated from the declarations by `make docs`; change a declaration, not this page.

Set one with `GROUP.NAME=VALUE`, or choose a file of a group with `GROUP=CHOICE`. `llmf explain NAME` says
more of one parameter. *Not built yet* marks what is refused when it is set."""

HEAD = ("parameter", "type", "default", "allowed", "what", "acts only with", "spec row", "variable")


def main(argv: list[str]) -> int:
    """Write both pages into the given folder, or into the checkout's `docs`."""
    write(Path(argv[0]) if argv else PACKAGE.parent / "docs")
    return 0


def write(docs_dir: Path) -> None:
    """Write `parameters.md` and `schema.json`."""
    docs_dir.mkdir(parents=True, exist_ok=True)
    (docs_dir / "parameters.md").write_text(parameters_md(), encoding="utf-8")
    (docs_dir / "schema.json").write_text(schema_text(), encoding="utf-8")


def parameters_md() -> str:
    """Every parameter in a table of its group, then every row of the specification with its place."""
    return "\n\n".join([INTRODUCTION, *map(_group_section, GROUPS), _spec_section()]) + "\n"


def _group_section(group: str) -> str:
    own = [entry for entry in entries().values() if entry.group == group]
    about = wording.about(group)
    shipped = sorted(file.stem for file in (conf_dir() / group).glob("*.yaml"))
    choices = ", ".join(f"`{group}={choice}`" for choice in shipped)
    text = f"{about[:1].upper()}{about[1:]}. Choices: {choices}."
    return f"## {group}\n\n{text}\n\n{_table(HEAD, map(_cells, own))}"


def _cells(entry: Entry) -> list[str]:
    declared = entry.param
    what = declared.help + (f" *{wording.NOT_BUILT.capitalize()}.*" if declared.planned else "")
    spec = ", ".join(f"{row.table}.{row.name}" for row in rows_at(entry.key))
    default = f"`{wording.default_of(entry)}`"
    acts = wording.acts_with(entry)
    return [
        f"`{entry.name}`",
        entry.type_name,
        default,
        wording.allowed(entry),
        what,
        acts,
        spec,
        declared.env or "",
    ]


def _spec_section() -> str:
    lines = (
        [r.table, f"`{r.name}`", r.type, r.default, f"`{r.place}`", "" if r.place.built else "no"]
        for r in rows()
    )
    table = _table(("table", "row", "type", "default", "lives at", "built"), lines)
    text = "`stage=*` means that the row's value is the choice; `optimizer=galore` is the row set to true."
    return f"## The {len(rows())} rows of the specification\n\n{text}\n\n{table}"


def _table(head: Iterable[str], lines: Iterable[list[str]]) -> str:
    head = list(head)
    cells = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in line] for line in lines)]
    return "\n".join("| " + " | ".join(line) + " |" for line in cells)


def schema_text() -> str:
    """The schema as it stands in `docs/schema.json`."""
    return json.dumps(json_schema(), indent=1, ensure_ascii=False) + "\n"


def json_schema() -> dict[str, object]:
    """JSON Schema 2020-12 of the config. Nothing is required, so that it fits an experiment's file too."""
    defaults = {"type": "array", "description": "Hydra's defaults list: the choices this file starts from."}
    hydra = {"type": "object", "description": "Hydra's own settings."}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "llmf_hydra",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "defaults": defaults,
            "hydra": hydra,
            **{group: _group_schema(group) for group in GROUPS},
        },
        "$defs": {"interpolation": {**INTERPOLATION, "description": "Another value: ${group.name}."}},
    }


def _group_schema(group: str) -> dict[str, object]:
    own = {entry.name: _parameter_schema(entry) for entry in entries().values() if entry.group == group}
    return {
        "type": "object",
        "description": wording.about(group),
        "additionalProperties": False,
        "properties": own,
    }


def _parameter_schema(entry: Entry) -> dict[str, object]:
    acts = wording.acts_with(entry)
    marks = [f"Acts only with {acts}."] if acts else []
    marks += [f"{wording.NOT_BUILT.capitalize()}."] if entry.param.planned else []
    return {
        "description": " ".join([entry.param.help, *marks]),
        "default": entry.param.default,
        "anyOf": [dict(_value_schema(entry)), {"$ref": "#/$defs/interpolation"}],
    }


def _value_schema(entry: Entry) -> Iterator[tuple[str, object]]:
    types = [JSON_TYPES[name] for name in entry.type_name.split(" or ")]
    if entry.type is Any and "null" not in types:
        types.append("null")
    if entry.param.choices:
        yield "enum", [*entry.param.choices, *([None] if "null" in types else [])]
        return
    yield "type", types[0] if len(types) == 1 else types
    declared = entry.param
    limits = {
        "minimum": declared.ge,
        "exclusiveMinimum": declared.gt,
        "maximum": declared.le,
        "exclusiveMaximum": declared.lt,
    }
    yield from ((keyword, limit) for keyword, limit in limits.items() if limit is not None)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
