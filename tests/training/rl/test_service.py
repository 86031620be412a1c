"""The reward service: what it is asked, when it is asked again, and what the user is told."""

import time
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.ppo_runs import ANSWERS, PROMPTS, ROWS, rollouts, served, share_of_vowels
from transformers import AutoTokenizer

from llmf_hydra.errors import TrainingFailed
from llmf_hydra.models.builtin import tiny
from llmf_hydra.training.rewards.service import ServiceReward

Make = Callable[..., ServiceReward]


@pytest.fixture
def make(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    monkeypatch.setenv("LLMF_CACHE", str(cache))
    tokenizer = AutoTokenizer.from_pretrained(tiny.ready())

    def made(url: str, skip: bool = True, **more: Any) -> ServiceReward:
        return ServiceReward(url, tokenizer, skip, **{"waits": (0.01, 0.01), "timeout": 5.0, **more})

    return made


def scores(reward: ServiceReward) -> list[float]:
    return reward(rollouts(PROMPTS, ANSWERS), ROWS).tolist()


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


def test_user_and_password_of_the_url_are_sent(make: Make) -> None:
    with served(lambda body: (200, {"scores": [1, 2, 3]})) as service:
        assert scores(make(service.url.replace("//", "//me:p%40ss@"))) == [1.0, 2.0, 3.0]
    assert service.authorized == ["Basic " + b64encode(b"me:p@ss").decode()]


def test_trouble_that_passes_is_waited_for(make: Make) -> None:
    replies = iter([(503, {}), (500, {}), (200, {"scores": [1, 2, 3]})])
    with served(lambda body: next(replies)) as service:
        assert scores(make(service.url)) == [1.0, 2.0, 3.0]
    assert len(service.requests) == 3


WRONG: list[tuple[int, Any, int, str]] = [  # status, body, number of requests, what the user reads
    (503, {}, 3, "503"),
    (404, {}, 1, "404"),
    (200, {"scores": [1, 2]}, 1, "2 scores for 3 answers"),
    (200, {"score": 1}, 1, "is due"),
    (200, [1, 2, 3], 1, "is due"),
    (200, b"<html>", 1, "<html>"),
    (200, {"scores": "123"}, 1, "is due"),
    (200, {"scores": {"0": 1, "1": 2, "2": 3}}, 1, "is due"),
    (200, {"scores": ["0.5", 1, 2]}, 1, 'the score "0.5"'),
    (200, {"scores": [True, 1, 2]}, 1, "the score true"),
    (200, {"scores": [None, 1, 2]}, 1, "the score null"),
    (200, {"scores": [[1], 1, 2]}, 1, "the score [1]"),
    (200, b'{"scores": [NaN, 1, 2]}', 1, "the score NaN"),
    (200, b'{"scores": [-Infinity, 1, 2]}', 1, "the score -Infinity"),
    (200, b'{"scores": [1e39, 1, 2]}', 1, "the score 1e+39"),  # beyond float32
    (200, b'{"scores": [1' + b"0" * 400 + b", 1, 2]}", 1, "the score 1000"),
]


def test_a_failure_names_the_url_and_a_bad_score_its_prompt_too(make: Make) -> None:
    wrong = []
    for status, said, times, told in WRONG:
        with (
            served(lambda body, reply=(status, said): reply) as service,
            pytest.raises(TrainingFailed) as failed,
        ):
            scores(make(service.url))
        text = str(failed.value)
        prompt = service.requests[0]["samples"][0]["prompt"]
        if len(service.requests) != times or service.url not in text or told not in text:
            wrong.append((said, times, text))
        elif "the score" in told and repr(prompt) not in text:
            wrong.append((said, prompt, text))
    assert not wrong


def test_the_timeout_is_that_of_the_whole_request(make: Make) -> None:
    """A service that sends a byte now and then keeps each read alive."""
    with served(share_of_vowels) as service:
        service.seconds_per_byte = 0.1
        begun = time.monotonic()
        with pytest.raises(TrainingFailed, match=r"timed out after 0\.3 seconds"):
            scores(make(service.url, timeout=0.3, waits=()))
        assert time.monotonic() - begun < 1.0


def test_an_answer_that_takes_too_long(make: Make) -> None:
    def slow(body: dict[str, Any]) -> tuple[int, Any]:
        time.sleep(0.3)
        return share_of_vowels(body)

    with served(slow) as service, pytest.raises(TrainingFailed, match="timed out"):
        scores(make(service.url, timeout=0.1, waits=()))


def test_nobody_there(make: Make) -> None:
    with served(share_of_vowels) as service:
        url = service.url
    with pytest.raises(TrainingFailed, match="refused") as failed:
        scores(make(url))
    assert url in str(failed.value)


def test_one_of_several_rewards_is_named_as_it_was_given(make: Make) -> None:
    reward = make("http://127.0.0.1:9/", name="rlhf.rewards=service:http://127.0.0.1:9/")
    with pytest.raises(
        TrainingFailed, match=r"^rlhf\.rewards=service:http://127\.0\.0\.1:9/: the reward service"
    ):
        scores(reward)
