"""Secrets taken out of whatever is written or printed: one masking for words, texts and mappings.

A secret is the value of a parameter declared with `secret=True`, whatever way it is spelled; the value of an
environment variable that stands for one; the password inside a URL; and each value this process has `learn`ed.
"""

import functools
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from llmf_hydra.config.schema import Config, entries, value_at

MASK = "***"
SHORTEST = 8  # characters; a shorter value may stand in any text by chance and is masked behind its key only
HUB_VARIABLES = {  # read by the hubs' libraries themselves
    "model.hf_hub_token": ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"),
    "model.ms_hub_token": ("MODELSCOPE_API_TOKEN",),
}

# A password holds no blank and may hold an @; a port is none.
URL_PASSWORD = re.compile(r"(\b[a-z][\w+.-]*://[^\s/:@'\"]*:)(?!\d+(?:[/?#]|$))[^\s'\"]*(?=@)", re.IGNORECASE)
URL_KEY = re.compile(r"([?&](?:[\w-]*token|[\w-]*key|password|secret|sig)=)[^\s&#'\"]+", re.IGNORECASE)
QUOTED = r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*\""""

_learned: set[str] = set()


def learn(cfg: Config) -> None:
    """Mask the secrets of this config in every text from now on."""
    for key, entry in entries().items():
        value = value_at(cfg, key)
        if entry.param.secret and value:
            _learned.add(str(value))


def learn_words(words: Iterable[str]) -> None:
    """Mask the secrets of these overrides in every text from now on, also where a message repeats them alone."""
    for word in words:
        key, _, rest = word.partition("=")
        inside = [found["value"] for found in _assigned().finditer(word)]
        for value in [rest] if _is_override_of_secret(key) else inside:
            _learned.update(part for part in re.split(r"[,\[\]'\"]", value) if len(part) >= SHORTEST)


def masked_word(word: str) -> str:
    """An override with its secret taken out: `model.hf_hub_token=***`, whatever stands before or around the key."""
    key, equals, _ = word.partition("=")
    if equals and _is_override_of_secret(key):
        return f"{key}={MASK}"
    return masked_text(word)


def masked_text(text: str) -> str:
    """A text with every secret in it taken out."""
    known = {value for value in (*_learned, *_in_environment()) if len(value) >= SHORTEST}
    for value in sorted(known, key=len, reverse=True):
        text = text.replace(value, MASK)
    text = _assigned().sub(rf"\g<key>{MASK}", text)
    return URL_KEY.sub(rf"\1{MASK}", URL_PASSWORD.sub(rf"\1{MASK}", text))


def masked_tree(tree: Any) -> Any:
    """Mappings, lists and texts inside one another, with every secret in them taken out; the rest as it was."""
    if isinstance(tree, Mapping):
        return {key: _masked_at(str(key), value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [masked_tree(item) for item in tree]
    return masked_word(tree) if isinstance(tree, str) else tree


def variables(key: str) -> tuple[str, ...]:
    """The environment variables in which a user can give a parameter."""
    env = entries()[key].param.env
    return (env,) if env else HUB_VARIABLES.get(key, ())


def _masked_at(key: str, value: object) -> object:
    interpolated = isinstance(value, str) and value.startswith(
        "${"
    )  # names a variable, and not what it holds
    if value is None or interpolated or not _is_secret(key):
        return masked_tree(value)
    return MASK


def _is_override_of_secret(key: str) -> bool:
    return _is_secret(key.strip().lstrip("+~'\"").partition("@")[0])


def _is_secret(key: str) -> bool:
    return key.rpartition(".")[2] in _names()


@functools.cache
def _names() -> frozenset[str]:
    return frozenset(entry.name for entry in entries().values() if entry.param.secret)


@functools.cache
def _assigned() -> re.Pattern[str]:
    """A secret's key and the value behind it: `key=value`, `{key: value}`, `"key": value`."""
    names = "|".join(sorted(map(re.escape, _names())))
    behind = r"""(?:['"]?\s*=\s*|['"]\s*:\s*|:(?=\S))"""
    inside = r"""(?<=\{)\s*|(?<=,)\s*"""  # of a mapping, where a blank may follow the colon
    return re.compile(
        rf"(?P<key>(?:\b(?:{names}){behind}|(?:{inside})(?:[\w.]+\.)?(?:{names})\s*:\s*))"
        rf"(?P<value>\[[^\]]*\]?|(?:{QUOTED})(?:,(?:{QUOTED}))*|[^\s{{}}\[\]'\"]+?(?=:?(?:[\s{{}}\]'\"]|$)))"
    )


def _in_environment() -> Iterable[str]:
    named = {name for key, entry in entries().items() if entry.param.secret for name in variables(key)}
    return [os.environ[name] for name in sorted(named) if os.environ.get(name)]
