"""The reward service: what it is asked, when it is asked again, and what the user is told."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.ppo_runs import ANSWERS, PROMPTS, rollouts, served, share_of_vowels
from transformers import AutoTokenizer

from llmf_hydra.errors import TrainingFailed
from llmf_hydra.models.builtin import tiny
from llmf_hydra.training.rl.rewards.service import ServiceReward

Make = Callable[..., ServiceReward]


@pytest.fixture
def make(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    monkeypatch.setenv("LLMF_CACHE", str(cache))
    tokenizer = AutoTokenizer.from_pretrained(tiny.ready())

    def made(url: str, skip: bool = True, **more: Any) -> ServiceReward:
        return ServiceReward(url, tokenizer, skip, **{"waits": (0.01, 0.01), "timeout": 5.0, **more})

    return made


def scores(reward: ServiceReward) -> list[float]:
    return reward(rollouts(PROMPTS, ANSWERS)).tolist()


def test_one_request_holds_the_batch(make: Make) -> None:
    with served(lambda body: (200, {"scores": [0.5, -1, 2]})) as service:
        assert scores(make(service.url)) == [0.5, -1.0, 2.0]
        assert scores(make(service.url, skip=False)) == [0.5, -1.0, 2.0]
    plain, whole = service.requests
    tokenizer = AutoTokenizer.from_pretrained(tiny.ready())
    assert plain["samples"][0]["prompt"] == tokenizer.decode(PROMPTS[0])
    assert plain["samples"][0]["response"] == tokenizer.decode(ANSWERS[0][:-1])
    assert whole["samples"][0]["response"] == tokenizer.decode(ANSWERS[0]) != plain["samples"][0]["response"]
    assert plain["messages"] == [s["prompt"] + s["response"] for s in plain["samples"]]


def test_trouble_that_passes_is_waited_for(make: Make) -> None:
    replies = iter([(503, {}), (500, {}), (200, {"scores": [1, 2, 3]})])
    with served(lambda body: next(replies)) as service:
        assert scores(make(service.url)) == [1.0, 2.0, 3.0]
    assert len(service.requests) == 3


@pytest.mark.parametrize(
    ("status", "said", "times", "told"),
    [
        (503, {}, 3, "503"),
        (404, {}, 1, "404"),
        (200, {"scores": [1, 2]}, 1, "2 scores for 3 answers"),
        (200, {"score": 1}, 1, "is due"),
        (200, b"<html>", 1, "<html>"),
        (200, {"scores": ["a", "b", "c"]}, 1, "is due"),
    ],
)
def test_what_does_not_pass_names_the_url(make: Make, status: int, said: Any, times: int, told: str) -> None:
    with served(lambda body: (status, said)) as service, pytest.raises(TrainingFailed) as failed:
        scores(make(service.url))
    assert len(service.requests) == times
    assert service.url in str(failed.value) and told in str(failed.value)


def test_an_answer_that_takes_too_long(make: Make) -> None:
    def slow(body: dict[str, Any]) -> tuple[int, Any]:
        time.sleep(0.5)
        return share_of_vowels(body)

    with served(slow) as service, pytest.raises(TrainingFailed, match="timed out"):
        scores(make(service.url, timeout=0.1, waits=()))


def test_nobody_there(make: Make) -> None:
    with served(share_of_vowels) as service:
        url = service.url
    with pytest.raises(TrainingFailed, match="refused") as failed:
        scores(make(url))
    assert url in str(failed.value)
