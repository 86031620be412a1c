"""What a reward may do wrong, and what the user reads of it; how a user's function is found and called."""

import json
import math
import os
import random
import re
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.ppo_runs import ANSWERS, PROMPTS, rollouts

from llmf_hydra.errors import Refused, TrainingFailed
from llmf_hydra.training.rewards import function
from llmf_hydra.training.rewards.function import Function
from llmf_hydra.training.rewards.scoring import Answers, ListedReward, Scorer
from llmf_hydra.training.rewards.time_limit import TimedOut, limited

TEXTS = ["one", "two", "three"]
ROWS = [
    {
        "source": 0,
        "row": row + 5,
        "prompt_ids": ids,
        "columns": json.dumps({"answer": str(row), "level": row}),
    }
    for row, ids in enumerate(PROMPTS)
]
ENDLESS = re.compile("(x+x+)+y")
SCORER = Scorer(("sums",), 0.3, "outputs/run")


def answers() -> Answers:
    return Answers(["a", "b", "c"], TEXTS, ROWS, rollouts(PROMPTS, ANSWERS))


def listed(score: Callable[[Answers], Any]) -> ListedReward:
    return ListedReward("mine", 1.0, score, alone=True)


def raising(asked: Answers) -> list[float]:
    if "two" in asked.texts:
        raise KeyError("nothing here")
    return [1.0] * len(asked)


def interrupting(asked: Answers) -> list[float]:
    raise KeyboardInterrupt


def hanging(asked: Answers) -> list[float]:
    try:
        time.sleep(20)
    except Exception:  # what a careless function does
        return [0.0] * len(asked)
    return [1.0] * len(asked)


WRONG: list[tuple[str, Callable[[Answers], Any], list[str]]] = [
    ("raises", raising, ["raised KeyError: 'nothing here'", "test_scoring.py line", "sums row 6;"]),
    ("hangs", hanging, ["took longer than rlhf.reward_timeout=0.3 seconds", "sums row 5, sums row 6, sums row 7;"]),
    ("a pattern without end", lambda a: [float(bool(ENDLESS.match("x" * 40)))] * len(a), ["took longer"]),
    ("NaN", lambda a: [0, math.nan, 1], ["returned nan, which is not a finite number", "sums row 6;"]),
    ("infinity", lambda a: [0, 1, -math.inf], ["returned -inf", "sums row 7;"]),
    ("beyond float32", lambda a: [1e39, 0, 0], ["returned 1e+39", "sums row 5;"]),
    ("a string", lambda a: [0, "1", 1], ["returned '1', which is str and no number", "sums row 6;"]),
    ("beyond any float", lambda a: [0, 10**400, 1], ["returned 1000", "which is not a finite", "sums row 6;"]),
    ("leaving", lambda a: sys.exit(3), ["raised SystemExit: 3"]),
    ("interrupting", interrupting, ["raised KeyboardInterrupt", "test_scoring.py line"]),
    ("too few", lambda a: [1.0, 2.0], ["returned 2 scores for 3 answers"]),
    ("too many", lambda a: [1.0] * 4, ["returned 4 scores for 3 answers"]),
    ("one number", lambda a: 1.0, ["returned float, where a list of numbers is due"]),
    ("a text", lambda a: "123", ["returned str, where a list"]),
    ("a mapping", lambda a: {1: 2, 3: 4, 5: 6}, ["returned dict, where a list"]),
    ("nothing", lambda a: None, ["returned NoneType, where a list"]),
]  # fmt: skip


@pytest.mark.parametrize(("score", "told"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG])
def test_what_is_no_score_ends_the_run_in_words(score: Callable[[Answers], Any], told: list[str]) -> None:
    with pytest.raises(TrainingFailed) as failed:
        SCORER(listed(score), answers())
    said = str(failed.value)
    assert said.startswith("rlhf.rewards: mine ") and said.endswith("with: llmf resume outputs/run"), said
    assert all(part in said for part in told), said


def test_what_is_a_score() -> None:
    assert SCORER(listed(lambda a: [True, np.bool_(False), 1]), answers()) == [1.0, 0.0, 1.0]
    assert SCORER(listed(lambda a: (1, 2.5, None)), answers()) == [1.0, 2.5, None]
    assert SCORER(listed(lambda a: np.array([1, 2, 3.5])), answers()) == [1.0, 2.0, 3.5]
    assert SCORER(listed(lambda a: torch.tensor([1.0, 2.0, 3.0])), answers()) == [1.0, 2.0, 3.0]
    assert SCORER(listed(lambda a: (float(len(t)) for t in a.texts)), answers()) == [3.0, 3.0, 5.0]


def test_the_time_limit_is_gone_with_its_block_and_only_the_main_thread_has_it() -> None:
    with limited(0.05):
        pass
    time.sleep(0.1)
    with pytest.raises(TimedOut), limited(0.05):
        time.sleep(5)
    done: list[bool] = []

    def elsewhere() -> None:
        with limited(0.01):
            time.sleep(0.05)
        done.append(True)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert done == [True]


def asked(name: str) -> Callable[[Answers], Any]:
    """A function of a user's own, as the list of rewards calls it."""
    function = Function.load(name)
    return lambda answers: function(answers.prompts, answers.texts, answers.columns)


