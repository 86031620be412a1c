"""The file of the reward `json_schema`. Without torch."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmf_hydra import optional
from llmf_hydra.config.rewards.items import KEY
from llmf_hydra.errors import Problem


def problem(name: str) -> Problem | None:
    """What is wrong with the file of a schema."""
    if optional.missing("jsonschema", extra="rewards", key=KEY):
        return None  # which has a rule of its own
    try:
        validator(name)
    except OSError as error:
        what = (
            f"cannot be read: {error.strerror}"
            if Path(name).expanduser().exists()
            else "there is no such file"
        )
    except ValueError as error:
        what = str(error)
    else:
        return None
    return Problem(KEY, f"json_schema:{name}", what)


def validator(name: str) -> Any:
    """A validator of jsonschema that fetches nothing. Raises ValueError for what is no schema, OSError without a file,
    and Refused without the package."""
    package = optional.require("jsonschema", extra="rewards", key=f"{KEY}=json_schema")
    referencing = optional.require("referencing", extra="rewards", key=f"{KEY}=json_schema")  # comes with it
    try:
        schema = json.loads(Path(name).expanduser().read_text(encoding="utf8"))
    except RecursionError as error:
        raise ValueError("is nested too deeply") from error
    except ValueError as error:
        raise ValueError(f"is no JSON: {error}") from error
    if not isinstance(schema, dict):
        raise ValueError(f"is no schema: it holds {json.dumps(schema)[:40]}, where a mapping is due")
    for reference in _references(schema):
        if not reference.startswith("#"):
            raise ValueError(f"refers to {reference}, and a schema must hold all that it refers to")
    known = package.validators.validator_for(schema)
    try:
        known.check_schema(schema)
        made = known(schema, registry=referencing.Registry())
        made.is_valid({})
    except package.exceptions.SchemaError as error:
        raise ValueError(f"is no schema: {error.message} at {error.json_path}") from error
    except RecursionError as error:
        raise ValueError("refers to itself without end") from error
    except referencing.exceptions.Unresolvable as error:
        raise ValueError(f"refers to what it lacks: {error}") from error
    return made


def _references(schema: Any) -> Iterator[str]:
    """Every `$ref` in a schema."""
    waiting = [schema]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            if isinstance(part.get("$ref"), str):
                yield part["$ref"]
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part
