"""Answers that are made to follow a form: JSON of a schema, or the call of a tool.

The tokens that may come next are found by lm-format-enforcer, from the schema and the tokenizer's texts.
"""

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from llmf_hydra.errors import LlmfError
from llmf_hydra.optional import require

HALF = "\ufffd"  # what bytes decode to that are no whole character yet
WHITESPACE = 2  # characters of it in a row, at most: a small model would write nothing else
DEEPEST = 32  # schemas within each other
ANY_OBJECT: dict[str, Any] = {"type": "object"}
# What is followed of a schema, and what says nothing of the form. The library passes over much of the rest in silence.
FOLLOWED = {"type", "properties", "required", "additionalProperties", "items", "minItems", "maxItems",
            "enum", "const", "anyOf", "$ref", "$defs", "definitions"}  # fmt: skip
NOTES = {"title", "description", "default", "examples", "format", "deprecated", "$schema", "$id", "strict"}


class CannotConstrain(LlmfError, ValueError):
    """The schema can't be followed."""


class Constraint:
    """The form of one answer: tokens that begin it, JSON, tokens that end it. It belongs to that answer."""

    def __init__(self, before: Sequence[int], json: Any, after: Sequence[int], end: int):
        """`json` is lm-format-enforcer's; `end` is the token by which it says that the JSON may end."""
        self._before, self._json, self._after, self._end = list(before), json, list(after), end
        self._ended: int | None = None  # tokens of the answer up to the end of the JSON

    def allowed(self, answer: Sequence[int]) -> list[int]:
        """The tokens that may follow the tokens of an answer so far; it is asked after each of them."""
        at = len(answer)
        if at < len(self._before):
            return [self._before[at]]
        if self._ended is None:
            found = list(self._json.get_allowed_tokens(list(answer[len(self._before) :])).allowed_tokens)
            if found and self._end not in found:
                return found
            self._ended = at
        return [self._after[min(at - self._ended, len(self._after) - 1)]]


class Constraints:
    """Makes the constraints of a model's answers. What it needs of the tokenizer is computed once."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, vocabulary: int):
        """`vocabulary` is the number of the model's logits."""
        self._tokenizer, self._vocabulary = tokenizer, vocabulary
        self._lock, self._data = threading.Lock(), None

    @property
    def _end(self) -> int:
        return int(self._tokenizer.eos_token_id)  # pyright: ignore

    def of(self, schema: Mapping[str, Any], before: str = "", after: str = "") -> Constraint:
        """JSON of a schema between two texts, and the end of the answer. Raises CannotConstrain, or Refused where the
        package is missing."""
        _check(schema)
        require("lmformatenforcer", extra="api", key="response_format or tool_choice")
        from lmformatenforcer import CharacterLevelParserConfig, JsonSchemaParser, TokenEnforcer

        with self._lock:
            self._data = data = self._data or self._tokens()
        missing = _characters(schema) - set(data.tokenizer_alphabet)
        if missing:
            shown = ", ".join(sorted(missing))
            raise CannotConstrain(f"no token of this model is, alone, the character {shown}")
        settings = CharacterLevelParserConfig(
            alphabet=data.tokenizer_alphabet, max_consecutive_whitespaces=WHITESPACE
        )
        try:
            parser = JsonSchemaParser(dict(schema), settings)
            enforcer = TokenEnforcer(data, parser)
            parser.config = settings  # the enforcer has put its defaults there
            first = enforcer.get_allowed_tokens([]).allowed_tokens
        except Exception as error:  # whatever a library makes of a schema
            what = next(iter(str(error).splitlines()), type(error).__name__)
            raise CannotConstrain(f"the schema can't be followed: {what}") from error
        if list(first) == [self._end]:
            raise CannotConstrain("no JSON fits the schema, or it asks for what can't be followed")
        return Constraint(self._ids(before), enforcer, [*self._ids(after), self._end], self._end)

    def _ids(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False) if text else []

    def _tokens(self) -> Any:
        """The text of each token, after another one and alone: it is shorter alone where the token begins a word."""
        from lmformatenforcer import TokenEnforcerTokenizerData

        tokenizer = self._tokenizer
        zero = tokenizer.encode("0", add_special_tokens=False)[-1]
        plain = [
            token
            for token in range(min(len(tokenizer), self._vocabulary))
            if token not in set(tokenizer.all_special_ids)
        ]
        alone = tokenizer.batch_decode([[token] for token in plain])
        after = [text[1:] for text in tokenizer.batch_decode([[zero, token] for token in plain])]
        known = [
            (token, text, len(text) > len(short))
            for token, short, text in zip(plain, alone, after, strict=True)
            if HALF not in text and text
        ]
        return TokenEnforcerTokenizerData(
            known, lambda ids: str(tokenizer.decode(ids)).rstrip(HALF), self._end, False, self._vocabulary
        )


def _check(schema: Any, place: str = "schema", depth: int = 0) -> None:
    """Raise CannotConstrain for what would not be followed."""
    if depth > DEEPEST:
        raise CannotConstrain(f"{place} is nested more than {DEEPEST} deep")
    if isinstance(schema, bool):
        return
    if not isinstance(schema, Mapping):
        raise CannotConstrain(f"{place} is no schema")
    for key in schema:
        if key not in FOLLOWED | NOTES:
            known = ", ".join(sorted(FOLLOWED))
            raise CannotConstrain(f"{place}: '{key}' is not followed; what is: {known}")
    for value in (*_listed(schema, "enum"), *([schema["const"]] if "const" in schema else [])):
        if not isinstance(value, str) and (
            "const" in schema or isinstance(value, bool) or not isinstance(value, int | float)
        ):
            raise CannotConstrain(
                f"{place}: of enum texts or numbers are followed, of const a text, not {value!r}"
            )
    kinds = schema.get("type")
    if isinstance(kinds, list) and (FOLLOWED - {"type"}) & schema.keys():
        raise CannotConstrain(f"{place}: a list of types is followed alone: write anyOf")
    for key in ("properties", "$defs", "definitions"):
        for name, inner in schema[key].items() if isinstance(schema.get(key), Mapping) else ():
            _check(inner, f"{place}.{name}", depth + 1)
    for key in ("items", "additionalProperties"):
        _check(schema.get(key, True), f"{place}.{key}", depth + 1)
    for number, inner in enumerate(_listed(schema, "anyOf")):
        _check(inner, f"{place}.anyOf.{number}", depth + 1)


def _characters(schema: Any) -> set[str]:
    """The characters of the texts that a schema names: its values and keys."""
    if isinstance(schema, str):
        return set(schema)
    if isinstance(schema, list):
        return set[str]().union(*map(_characters, schema))
    if not isinstance(schema, Mapping):
        return set()
    of_texts = [_characters(schema[key]) for key in ("enum", "const") if key in schema]
    inner = [
        part for key in ("properties", "$defs", "definitions") if isinstance(part := schema.get(key), Mapping)
    ]
    keys = [set(key) for part in inner for key in part]
    below = [_characters(value) for part in inner for value in part.values() if isinstance(value, Mapping)]
    more = [schema[key] for key in ("items", "additionalProperties", "anyOf") if key in schema]
    return set[str]().union(*of_texts, *keys, *below, *map(_characters, more))


def _listed(schema: Mapping[str, Any], key: str) -> list[Any]:
    found = schema.get(key, [])
    if not isinstance(found, list) or (key in schema and not found):
        raise CannotConstrain(f"'{key}' must be a list that isn't empty")
    return found
