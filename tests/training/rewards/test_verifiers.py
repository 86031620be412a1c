"""Each kind of reward that is computed, on cases with odd ones."""

import json
import re

import jsonschema
import pytest

from llmf_hydra.training.rewards import verifiers

DEEP = "[" * 100_000 + "]" * 100_000

EXACT: list[tuple[str, str, int]] = [
    ("42", "42", 1), (" 42\n", "42", 1), ("42.", "42", 0), ("", "", 1), ("", "42", 0), ("yes", "Yes", 0),
    ("The answer is 42", "42", 0), ("é", "e\u0301", 0), ("日本", "日本", 1), ("a b", "a  b", 0), ("\u00a0x", "x", 1),
]  # fmt: skip
IGNORING_CASE: list[tuple[str, str, int]] = [
    ("YES", "yes", 1), ("STRASSE", "straße", 1), ("İ", "i", 0), ("no", "yes", 0), ("", "", 1),
]  # fmt: skip
NUMERIC: list[tuple[str, str, float, int]] = [
    ("42", "42", 0, 1), ("It is 42.", "42", 0, 1), ("42.0", "42", 0, 1), ("4.2e1", "42", 0, 1),
    ("1,234", "1234", 0, 1), ("1,23", "123", 0, 0), ("1,234,567.5", "1234567.5", 0, 1), ("-3", "3", 0, 0),
    ("\u22123", "-3", 0, 1), ("+3", "3", 0, 1), (".5", "0.5", 0, 1), ("", "42", 0, 0), ("none", "42", 0, 0),
    ("1e400", "1e400", 0, 1), ("1e400", "42", 0, 0), ("1e999999999", "1", 0.5, 0), ("inf", "inf", 0, 0),
    ("nan", "nan", 0, 0), ("I can't say 41, so 42", "42", 0, 1), ("42 or 43", "42", 0, 0),
    ("So 6 * 7 = 42\n#### 42", "Because it is.\n#### 42", 0, 1), ("0.30000000000000004", "0.3", 0, 0),
    ("0.30000000000000004", "0.3", 1e-9, 1), ("3.14", "3.14159", 0.01, 1), ("3.1", "3.14159", 0.01, 0),
    ("٤٢", "42", 0, 1), ("7" * 5000, "7" * 5000, 0, 1), ("1e99999999999999999999999", "1", 0, 0),
]  # fmt: skip
SCHEMA = {
    "type": "object",
    "required": ["city", "of"],
    "properties": {"city": {"type": "string"}, "of": {"type": "object", "required": ["n"],
                                                      "properties": {"n": {"type": "integer"}}}},
}  # fmt: skip
GOOD = {"city": "Bergen", "of": {"n": 1}}
JSON: list[tuple[str, int]] = [
    (json.dumps(GOOD), 1), (f"\n {json.dumps(GOOD, indent=2)} ", 1), (f"```json\n{json.dumps(GOOD)}\n```", 1),
    (f"```\n{json.dumps(GOOD)}\n```", 1), (f"Here: {json.dumps(GOOD)}", 0), (f"{json.dumps(GOOD)} Enjoy!", 0),
    ("", 0), ("{}", 0), ("[]", 0), ("null", 0), ('{"city": 1, "of": {"n": 1}}', 0),
    ('{"city": "x", "of": {"n": 1.5}}', 0), ('{"city": "x", "of": {"n": 1e400}}', 0),
    ('{"city": "x", "of": {"n": NaN}}', 0), ("{'city': 'x'}", 0), ('{"city": "東京", "of": {"n": 1}}', 1),
    ('{"city": "\\ud800", "of": {"n": 1}}', 1), (json.dumps(json.dumps(GOOD)), 0), (DEEP, 0),
    ('{"city": "x", "of": {"n": 1}, "more": [{"deep": [1, 2, {"x": null}]}]}', 1), (json.dumps(GOOD)[:-1], 0),
]  # fmt: skip
TAGS: list[tuple[str, int]] = [
    ("<think>a</think><answer>b</answer>", 1), ("<think>a</think>\n\n<answer>b</answer>\n", 1),
    ("<think></think><answer></answer>", 1), ("<think>a\nb</think><answer>c\nd</answer>", 1),
    ("<answer>b</answer>", 0), ("<think>a</think>", 0), ("<answer>b</answer><think>a</think>", 0), ("", 0),
    ("<think>a<answer>b</answer></think>", 0), ("<think>a</think>x<answer>b</answer>", 0),
    ("x<think>a</think><answer>b</answer>", 0), ("<think>a</think><answer>b</answer>x", 0),
    ("<think>a</think><answer>b</answer><answer>c</answer>", 0), ("<think>a</think><answer>b", 0),
    ("<think>1 < 2 > 0</think><answer>{}</answer>", 1), ("<THINK>a</THINK><answer>b</answer>", 0),
    ("<think>日本</think><answer>é</answer>", 1), ("< think>a</think><answer>b</answer>", 0),
    ("<think><think>a</think></think><answer>b</answer>", 0), ("<think>a</think> <answer>I can't: 42</answer>", 1),
]  # fmt: skip
LENGTH: list[tuple[int, int, int, float]] = [
    (0, 8, 0, 0), (8, 8, 0, 0), (9, 8, 0, -1), (4, 8, 4, 0), (5, 8, 4, -0.25), (8, 8, 4, -1), (9, 8, 4, -1),
    (1, 8, 8, -0.125), (0, 8, 8, 0), (7, 8, 8, -0.875), (8, 8, 8, -1), (9, 8, 8, -1), (100, 8, 4, -1), (6, 8, 4, -0.5),
    (7, 8, 4, -0.75), (7, 8, 1, 0), (8, 8, 1, -1), (1, 1, 0, 0), (2, 1, 0, -1), (10**9, 8, 0, -1),
]  # fmt: skip
REGEX: list[tuple[str, str, int]] = [
    ("abc", "b", 1), ("", "^$", 1), ("", "b", 0), ("日本", r"\w{2}", 1), ("B", "(?i)b", 1), ("B", "b", 0),
    ("a\nb", "^b", 0), ("a\nb", "(?m)^b", 1), ("a\nb", "a.b", 0), ("a\nb", "(?s)a.b", 1), ("é", "e\u0301", 0),
    ("yes.", r"^(?i:yes|no)\b", 1), ("yesterday", r"^(?i:yes|no)\b", 0), ("I can't: 42", r"\d+$", 1),
    ("1e400", r"^\d+e\d+$", 1), ('{"a": {"b": [1]}}', r"\[1\]", 1), ("\u00a0", r"\s", 1), ("x" * 10_000, "x$", 1),
    ("<b>", "<(?!/)", 1), ("42", r"^(?=.*\d{3})", 0),
]  # fmt: skip
MATH: list[tuple[str, str, int]] = [
    ("42", "42", 1), ("41", "42", 0), ("", "42", 0), ("I can't help with that.", "42", 0), ("日本 $7$", "7", 1),
    (r"$\frac{1}{2}$", "1/2", 1), ("The answer is $0.5$.", r"\frac{1}{2}", 1), (r"$\frac{3}{4}$", "1/2", 0),
    (r"$\boxed{42}$", "42", 1), (r"so \boxed{42}", r"\boxed{42}", 1), ("$x^2+2x+1$", "(x+1)^2", 1),
    ("$x^2+1$", "(x+1)^2", 0), (r"$\sqrt{8}$", r"2\sqrt{2}", 1), ("$2$", r"2\sqrt{2}", 0), (r"$\pi$", r"\pi", 1),
    ("$3.14$", r"\pi", 0), (r"$\{1,2,3\}$", r"\{3,2,1\}", 1), ("$(1,2)$", "(2,1)", 0), ("$1e400$", "1", 0),
    (r"$\frac{1}{0}$", "1", 0), ("$-3$", "-3", 1), ("$2^{10}$", "1024", 1), ("$1/2$", "$1/2$", 1),
]  # fmt: skip
EXTRACTED: list[tuple[str, str, str]] = [
    ("<answer>42</answer>", r"<answer>(.*?)</answer>", "42"), ("none", r"<answer>(.*?)</answer>", ""),
    ("a1 a2", r"a\d", "a2"), ("x=1 x=2", r"x=(\d)", "2"), ("Yes.", r"^(\w+)[.]?$", "Yes"),
    ("Yes, it is", r"^(\w+)[.]?$", ""),
    ("b", r"(a)?b", ""),
]  # fmt: skip