def test_a_function_gets_the_columns_it_asks_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them with **columns; the module may import one beside it; those of a package are found too."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "beside_it.py").write_text("BONUS = 10\n")
    (tmp_path / "asked_rewards.py").write_text(
        "from beside_it import BONUS\n"
        "def some(prompts, completions, level):\n    return [BONUS + n for n in level]\n"
        "def every(prompts, completions, **columns):\n"
        "    return [float(sorted(columns) == ['answer', 'level'])] * len(prompts)\n"
        "def plain(prompts, completions):\n    return [len(p + c) for p, c in zip(prompts, completions)]\n"
    )
    (tmp_path / "asked_package" / "inner").mkdir(parents=True)
    (tmp_path / "asked_package" / "inner" / "rewards.py").write_text(
        "def one(prompts, completions):\n    return [1] * 3\n"
    )
    found = {
        name: SCORER(listed(asked(name)), answers())
        for name in (
            "asked_rewards:some",
            "asked_rewards:every",
            "asked_rewards:plain",
            "asked_package.inner.rewards:one",
        )
    }
    assert list(found.values()) == [[10.0, 11.0, 12.0], [1.0] * 3, [4.0, 4.0, 6.0], [1.0] * 3]


def test_a_function_is_looked_for_in_the_source_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "source_rewards.py").write_text("raise SystemExit('was run')\nscore = 1\n")
    (tmp_path / "broken_rewards.py").write_text("def score(:\n")
    assert function.problem("source_rewards:score") is None
    told = [str(function.problem(name)) for name in
            ("source_rewards:scor", "no_such_rewards:score", "broken_rewards:score")]  # fmt: skip
    assert "defines no scor; did you mean 'score'?" in told[0]
    assert "there is no module no_such_rewards; put no_such_rewards.py where" in told[1]
    assert "or name the file: python:path/to/no_such_rewards.py:" in told[1]
    assert "broken_rewards.py line 1" in told[2]
    (tmp_path / "statistics.py").write_text("def score(prompts, completions): ...\n")
    (tmp_path / "nested_rewards.py").write_text("class Rewards:\n    def score(self): ...\n")
    hiding, nested = (str(function.problem(f"{name}:score")) for name in
                      ("statistics", "nested_rewards"))  # fmt: skip
    assert "has the name of an installed module" in hiding and "give yours another name" in hiding
    assert "defines no score" in nested


def test_a_function_that_cannot_be_called_is_refused_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "odd_rewards.py").write_text(
        "value = 3\nasync def later(prompts, completions):\n    return []\n"
        "class Rewards: ...\ndef none_of_ours(answers): ...\ndef by_place(prompts, completions, /): ...\n"
    )
    (tmp_path / "bad_rewards.py").write_text("import not_a_package_at_all\ndef score(): ...\n")
    (tmp_path / "leaving.py").write_text("raise SystemExit(3)\ndef score(completions): ...\n")
    for name, told in [
        ("odd_rewards:value", "is of type int, where a plain function is due"),
        ("odd_rewards:later", "is an async function, where"),
        ("odd_rewards:Rewards", "is a class, where"),
        ("odd_rewards:none_of_ours", "takes no argument completions; define it as def score"),
        ("odd_rewards:by_place", "takes arguments by their place"),
        ("bad_rewards:score", "bad_rewards.py cannot be imported: ModuleNotFoundError"),
        ("leaving:score", "leaving.py cannot be imported: SystemExit: 3"),
    ]:
        with pytest.raises(Refused, match=told):
            Function.load(name)


def test_a_reward_leaves_the_training_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it seeds, switches or changes into: else every generation would draw the same numbers."""
    monkeypatch.chdir(tmp_path)

    def seeded(seed: int) -> tuple[float, float, float]:
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        return random.random(), np.random.rand(), float(torch.rand(1))

    def meddle(answers: Answers) -> list[float]:
        os.chdir("/")
        torch.set_grad_enabled(False)
        return [sum(seeded(0))] * len(answers)

    first = seeded(5)
    expected = random.random(), np.random.rand(), float(torch.rand(1))
    assert seeded(5) == first
    SCORER(listed(meddle), answers())
    assert (random.random(), np.random.rand(), float(torch.rand(1))) == expected
    assert Path.cwd() == tmp_path and torch.is_grad_enabled()


def test_a_function_may_be_named_by_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it lies, whatever it is called; it may import what lies beside it, and hides no module."""
    away = tmp_path / "some where"
    away.mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (away / "beside_the_file.py").write_text("BONUS = 7\n")
    source = (
        "from beside_the_file import BONUS\ndef score(completions): return [BONUS for _ in completions]\n"
    )
    for name in ("json.py", "my-rewards.py"):
        (away / name).write_text(source)
        for named in (f"../some where/{name}:score", f"{away}/{name}:score"):
            assert function.problem(named) is None
            assert function.file_of(named) == (tmp_path / "here" / named.rpartition(":")[0]).absolute()
            assert SCORER(listed(asked(named)), answers()) == [7.0] * 3
    assert json.loads("1") == 1 and sys.modules["json"] is json
    (tmp_path / "here" / "statistics.py").write_text(source)
    assert "or name the file: python:statistics.py:score" in str(function.problem("statistics:score"))
    assert f"there is no file {away}/none.py" in str(function.problem(f"{away}/none.py:score"))
    for own in ("os:getcwd", "sys:exit"):
        assert "is Python's own" in str(function.problem(own)) or function.file_of(own) is not None
