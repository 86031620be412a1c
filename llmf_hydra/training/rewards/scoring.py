"""Calling a reward: its scores, or the end of the run in words that name the reward, the row and the remedy."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from llmf_hydra.errors import TrainingFailed
from llmf_hydra.training.generation import Rollouts
from llmf_hydra.training.rewards.protocol import Row
from llmf_hydra.training.rewards.time_limit import TimedOut, limited
from llmf_hydra.training.rewards.undisturbed import undisturbed

LARGEST = 3.4e38  # that float32 holds
SHOWN = 60  # characters of a value in an error
RAISED = (Exception, SystemExit, KeyboardInterrupt)  # Ctrl-C doesn't reach a training as the last of these
Score = float | None  # None: the reward doesn't apply to the row


@dataclass(frozen=True)
class Answers:
    """Answers with the prompts and rows that asked for them, in one order. `rollouts` are their tokens."""

    prompts: Sequence[str]
    texts: Sequence[str]
    rows: Sequence[Row]
    rollouts: Rollouts

    @cached_property
    def columns(self) -> list[dict[str, Any]]:
        """The columns of each row's file, and `answer`, its reference answer."""
        return [json.loads(row["columns"]) for row in self.rows]

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class ListedReward:
    """One of `rlhf.rewards`, ready to be called."""

    label: str
    weight: float
    score: Callable[[Answers], Iterable[Any]]
    alone: bool = False  # its function sees many answers at once: who is at fault is found by one at a time


@dataclass(frozen=True)
class Scorer:
    """Calls rewards within a time limit. `sources` are the datasets' names, by their number in the rows."""

    sources: Sequence[str]
    timeout: float
    run: str  # the folder, for the remedy

    def __call__(self, reward: ListedReward, answers: Answers) -> list[Score]:
        """The scores of some answers. Raises TrainingFailed for what are no scores."""
        try:
            with undisturbed(), limited(self.timeout):
                found = reward.score(answers)
                scores = (
                    list(found)
                    if isinstance(found, Iterable) and not isinstance(found, str | Mapping)
                    else None
                )
        except TimedOut as error:
            what = f"took longer than rlhf.reward_timeout={self.timeout:g} seconds"
            raise self._failed(reward, what, self._places(answers.rows)) from error
        except TrainingFailed:
            raise
        except RAISED as error:
            row, cause = self._guilty(reward, answers, error)
            what = f"raised {type(cause).__name__}: {cause}{_line(cause)}"
            raise self._failed(reward, what, row) from error
        if scores is None:
            what = f"returned {type(found).__name__}, where a list of numbers is due"
            raise self._failed(reward, what, self._places(answers.rows))
        if len(scores) != len(answers):
            what = f"returned {len(scores)} scores for {len(answers)} answers"
            raise self._failed(reward, what, self._places(answers.rows))
        return [self._number(reward, score, answers.rows[at]) for at, score in enumerate(scores)]

    def unscored(self, row: Row) -> TrainingFailed:
        """The failure of a row to which no reward applies."""
        what = f"rlhf.rewards: none of them scores {self.place(row)}: each returned None for it"
        return TrainingFailed(f"{what}; have one apply to every row, or leave the row out")

    def _number(self, reward: ListedReward, score: Any, row: Row) -> Score:
        if score is None:
            return None
        single = isinstance(score, np.generic | torch.Tensor) and score.ndim == 0
        value = score.item() if single else score
        if not isinstance(value, int | float):
            what = f"returned {_shown(score)}, which is {type(score).__name__} and no number,"
            raise self._failed(reward, what, self.place(row))
        if not abs(value) <= LARGEST:  # nor is NaN
            raise self._failed(
                reward, f"returned {_shown(value)}, which is not a finite number,", self.place(row)
            )
        return float(value)

    def _guilty(
        self, reward: ListedReward, answers: Answers, error: BaseException
    ) -> tuple[str, BaseException]:
        """The row at which a reward raises if it is asked for one at a time, and what it raises there."""
        for at in range(len(answers)) if reward.alone else ():
            one = Answers(answers.prompts[at : at + 1], answers.texts[at : at + 1], answers.rows[at : at + 1],
                          answers.rollouts.rows(at, at + 1))  # fmt: skip
            try:
                with undisturbed(), limited(self.timeout):
                    reward.score(one)
            except TimedOut:
                break
            except RAISED as found:
                return self.place(answers.rows[at]), found
        return self._places(answers.rows), error

    def _failed(self, reward: ListedReward, what: str, where: str) -> TrainingFailed:
        return TrainingFailed(
            f"rlhf.rewards: {reward.label} {what} for {where}; correct it, then go on from the last checkpoint with: "
            f"llmf resume {self.run}"
        )

    def place(self, row: Row) -> str:
        """A row by its dataset's name and its number."""
        return f"{self.source(row)} row {int(row['row'])}"

    def source(self, row: Row) -> str:
        """The name of a row's dataset."""
        source = int(row["source"])
        return self.sources[source] if source < len(self.sources) else f"dataset {source}"

    def _places(self, rows: Sequence[Row]) -> str:
        named = list(dict.fromkeys(map(self.place, rows)))
        more = f" and {len(named) - 4} more" if len(named) > 4 else ""
        return f"the answers to {', '.join(named[:4])}{more}"


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except Exception:  # of thousands of digits, or of a class of the user's
        text = f"a {type(value).__name__}"
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _line(error: BaseException) -> str:
    """Where in its file a function raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f" ({trace.tb_frame.f_code.co_filename} line {trace.tb_lineno})" if trace is not None else ""
