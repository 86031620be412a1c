"""Values as text that reads back as the same value: in a YAML file and on the command line."""

import json
import re
import shlex
from collections.abc import Iterable, Mapping

PLAIN = re.compile(r"[A-Za-z_/][\w./+-]*(:[\w./+-]+)*", re.ASCII)  # no number, no sign of YAML's or Hydra's
NOT_TEXT = re.compile(r"(null|true|false|yes|no|on|off|y|n|nan|inf|infinity)", re.IGNORECASE)
SHELL_SIGNS = re.compile(r'["$`\\!]')  # what a shell reads inside double quotes
BEYOND_ASCII = re.compile(
    r"[^\x00-\x7f\ud800-\udfff]"
)  # surrogates are bytes that are not UTF-8: refused elsewhere
INTERPOLATION = re.compile(r"\$\{[^{}]*\}")
HYDRA_KEY_SIGNS = re.compile(r"([\\()\[\]{}:=, \t])")


def is_plain(text: str) -> bool:
    """Whether a text may stand without quotes."""
    return PLAIN.fullmatch(text) is not None and NOT_TEXT.fullmatch(text) is None


def yaml_value(value: object) -> str:
    """A value on one line of YAML."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{yaml_value(str(k))}: {yaml_value(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(yaml_value, value)) + "]"
    if isinstance(value, str):
        literal = _no_interpolation(value)
        return literal if is_plain(literal) else json.dumps(literal, ensure_ascii=False)
    return _scalar(value)


def hydra_value(value: object) -> str:
    """A value on the right side of an override."""
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_hydra_key(k)}:{hydra_value(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(hydra_value, value)) + "]"
    if isinstance(value, str):
        literal = _no_interpolation(value)
        return literal if is_plain(literal) else _hydra_quoted(literal)
    return _scalar(value)


def quoted_word(word: str) -> str:
    """An override with quotes around values beyond ASCII (`data.dataset=données`), which Hydra reads only in quotes.

    A word that holds quotes, backslashes or a mapping is left as it is.
    """
    key, equals, value = word.partition("=")
    signs = INTERPOLATION.sub("", value)
    if not BEYOND_ASCII.search(value) or any(sign in signs for sign in "'\"\\{}"):
        return word
    if not any(sign in signs for sign in ",[]()"):
        return f"{key}={_hydra_quoted(value.strip())}"
    if "${" in value:
        return word
    parts = re.split(r"([,\[\]()])", value)  # of a list, or of several values to try
    return key + equals + "".join(_hydra_quoted(p.strip()) if BEYOND_ASCII.search(p) else p for p in parts)


def command_line(words: Iterable[str]) -> str:
    """The command that starts a run with these overrides, quoted for a shell."""
    return " ".join(map(_shell_quoted, ["python", "-m", "llmf_hydra", *words]))


def override_lines(words: Iterable[str]) -> str:
    """Overrides, one per line, quoted for a shell."""
    return "\n".join(map(_shell_quoted, words))


def _shell_quoted(word: str) -> str:
    """In double quotes where that is easier to read than shlex's quotes around quotes."""
    return f'"{word}"' if "'" in word and not SHELL_SIGNS.search(word) else shlex.quote(word)


def _scalar(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(value)
    if isinstance(value, float) and "e" in text and "." not in text:
        return text.replace("e", ".0e")  # YAML 1.1 reads 5e-05 as text, 5.0e-05 as a number
    return text


def _no_interpolation(text: str) -> str:
    """`${x}` is text in their files and would be looked up in ours."""
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", text)


def _hydra_quoted(text: str) -> str:
    """In single quotes. Hydra halves backslashes only where they stand before a quote or at the end."""
    return "'" + re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), text) + "'"


def _hydra_key(key: object) -> str:
    return HYDRA_KEY_SIGNS.sub(r"\\\1", str(key))
