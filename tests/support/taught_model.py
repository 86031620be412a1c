"""What a tiny model is taught by heart, for the tests of what is served."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import httpx

from llmf_hydra.config.schema import Config

WEATHER = {
    "name": "get_weather",
    "description": "The weather of a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}
CALL = {"name": "get_weather", "arguments": {"city": "Oslo"}}
KNOWN = {
    "What is the capital of Peru?": "The capital of Peru is Lima, by the sea.",
    "Say hello.": "Hello there, how are you today?",
    "Count to five.": "one two three four five",
}
ASKS_FOR_A_TOOL = "Weather in Oslo?"
TRAINING = (
    "stage=sft", "model=tiny", "method=full", "training.max_steps=80", "training.learning_rate=0.01",
    "training.per_device_train_batch_size=4", "training.gradient_accumulation_steps=1", "data.val_size=0",
    "training.eval_strategy=no", "training.save_strategy=no", "training.plot_loss=false",
    "training.lr_scheduler_type=constant", "training.warmup_ratio=0", "hydra.run.dir=run",
)  # fmt: skip


def row(question: str, **answer: object) -> dict[str, object]:
    return {
        "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": "", **answer}]
    }


@dataclass(frozen=True)
class Served:
    """A server that answers at `url`."""

    url: str
    cfg: Config

    def client(self, **options: object) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60, trust_env=False, **options)  # pyright: ignore


Serve = Callable[..., AbstractContextManager[Served]]
