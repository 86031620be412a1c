"""`reward_model_type=api`: an HTTP service scores the answers. What it is asked and answers: docs/ppo.md."""

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from llmf_hydra.errors import TrainingFailed
from llmf_hydra.training.generation import Rollouts

TIMEOUT = 60.0  # seconds for one answer
WAITS = (0.5, 1.0, 2.0, 4.0)  # seconds before each further attempt
PASSING = (408, 425, 429, 500, 502, 503, 504)  # statuses after which it is tried again


class ServiceReward:
    """Scores by one request for a batch of answers; tries again where the trouble may pass."""

    def __init__(
        self,
        url: str,
        tokenizer: PreTrainedTokenizerBase,
        skip_special_tokens: bool,
        timeout: float = TIMEOUT,
        waits: Sequence[float] = WAITS,
    ):
        self._url, self._tokenizer, self._skip = url, tokenizer, skip_special_tokens
        self._timeout, self._waits = timeout, waits

    def __call__(self, rollouts: Rollouts) -> torch.Tensor:
        """Raises TrainingFailed, with the URL, where no scores came."""
        prompts, responses = texts(rollouts, self._tokenizer, self._skip)
        samples = [{"prompt": p, "response": r} for p, r in zip(prompts, responses, strict=True)]
        # `messages` is what LLaMA-Factory's own reward service reads.
        body = {"samples": samples, "messages": [s["prompt"] + s["response"] for s in samples]}
        scores = self._scores(self._asked(json.dumps(body).encode()), len(samples))
        return torch.tensor(scores, dtype=torch.float32, device=rollouts.ids.device)

    def _asked(self, body: bytes) -> bytes:
        """The service's answer to one request, tried again while the trouble may pass."""
        for wait in (*self._waits, None):
            try:
                return self._post(body)
            except urllib.error.HTTPError as error:
                trouble, passes = f"answered {error.code} {error.reason}", error.code in PASSING
                error.close()
            except (
                OSError,
                http.client.HTTPException,
            ) as error:  # no connection, a broken one, no answer in time
                trouble, passes = str(error) or type(error).__name__, True
            if wait is None or not passes:
                raise self._failed(trouble)
            time.sleep(wait)
        raise AssertionError("the last attempt returns or raises")

    def _post(self, body: bytes) -> bytes:
        request = urllib.request.Request(self._url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=self._timeout) as answer:
            return answer.read()

    def _scores(self, answer: bytes, count: int) -> list[float]:
        try:
            scores = json.loads(answer)["scores"]
            numbers = [float(score) for score in scores]
        except (ValueError, TypeError, KeyError) as error:
            raise self._failed(f'answered {answer[:80]!r} where {{"scores": [numbers]}} is due') from error
        if len(numbers) != count:
            raise self._failed(f"gave {len(numbers)} scores for {count} answers")
        return numbers

    def _failed(self, what: str) -> TrainingFailed:
        return TrainingFailed(
            f"rlhf.reward_model={self._url}: the reward service {what}; "
            "see that it runs, then go on with `llmf resume`"
        )


def texts(
    rollouts: Rollouts, tokenizer: PreTrainedTokenizerBase, skip_special_tokens: bool
) -> tuple[list[str], list[str]]:
    """Prompts as the model read them, and answers, with or without special tokens."""

    def decoded(ids: Any, kept: torch.Tensor, skip: bool) -> str:
        return str(tokenizer.decode(ids[kept].tolist(), skip_special_tokens=skip))

    split = rollouts.ids.shape[1] - rollouts.width
    prompts = [
        decoded(ids[:split], kept[:split].bool(), False)
        for ids, kept in zip(rollouts.ids, rollouts.attention, strict=True)
    ]
    answers = zip(rollouts.answers, rollouts.mask, strict=True)
    return prompts, [decoded(ids, kept, skip_special_tokens) for ids, kept in answers]
