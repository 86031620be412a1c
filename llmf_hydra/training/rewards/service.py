"""`reward_model_type=api`: an HTTP service scores the answers. Its protocol is described in docs/ppo.md."""

import base64
import http.client
import json
import math
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence

import torch
from transformers import PreTrainedTokenizerBase

from llmf_hydra.errors import TrainingFailed
from llmf_hydra.training.generation import Rollouts
from llmf_hydra.training.rewards.protocol import Row, bad_score
from llmf_hydra.training.rewards.texts import texts

TIMEOUT = 60.0  # seconds per request, from the connection to the last byte of the answer
WAITS = (0.5, 1.0, 2.0, 4.0)  # seconds before each further attempt
TRANSIENT = (408, 425, 429, 500, 502, 503, 504)  # statuses after which a request is repeated


class _Transient(Exception):
    """A failure after which the request is repeated."""


class ServiceReward:
    """Scores a batch of answers by one request; repeats it where the failure may be transient."""

    def __init__(
        self,
        url: str,
        tokenizer: PreTrainedTokenizerBase,
        skip_special_tokens: bool,
        timeout: float = TIMEOUT,
        waits: Sequence[float] = WAITS,
        name: str | None = None,
    ):
        self.name, self._url = name or f"rlhf.reward_model={url}", url
        self._tokenizer, self._skip = tokenizer, skip_special_tokens
        self._timeout, self._waits = timeout, waits

    def __call__(self, rollouts: Rollouts, rows: Sequence[Row]) -> torch.Tensor:
        """Raises TrainingFailed, with the URL, where no scores came."""
        prompts, responses = texts(rollouts, self._tokenizer, self._skip)
        samples = [{"prompt": p, "response": r} for p, r in zip(prompts, responses, strict=True)]
        # `messages` is what LLaMA-Factory's own reward service reads.
        body = {"samples": samples, "messages": [s["prompt"] + s["response"] for s in samples]}
        scores = self._scores(self._asked(json.dumps(body).encode()), prompts)
        return torch.tensor(scores, dtype=torch.float32, device=rollouts.ids.device)

    def _asked(self, body: bytes) -> bytes:
        """The service's answer to one request, repeated after transient failures."""
        for wait in self._waits:
            try:
                return self._post(body)
            except _Transient:
                time.sleep(wait)
        try:
            return self._post(body)
        except _Transient as failure:
            raise self._failed(str(failure)) from failure

    def _post(self, body: bytes) -> bytes:
        """One request. Raises _Transient for a failure after which it may be repeated, else TrainingFailed."""
        try:
            return self._within_timeout(body)
        except urllib.error.HTTPError as error:
            failure = f"answered {error.code} {error.reason}"
            error.close()
            raise (_Transient if error.code in TRANSIENT else self._failed)(failure) from error
        except (OSError, http.client.HTTPException) as error:  # no connection, a broken one, a timeout
            raise _Transient(str(error) or type(error).__name__) from error

    def _within_timeout(self, body: bytes) -> bytes:
        """Sockets limit each read alone, so the whole request has a thread of its own that is waited for."""
        outcome: list[bytes | Exception] = []
        thread = threading.Thread(target=self._request, args=(body, outcome), daemon=True)
        thread.start()
        thread.join(self._timeout)
        if not outcome:
            raise TimeoutError(f"timed out after {self._timeout:g} seconds")
        if isinstance(outcome[0], Exception):
            raise outcome[0]
        return outcome[0]

    def _request(self, body: bytes, outcome: list[bytes | Exception]) -> None:
        url, of_user = _without_user(self._url)
        request = urllib.request.Request(url, body, {"Content-Type": "application/json", **of_user})
        try:
            with urllib.request.urlopen(request, timeout=self._timeout) as answer:
                outcome.append(answer.read())
        except Exception as error:  # raised again in the thread that waits
            outcome.append(error)

    def _scores(self, answer: bytes, prompts: Sequence[str]) -> list[float]:
        due = self._failed(f'answered {answer[:80]!r} where {{"scores": [numbers]}} is due')
        try:
            parsed = json.loads(answer)
        except ValueError as error:
            raise due from error
        scores = parsed.get("scores") if isinstance(parsed, dict) else None
        if not isinstance(scores, list):
            raise due
        if len(scores) != len(prompts):
            raise self._failed(f"gave {len(scores)} scores for {len(prompts)} answers")
        for value, prompt in zip(scores, prompts, strict=True):
            if not _is_finite_number(value):
                raise bad_score(self.name, value, prompt)
        return [float(value) for value in scores]

    def _failed(self, what: str) -> TrainingFailed:
        return TrainingFailed(
            f"{self.name}: the reward service {what}; see that it runs, then go on with `llmf resume`"
        )


def _without_user(url: str) -> tuple[str, dict[str, str]]:
    """The URL without its user and password, which are sent as basic authentication, and that header."""
    parts = urllib.parse.urlsplit(url)
    if parts.username is None:
        return url, {}
    user, _, place = parts.netloc.rpartition("@")
    said = base64.b64encode(urllib.parse.unquote(user).encode()).decode()
    return urllib.parse.urlunsplit(parts._replace(netloc=place)), {"Authorization": f"Basic {said}"}


def _is_finite_number(value: object) -> bool:
    """Whether a JSON value is a number that float32 holds; a bool is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= torch.finfo(torch.float32).max and not math.isnan(value)
