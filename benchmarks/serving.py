"""The API at eight clients, beside a loop of bare `model.generate` over the same prompts.

python -m benchmarks.serving MODEL [--requests N] [--rounds N]
"""

import argparse
import json
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CLIENTS, TOKENS = 8, 32
SUBJECTS = ("the sea", "a long winter", "bread", "the history of the bicycle", "rain", "a quiet town")


def prompts(count: int) -> list[str]:
    """Questions of different lengths."""
    return [
        f"Write about {SUBJECTS[n % len(SUBJECTS)]}, {'and more ' * (n % 5)}number {n}." for n in range(count)
    ]


def measure(model: str, requests: int = 32, rounds: int = 2) -> dict[str, Any]:
    """Tokens and requests per second, time to the first token in seconds; the server and the loop by turns."""
    asked = prompts(requests)
    served: list[dict[str, float]] = []
    bare: list[float] = []
    with _server(model) as url:
        loop = _Loop(model)
        _ask(url, asked[0])
        loop.run(asked[:1])
        for _ in range(rounds):
            served.append(_clients(url, asked))
            bare.append(loop.run(asked))
    best = {key: round(statistics.median(one[key] for one in served), 2) for key in served[0]}
    alone = statistics.median(bare)
    return {
        **best,
        "clients": CLIENTS,
        "bare_generate_tokens_per_s": round(alone, 2),
        "times_as_fast": round(best["tokens_per_s"] / alone, 2),
    }


@contextmanager
def _server(model: str) -> Iterator[str]:
    words = ["job=api", f"model={model}", "serve.port=0", f"serve.max_concurrent={CLIENTS}", "serve.verbose=false",
             "model.infer_dtype=float32"]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("wb") as sink:
            process = subprocess.Popen(
                [sys.executable, "-m", "llmf_hydra", *words], cwd=folder, stdout=sink, stderr=sink
            )
        try:
            while not (found := re.search(r"http://\S+?/v1", log.read_text())):
                if process.poll() is not None:
                    sys.exit(log.read_text())
                time.sleep(0.2)
            yield found[0]
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


def _clients(url: str, asked: list[str]) -> dict[str, float]:
    before = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as pool:
        answers = list(pool.map(lambda prompt: _ask(url, prompt), asked))
    taken = time.perf_counter() - before
    return {
        "tokens_per_s": sum(count for count, _ in answers) / taken,
        "requests_per_s": len(asked) / taken,
        "first_token_s": statistics.median(first for _, first in answers),
    }


def _ask(url: str, prompt: str) -> tuple[int, float]:
    """Tokens of a streamed answer, and the seconds to its first one."""
    import httpx

    body = {"messages": [{"role": "user", "content": prompt}], "max_tokens": TOKENS, "temperature": 0, "stream": True,
            "stream_options": {"include_usage": True}}  # fmt: skip
    before, first, count = time.perf_counter(), 0.0, 0
    with httpx.stream("POST", f"{url}/chat/completions", json=body, timeout=None, trust_env=False) as answer:
        for line in answer.iter_lines():
            if not line.startswith("data: {"):
                continue
            chunk = json.loads(line[6:])
            if not first and chunk["choices"] and chunk["choices"][0]["delta"].get("content"):
                first = time.perf_counter() - before
            count = (chunk.get("usage") or {}).get("completion_tokens", count)
    return count, first


class _Loop:
    """The model as Transformers loads it, asked one prompt after another."""

    def __init__(self, model: str):
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from llmf_hydra.config.groups.model import EMBEDDED, TINY, ModelConfig
        from llmf_hydra.models.ref import locate

        name = {"tiny": TINY, "smollm2": EMBEDDED}.get(model, model)
        folder = locate(ModelConfig(model_name_or_path=name))
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self._model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def run(self, asked: list[str]) -> float:
        """Tokens per second."""
        before, count = time.perf_counter(), 0
        for prompt in asked:
            message = [{"role": "user", "content": prompt}]
            inputs = self._tokenizer.apply_chat_template(
                message, add_generation_prompt=True, return_tensors="pt", return_dict=True
            )
            made = self._model.generate(**inputs, max_new_tokens=TOKENS, do_sample=False)
            count += made.shape[1] - inputs["input_ids"].shape[1]
        return count / (time.perf_counter() - before)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure the API beside a bare loop.")
    parser.add_argument("model")
    parser.add_argument("--requests", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    print(json.dumps(measure(given.model, given.requests, given.rounds), indent=2))