def test_exact_match() -> None:
    for answer, reference, wanted in EXACT:
        assert verifiers.exact_match(answer, reference) == wanted, (answer, reference)
    for answer, reference, wanted in IGNORING_CASE:
        assert verifiers.exact_match(answer, reference, ignore_case=True) == wanted, (answer, reference)


def test_numeric() -> None:
    for answer, reference, tolerance, wanted in NUMERIC:
        assert verifiers.numeric(answer, reference, tolerance=tolerance) == wanted, (
            answer[:40],
            reference[:40],
        )


def test_json_schema() -> None:
    validator = jsonschema.Draft202012Validator(SCHEMA)
    for answer, wanted in JSON:
        assert verifiers.json_schema(answer, validator) == wanted, answer[:60]


def test_tags() -> None:
    pattern = verifiers.tag_pattern(["think", "answer"])
    for answer, wanted in TAGS:
        assert verifiers.regex(answer, pattern) == wanted, answer
    assert verifiers.regex("<a>1</a>", verifiers.tag_pattern(["a"])) == 1


def test_regex() -> None:
    for answer, pattern, wanted in REGEX:
        assert verifiers.regex(answer, re.compile(pattern)) == wanted, (answer, pattern)


def test_length() -> None:
    for tokens, most, buffer, wanted in LENGTH:
        assert verifiers.length(tokens, most, buffer) == wanted, (tokens, most, buffer)


def test_what_is_extracted() -> None:
    for text, pattern, wanted in EXTRACTED:
        assert verifiers.extracted(text, re.compile(pattern, re.DOTALL)) == wanted, text
    assert verifiers.extracted("whole", None) == "whole"


def test_math() -> None:
    pytest.importorskip("math_verify", reason="needs math-verify: pip install 'llmf_hydra[rewards]'")
    for answer, reference, wanted in MATH:
        assert verifiers.math(answer, reference) == wanted, (answer, reference)
