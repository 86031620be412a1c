"""Rewards that can be computed: functions of an answer's text and the reference answer. Without torch."""

import json
import logging
import re
from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation, localcontext
from typing import Any

from llmf_hydra import optional
from llmf_hydra.config.rewards.items import KEY

EXPONENT = r"(?:[eE][-+]?\d+)?"
NUMBER = re.compile(
    rf"[-+\u2212]?(?:\d{{1,3}}(?:,\d{{3}})+(?!\d)|\d+)(?:\.\d+)?{EXPONENT}|[-+\u2212]?\.\d+{EXPONENT}"
)
FENCE = re.compile(r"\A```(?:json)?\s*\n(.*)\n```\Z", re.DOTALL)

Verifier = Callable[[str, str], float]  # of an answer and its reference


def exact_match(answer: str, reference: str, *, ignore_case: bool = False) -> float:
    """1 where both are the same but for white space around them."""
    answer, reference = answer.strip(), reference.strip()
    if ignore_case:
        answer, reference = answer.casefold(), reference.casefold()
    return float(answer == reference)


def last_number(text: str) -> Decimal | None:
    """The last number of a text, with commas between thousands or without; None where there is none."""
    found = NUMBER.findall(text)
    if not found:
        return None
    try:
        return Decimal(found[-1].replace(",", "").replace("\u2212", "-"))
    except InvalidOperation:  # an exponent beyond what Decimal holds
        return None


def numeric(answer: str, reference: str, *, tolerance: float = 0) -> float:
    """1 where the last numbers of both differ by at most `tolerance`. Exact: 0.1 + 0.2 is written 0.3."""
    given, wanted = last_number(answer), last_number(reference)
    if given is None or wanted is None:
        return 0.0
    if given == wanted or not tolerance:
        return float(given == wanted)
    with localcontext() as context:
        context.traps = dict.fromkeys(context.traps, False)
        return float(abs(given - wanted) <= Decimal(str(tolerance)))


def math(answer: str, reference: str) -> float:
    """1 where math-verify finds the expressions equal, of which the reference may come without dollar signs."""
    verify: Any = optional.require("math_verify", extra="rewards", key=f"{KEY}=math")
    logging.getLogger("math_verify").setLevel(logging.ERROR)  # that its own time limits are off: ours is on
    marked = (
        "$" in reference or "boxed" in reference
    )  # without, it would read a number alone: the 2 of 2\sqrt{2}
    wanted = verify.parse(reference if marked else f"${reference}$", parsing_timeout=None)
    given = verify.parse(answer, parsing_timeout=None)
    return float(bool(wanted and given) and verify.verify(wanted, given, timeout_seconds=None))


def regex(answer: str, pattern: re.Pattern[str]) -> float:
    """1 where the pattern is found."""
    return float(pattern.search(answer) is not None)


def parsed_json(answer: str) -> object:
    """The value that an answer is as JSON, alone or in a code fence. Raises ValueError; NaN is no JSON."""

    def refuse(word: str) -> object:
        raise ValueError(f"{word} is no JSON")

    text = answer.strip()
    fenced = FENCE.match(text)
    try:
        return json.loads(fenced[1] if fenced else text, parse_constant=refuse)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def json_schema(answer: str, validator: Any) -> float:
    """1 where the answer is JSON that the validator of jsonschema finds valid."""
    try:
        value = parsed_json(answer)
    except ValueError:
        return 0.0
    try:
        return float(validator.is_valid(value))
    except RecursionError:
        return 0.0


def tag_pattern(tags: Sequence[str]) -> re.Pattern[str]:
    """Nothing but these tags, each once, in their order, with white space between."""
    inside = rf"(?:(?!</?(?:{'|'.join(map(re.escape, tags))})>).)*"
    parts = [f"<{re.escape(tag)}>{inside}</{re.escape(tag)}>" for tag in tags]
    between = r"\s*".join(parts)
    return re.compile(rf"\A\s*{between}\s*\Z", re.DOTALL)


def length(tokens: int, most: int, buffer: int) -> float:
    """0 up to `most - buffer` tokens, then falling to -1 at `most` (arXiv:2503.14476, eq. 13)."""
    if tokens <= most - buffer:
        return 0.0
    return -1.0 if tokens > most else (most - buffer - tokens) / buffer


def extracted(text: str, pattern: re.Pattern[str] | None) -> str:
    """The first group of the last place where the pattern is found, or the whole of it; empty where it isn't."""
    if pattern is None:
        return text
    found = list(pattern.finditer(text))
    return "" if not found else str(found[-1][1 if pattern.groups else 0] or "")
