"""What the tests of the stages share: a config composed in this process, and a training that is looked at."""

from collections.abc import Callable
from typing import Any

from llmf_hydra.config import compose
from llmf_hydra.config.schema import Config

Build = Callable[..., Any]

# Plain gradient descent: a difference in the gradient shows as it is, and is not scaled up by Adam.
SGD = ["data.max_samples=40", "training.disable_shuffling=true", "training.eval_strategy=no", "data.val_size=0",
       "training.save_strategy=no", "optimizer=sgd", "training.learning_rate=1.0", "training.max_grad_norm=0",
       "training.lr_scheduler_type=constant", "training.warmup_ratio=0", "training.logging_steps=1",
       "training.max_steps=2", "training.plot_loss=false"]  # fmt: skip


def composed(*words: str, model: str | None = "tiny") -> Config:
    """The config of a command line."""
    return compose.typed(compose.composed([*([f"model={model}"] if model else []), *words]))


def steps(trainer: Any) -> tuple[list[float], dict[str, Any]]:
    """Train; the losses that were logged, and the trained weights."""
    trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    return losses, {n: w.detach().clone() for n, w in trainer.model.named_parameters() if w.requires_grad}
