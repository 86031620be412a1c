"""Errors a user sees. Each says which key, which value, and what to do; none comes with a traceback."""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

DONE, FAILED, REFUSED, INTERRUPTED = 0, 1, 2, 130  # exit codes
PRUNED = 3  # of a worker: its study found the trial hopeless


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, as one line: `key=value: what is wrong; remedy`."""

    key: str
    value: object
    what: str
    remedy: str = ""

    @classmethod
    def bad_choice(cls, key: str, value: object, choices: Sequence[str]) -> "Problem":
        return cls(key, value, f"is not one of {', '.join(choices)}", did_you_mean(str(value), choices))

    def __str__(self) -> str:
        subject = self.key if self.value is NO_VALUE else f"{self.key}={shown(self.value)}"
        return f"{subject}: {self.what}" + (f"; {self.remedy}" if self.remedy else "")


class _NoValue(Enum):
    """Marks a problem that is about a key or a file, not about a value. An enum stays itself when pickled."""

    NO_VALUE = "no value"


NO_VALUE = _NoValue.NO_VALUE


def shown(value: object) -> str:
    """A value as it is written in YAML and on the command line: `null`, `true`, `5e-05`, `3` (not `3.0`)."""
    if value is None:
        return "null"
    if isinstance(value, float) and value.is_integer():
        return f"{value:.15g}"
    return str(value).lower() if isinstance(value, bool) else str(value) if value != "" else "''"


class LlmfError(Exception):
    """Base of all errors that are told to the user in one line and without a traceback."""


class Refused(LlmfError, ValueError):
    """The run was refused before it began: exit code 2."""

    def __init__(self, problems: Iterable[Problem | str]):
        self.problems = list(problems)
        super().__init__("\n".join(str(p) for p in self.problems))

    def __reduce__(self) -> tuple[object, ...]:
        """Launchers of sweeps send errors between processes: rebuild from the problems, not from the message."""
        return type(self), (self.problems,)

    def report(self) -> str:
        """All problems, a line each, under a line that counts them."""
        count = len(self.problems)
        head = "refused: nothing was started" + (f" ({count} problems)" if count > 1 else "")
        return "\n".join([head, *(f"  {problem}" for problem in self.problems)])


class RunFailed(LlmfError, RuntimeError):
    """A worker ended with an exit code other than 0, which this error carries with the reason, where it is known."""

    def __init__(self, code: int, reason: str = ""):
        self.code, self.reason = code, reason
        named = {REFUSED: "refused", INTERRUPTED: "interrupted", PRUNED: "pruned"}.get(
            code, f"failed (exit code {code})"
        )
        super().__init__(reason or named)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.code, self.reason)


class TrainingFailed(LlmfError, RuntimeError):
    """The run began and could not go on (a loss that is not a number, a full disk): exit code 1."""


class Pruned(LlmfError):
    """A trial that its study ended early: no failure, and nothing is saved of it."""


def nearest(word: str, names: Iterable[str]) -> str | None:
    """The name that was probably meant, or None. Of equally near names the one that begins alike counts."""
    matcher = difflib.SequenceMatcher(b=word)
    best, best_score = None, 0.5
    for name in names:
        matcher.set_seq1(name)
        if matcher.real_quick_ratio() < best_score - 0.1:  # an upper bound, and cheap
            continue
        score = matcher.ratio() + (0.05 if name[:1] == word[:1] else 0.0)
        if score > best_score:
            best, best_score = name, score
    return best


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """`did you mean 'lora_rank'?`, or an empty string."""
    near = nearest(word, names)
    return f"did you mean '{near}'?" if near else ""
