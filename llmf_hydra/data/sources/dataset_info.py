"""A row of `dataset_info.json` and the `Source` it describes (LLaMA-Factory's format).

Standard library only.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmf_hydra.data.rows import MEDIA, type_name
from llmf_hydra.errors import Problem, did_you_mean

FORMATS = ("alpaca", "openai", "sharegpt", "text", "trl")  # the modules of formats/
ENDINGS = (".json", ".jsonl", ".csv", ".tsv", ".txt", ".parquet", ".arrow")

COLUMN_NAMES = (
    "prompt", "query", "response", "history", "messages", "system", "tools",
    "images", "videos", "audios", "chosen", "rejected", "kto_tag", "text",
)  # fmt: skip
_SAME_NAME = {name: name for name in ("system", "tools", "chosen", "rejected")}
DEFAULT_COLUMNS: dict[str, dict[str, str]] = {
    "alpaca": {
        **_SAME_NAME,
        "prompt": "instruction",
        "query": "input",
        "response": "output",
        "history": "history",
        "kto_tag": "kto_tag",
    },
    "sharegpt": {**_SAME_NAME, "messages": "conversations", "kto_tag": "kto_tag"},
    "openai": {**_SAME_NAME, "messages": "messages", "kto_tag": "label"},
    "text": {"text": "text"},
    "trl": {
        **_SAME_NAME,
        "prompt": "prompt",
        "response": "completion",
        "messages": "messages",
        "kto_tag": "label",
    },
}
DEFAULT_TAGS: dict[str, dict[str, str]] = {
    "sharegpt": {
        "role_tag": "from",
        "content_tag": "value",
        "user_tag": "human",
        "assistant_tag": "gpt",
        "observation_tag": "observation",
        "function_tag": "function_call",
        "system_tag": "system",
    },
    "openai": {
        "role_tag": "role",
        "content_tag": "content",
        "user_tag": "user",
        "assistant_tag": "assistant",
        "observation_tag": "tool",
        "function_tag": "function_call",
        "system_tag": "system",
    },
}
TAGS = tuple(DEFAULT_TAGS["sharegpt"])
HUGGING_FACE, MODELSCOPE, MODELERS = HUBS = (
    "hf_hub_url",
    "ms_hub_url",
    "om_hub_url",
)  # the keys that name them
_CHOSEN = {"USE_MODELSCOPE_HUB": MODELSCOPE, "USE_OPENMIND_HUB": MODELERS}  # variables that prefer a hub
PLACES = ("file_name", *HUBS, "script_url", "cloud_file_name")
_KNOWN = (*PLACES, "formatting", "ranking", "subset", "split", "folder", "num_samples", "columns", "tags")


def hubs_in_order() -> tuple[str, ...]:
    """The keys of the hubs, the one first that this run downloads from: its worker says so in the environment."""
    first = next(
        (hub for name, hub in _CHOSEN.items() if os.environ.get(name, "").lower() in ("1", "true")), HUBS[0]
    )
    return (first, *(hub for hub in HUBS if hub != first))


@dataclass(frozen=True)
class Source:
    """Where the rows of one dataset lie and how they are read.

    `format` is empty until the first row was seen.
    """

    name: str
    files: tuple[Path, ...] = ()
    format: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    ranking: bool = False
    num_samples: int | None = None
    hub: str = ""  # name on the hub, where there are no files
    hub_kind: str = HUGGING_FACE
    streamed: bool = False  # its rows stay on the hub until they are read
    subset: str | None = None
    split: str = "train"
    folder: str | None = None
    media_dir: Path | None = None
    given_columns: tuple[str, ...] = ()  # columns that dataset_info.json names: they must exist

    @property
    def media(self) -> tuple[str, ...]:
        """The columns of images, videos and sound that the table names."""
        return tuple(name for name in MEDIA if name in self.columns)

    def column(self, name: str) -> str | None:
        """The file's name of a column, or None where the dataset has no such column."""
        return self.columns.get(name)


