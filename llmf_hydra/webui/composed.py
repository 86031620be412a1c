"""The composed config beside what would be refused of it, and edits of the config as words of the command line."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from llmf_hydra.config.migrate import KEY
from llmf_hydra.config.quoting import hydra_value
from llmf_hydra.errors import NO_VALUE, Problem, Refused
from llmf_hydra.webui.commands import answer
from llmf_hydra.webui.fields import Place


@dataclass(frozen=True)
class Composed:
    """A command line's config as YAML, empty where there is none, and all that would be refused."""

    config: str
    problems: list[str]


def compose(words: Sequence[str], place: Place, *, sweep: bool = False) -> Composed:
    """Compose and check a command line, without a run; what can't be composed has its reason in `problems`."""
    told = answer(["compose", "--json", *(["-m"] if sweep else []), *words], place)
    try:
        content = json.loads(told.out)
        return Composed(content["config"] or "", content["problems"])
    except (ValueError, KeyError):
        return Composed("", [told.text])


def edits(composed: str, edited: str) -> list[str]:
    """The words that turn the composed config into the edited one. Raises Refused where it isn't a config."""
    was, now = _tree(composed), _tree(edited)
    gone = [Problem(key, NO_VALUE, "was taken out of the config", "set it to null, or put it back") for key in was
            if key not in now]  # fmt: skip
    if gone:
        raise Refused(gone)
    return [_word(key, value) for key, value in now.items() if key not in was or was[key] != value]


def _word(key: str, value: object) -> str:
    group, _, name = key.partition(".")
    return f"{group}={value}" if name == "name" else f"{key}={hydra_value(value)}"


def _tree(text: str) -> dict[str, Any]:
    """The values of a config by full key."""
    try:
        content: Any = OmegaConf.to_container(OmegaConf.create(text or "{}"), resolve=False)
    except (yaml.YAMLError, OmegaConfBaseException, ValueError) as error:
        what = f"is not YAML: {' '.join(str(error).split())}"
        raise Refused([Problem("config", NO_VALUE, what)]) from error
    if not isinstance(content, dict):
        raise Refused([Problem("config", NO_VALUE, "holds no groups")])
    return dict(_flat(content))


def _flat(content: dict[Any, Any]) -> Iterator[tuple[str, Any]]:
    for group, values in content.items():
        if isinstance(values, dict):
            yield from ((f"{group}.{name}", value) for name, value in values.items())
        elif group != KEY:
            yield str(group), values
