"""What of the group `data` does not fit together. Standard library only."""

import re
from pathlib import Path

from llmf_hydra.config.groups.data import Data
from llmf_hydra.errors import Problem

_TEMPLATES = Path(__file__).parent / "chat" / "templates"


def check_settings(data: Data, kind: str) -> list[Problem]:
    """Problems of the settings alone, without a look at any file."""
    found = [
        *_names(data),
        _history_or_prompt(data),
        _val_size(data),
        _two_evaluations(data),
        _packing(data, kind),
    ]
    return [problem for problem in found if problem] + _shares(data)


def _names(data: Data) -> list[Problem | None]:
    """Of the template and of the way to write tools; read from the files' names and lines alone."""
    templates = sorted(path.stem for path in _TEMPLATES.glob("*.jinja"))
    written = (_TEMPLATES / "tool_formats.yaml").read_text(encoding="utf-8")
    tools = sorted(re.findall(r"^(\w+):", written, re.MULTILINE))
    asked = (("data.template", data.template, templates), ("data.tool_format", data.tool_format, tools))
    return [Problem.bad_choice(key, name, known) for key, name, known in asked if name and name not in known]


def _history_or_prompt(data: Data) -> Problem | None:
    if not (data.train_on_prompt and data.mask_history):
        return None
    what = "with data.train_on_prompt=true: one leaves history out, the other trains on it"
    return Problem("data.mask_history", True, what, "choose one")


def _val_size(data: Data) -> Problem | None:
    if data.val_size >= 1 and data.val_size != int(data.val_size):
        return Problem("data.val_size", data.val_size, "is neither a share below 1 nor a whole count")
    if data.streaming and 0 < data.val_size < 1:
        what = "with data.streaming=true: the number of rows is not known"
        return Problem("data.val_size", data.val_size, what, "give a count of rows")
    return None


def _two_evaluations(data: Data) -> Problem | None:
    if not (data.eval_dataset and data.val_size):
        return None
    return Problem(
        "data.val_size", data.val_size, "with data.eval_dataset: evaluation rows twice", "set one of them"
    )


def _packing(data: Data, kind: str) -> Problem | None:
    if data.neat_packing and data.packing is False:
        return Problem("data.neat_packing", True, "with data.packing=false", "leave data.packing out")
    if (data.packing or data.neat_packing) and kind not in ("text", "dialogue"):
        key = "data.packing" if data.packing else "data.neat_packing"
        return Problem(key, True, "only texts and dialogues can be packed (stage=pt, stage=sft)")
    return None


def wants_packing(data: Data, kind: str) -> bool:
    """Whether rows are packed: as the config says, else only plain text is."""
    return data.neat_packing or (kind == "text" if data.packing is None else data.packing)


def shares(data: Data) -> list[float]:
    """The numbers of data.interleave_probs. Raises ValueError."""
    return [float(part) for part in data.interleave_probs.split(",")] if data.interleave_probs else []


def _shares(data: Data) -> list[Problem]:
    if data.interleave_probs is None:
        return []

    def problem(what: str, remedy: str) -> list[Problem]:
        return [Problem("data.interleave_probs", data.interleave_probs, what, remedy)]

    try:
        given = shares(data)
    except ValueError:
        return problem("is not a list of numbers", "write one share for each dataset, such as 0.7,0.3")
    count = len((data.dataset or "").split(","))
    if len(given) != count:
        return problem(f"has {len(given)} shares for {count} datasets", "give one for each dataset")
    if min(given) <= 0 or abs(sum(given) - 1) > 1e-6:
        return problem(f"adds up to {sum(given):g}", "give positive shares that add up to 1")
    return []