def described(name: str, info: object, key: str) -> tuple[Source, list[Problem]]:
    """The source that a table row describes, still without files, and what is wrong with the row."""
    if not isinstance(info, Mapping):
        return Source(name), [Problem(key, name, f"is a {type(info).__name__}, not a mapping")]
    if wrong := list(_wrong_types(name, info, key)):
        return Source(name), wrong
    problems = [*_unknown(name, info, key), *_wrong_values(name, info, key)]
    formatting = info.get("formatting") or "alpaca"
    given = {name: column for name, column in (info.get("columns") or {}).items() if column is not None}
    source = Source(
        name,
        format=formatting,
        columns=columns_of(formatting, given),
        tags=tags_of(
            formatting, {tag: text for tag, text in (info.get("tags") or {}).items() if text is not None}
        ),
        ranking=bool(info.get("ranking", False)),
        num_samples=info.get("num_samples"),
        subset=info.get("subset"),
        split=info.get("split") or "train",
        folder=info.get("folder"),
        given_columns=tuple(given),
    )
    return source, problems


def columns_of(formatting: str, given: Mapping[str, str]) -> dict[str, str]:
    """All columns by their canonical name.

    Given columns replace the defaults, except that of the messages.
    """
    default = DEFAULT_COLUMNS.get(formatting, {})
    if not given:
        return dict(default)
    kept = {name: default[name] for name in ("messages",) if name in default and formatting != "trl"}
    return {**kept, **given}


def tags_of(formatting: str, given: Mapping[str, str]) -> dict[str, str]:
    """The names of keys and roles in a list of messages."""
    return {**DEFAULT_TAGS.get(formatting, {}), **given}


_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    **dict.fromkeys((*PLACES, "formatting", "subset", "split", "folder"), ((str,), "text")),
    "ranking": ((bool,), "true or false"),
    "columns": ((Mapping,), "a mapping of names"),
    "tags": ((Mapping,), "a mapping of names"),
}


def _wrong_types(name: str, info: Mapping[str, object], key: str) -> Iterator[Problem]:
    """Values of another type than the key takes; null is none."""
    for word, (types, wanted) in _TYPES.items():
        value = info.get(word)
        if value is not None and not isinstance(value, types):
            yield Problem(
                key, name, f"its entry in dataset_info.json has {word} {type_name(value)}, not {wanted}"
            )
        elif isinstance(value, Mapping):
            for inner, text in value.items():
                if text is not None and not isinstance(text, str):
                    what = f"its entry in dataset_info.json has {word}.{inner} {type_name(text)}, not text"
                    yield Problem(key, name, what)


def _unknown(name: str, info: Mapping[str, Any], key: str) -> list[Problem]:
    found = [(str(word), _KNOWN, "") for word in info if word not in _KNOWN]
    found += [
        (str(word), COLUMN_NAMES, "columns.")
        for word in info.get("columns") or {}
        if word not in COLUMN_NAMES
    ]
    found += [(str(word), TAGS, "tags.") for word in info.get("tags") or {} if word not in TAGS]
    return [
        Problem(
            key,
            name,
            f"its entry in dataset_info.json has the unknown key {where}{word}",
            did_you_mean(word, known),
        )
        for word, known, where in found
    ]


def _wrong_values(name: str, info: Mapping[str, object], key: str) -> list[Problem]:
    problems: list[Problem] = []
    formatting = info.get("formatting") or "alpaca"
    if formatting not in FORMATS:
        near = did_you_mean(str(formatting), FORMATS)
        problems.append(
            Problem(key, name, f"has formatting {formatting}, not one of {', '.join(FORMATS)}", near)
        )
    if not any(info.get(place) for place in PLACES):
        problems.append(
            Problem(
                key,
                name,
                "its entry in dataset_info.json names no file and no hub",
                "set file_name or hf_hub_url",
            )
        )
    elif info.get("script_url") and not any(info.get(place) for place in PLACES if place != "script_url"):
        what = "is made by a loading script (script_url), which datasets no longer runs"
        problems.append(Problem(key, name, what, "save its rows as jsonl and set file_name"))
    count = info.get("num_samples")
    if count is not None and (not isinstance(count, int) or isinstance(count, bool) or count < 1):
        problems.append(
            Problem(key, name, f"has num_samples {count}, which is not a positive number of rows")
        )
    return problems
