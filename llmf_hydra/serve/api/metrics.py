"""Numbers for Prometheus, of one server."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from llmf_hydra.serve.api.gate import Gate
from llmf_hydra.serve.engine import Engine

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)  # upper bounds of the histograms


class Metrics:
    """Requests, tokens and times; the names begin with `llmf_`."""

    def __init__(self, gate: Gate, engine: Engine):
        own = self._registry = CollectorRegistry()
        self._requests = Counter("llmf_requests", "Requests answered", ["path", "status"], registry=own)
        self._seconds = Histogram(
            "llmf_request_seconds", "Seconds of a request", ["path"], buckets=SECONDS, registry=own
        )
        self._first = Histogram(
            "llmf_time_to_first_token_seconds", "Seconds until the first token", buckets=SECONDS, registry=own
        )
        self._tokens = Counter("llmf_tokens", "Tokens of prompts and answers", ["kind"], registry=own)
        running = Gauge("llmf_requests_running", "Requests that hold a place", registry=own)
        running.set_function(lambda: gate.inside)
        waiting = Gauge("llmf_requests_waiting", "Requests that wait for a place", registry=own)
        waiting.set_function(lambda: gate.waiting)
        answers = Gauge("llmf_answers_running", "Answers in the batch", registry=own)
        answers.set_function(lambda: engine.load[0])

    def request(self, path: str, status: int, seconds: float) -> None:
        """A request has ended."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def first_token(self, seconds: float) -> None:
        """The first token of an answer came after so long."""
        self._first.observe(seconds)

    def tokens(self, prompt: int, answer: int) -> None:
        """Tokens that were read and written."""
        self._tokens.labels("prompt").inc(prompt)
        self._tokens.labels("answer").inc(answer)

    def text(self) -> bytes:
        """All of them, in Prometheus' text format."""
        return generate_latest(self._registry)
