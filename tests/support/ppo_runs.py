"""What the tests of PPO share: a reward service, reward models of the tiny policy, small rollouts."""

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from llmf_hydra.models.builtin import tiny
from llmf_hydra.training.generation import Rollouts

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
PAD = 2  # the tiny model's padding token, which also ends its answers
SHORT = ["training.max_steps=4", "training.logging_steps=1", "training.eval_strategy=no", "data.val_size=0",
         "training.save_strategy=no", "data.max_samples=16", "generation.max_new_tokens=4",
         "training.learning_rate=0.01", "training.warmup_ratio=0", "rlhf.ppo_epochs=2"]  # fmt: skip


class Quiet(ThreadingHTTPServer):
    """Says nothing of a client that didn't wait for its answer."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: the client tells."""


class Service:
    """A reward service in this process. `answer` makes the status and the body of the reply to a request."""

    def __init__(self, answer: Callable[[dict[str, Any]], tuple[int, Any]]):
        self.requests: list[dict[str, Any]] = []
        self.authorized: list[str | None] = []  # what each request says of who sends it
        self.seconds_per_byte = 0.0
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:  # the name that http.server calls
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                service.requests.append(body)
                service.authorized.append(self.headers["Authorization"])
                status, said = answer(body)
                written = said if isinstance(said, bytes) else json.dumps(said).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(written)))
                self.end_headers()
                for byte in written if service.seconds_per_byte else ():
                    time.sleep(service.seconds_per_byte)
                    self.wfile.write(bytes([byte]))
                if not service.seconds_per_byte:
                    self.wfile.write(written)

            def log_message(self, format: str, *args: Any) -> None:
                """Says nothing."""

        self.server = Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/score"


@contextmanager
def served(answer: Callable[[dict[str, Any]], tuple[int, Any]]) -> Iterator[Service]:
    service = Service(answer)
    thread = threading.Thread(target=service.server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield service
    finally:
        service.server.shutdown()
        service.server.server_close()
        thread.join()


def share_of(letters: str, body: dict[str, Any], scale: float = 1.0) -> tuple[int, Any]:
    """The share of an answer's characters that are among `letters`, times `scale`."""
    said = [sample["response"] for sample in body["samples"]]
    return 200, {"scores": [scale * sum(c in letters for c in text) / max(1, len(text)) for text in said]}


def share_of_vowels(body: dict[str, Any]) -> tuple[int, Any]:
    return share_of("aeiou", body)


def classifier() -> PreTrainedModel:
    """The tiny model with a head that scores, far from 0 so that a wrong place shows."""
    torch.manual_seed(1)
    model = AutoModelForSequenceClassification.from_pretrained(tiny.ready(), num_labels=1)
    with torch.no_grad():
        model.score.weight.normal_()
    model.config.pad_token_id = PAD
    return model


def save_full(folder: Path) -> PreTrainedModel:
    """Save a reward model of its own, and give it back."""
    model = classifier()
    model.save_pretrained(folder)
    return model.eval()


def save_adapter(folder: Path) -> PeftModel:
    """Save a reward adapter on the tiny model with its head, and give the scorer back."""
    config = LoraConfig(task_type="SEQ_CLS", r=4, target_modules="all-linear", lora_alpha=16)
    model = get_peft_model(classifier(), config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.3)
    model.save_pretrained(folder)
    return model.eval()


def rollouts(prompts: list[list[int]], answers: list[list[int]]) -> Rollouts:
    """Rollouts of given tokens, padded as the policy's are."""
    left, right = max(map(len, prompts)), max(map(len, answers))
    ids = [
        [PAD] * (left - len(p)) + p + a + [PAD] * (right - len(a))
        for p, a in zip(prompts, answers, strict=True)
    ]
    seen = [
        [0] * (left - len(p)) + [1] * len(p + a) + [0] * (right - len(a))
        for p, a in zip(prompts, answers, strict=True)
    ]
    mask = [[True] * len(a) + [False] * (right - len(a)) for a in answers]
    return Rollouts(
        torch.tensor(ids),
        torch.tensor(seen),
        torch.tensor(mask),
        torch.tensor([a[-1] == PAD for a in answers]),
    )


def log_of(out: Path) -> list[dict[str, Any]]:
    """The lines of a run's log."""
    return [json.loads(line) for line in (out / "log.jsonl").read_text(encoding="utf8").splitlines()]


PROMPTS = [[5, 6, 7, 8, 9, 10], [300, 301], [40, 41, 42, 43]]
ROWS = [{"source": 0, "row": row, "prompt_ids": ids} for row, ids in enumerate(PROMPTS)]
ANSWERS = [[700, 701, 2], [50, 51, 52, 53, 54], [9]]
