"""From answers to accuracies: by subject, by category and over all questions, each with its standard error."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

NO_CATEGORY = "no category"


@dataclass(frozen=True)
class Answer:
    """What the model chose."""

    subject: str
    category: str | None
    right: bool


@dataclass(frozen=True)
class Accuracy:
    """The share of right answers in percent, its standard error, and the number of questions.

    The error is that of the mean, sqrt(p (1 - p) / (n - 1)); None for a single question.
    """

    accuracy: float
    stderr: float | None
    questions: int

    def __str__(self) -> str:
        error = "" if self.stderr is None else f" ± {self.stderr:.2f}"
        return f"{self.accuracy:.2f}{error} ({self.questions} question{'s' if self.questions != 1 else ''})"


@dataclass(frozen=True)
class Summary:
    """The accuracies of a task."""

    average: Accuracy  # over all questions
    categories: dict[str, Accuracy]
    subjects: dict[str, Accuracy]

    def as_dict(self) -> dict[str, object]:
        """As JSON writes it."""
        return asdict(self)

    def lines(self) -> list[str]:
        """For people: subjects, categories, average."""
        rows = {**self.subjects, **self.categories, "average": self.average}
        width = max(map(len, rows))
        return [f"{name.rjust(width)}: {accuracy}" for name, accuracy in rows.items()]


def summarize(answers: Sequence[Answer]) -> Summary:
    """The accuracies of at least one answer."""
    named = [answer for answer in answers if answer.category is not None]
    categories = {answer.category or NO_CATEGORY: None for answer in answers} if named else {}
    return Summary(
        accuracy(answer.right for answer in answers),
        {
            name: accuracy(answer.right for answer in answers if (answer.category or NO_CATEGORY) == name)
            for name in categories
        },
        {
            name: accuracy(answer.right for answer in answers if answer.subject == name)
            for name in dict.fromkeys(answer.subject for answer in answers)
        },
    )


def accuracy(right: Iterable[bool]) -> Accuracy:
    """The accuracy of at least one answer."""
    given = list(right)
    count, share = len(given), sum(given) / len(given)
    error = 100 * math.sqrt(share * (1 - share) / (count - 1)) if count > 1 else None
    return Accuracy(100 * share, error, count)
