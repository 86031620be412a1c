"""The end of a run, for people: how its metrics moved, what it left, and what can be done with it."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from llmf_hydra.checks.residual import RESIDUAL
from llmf_hydra.config.choices import METHODS
from llmf_hydra.config.quoting import command_line, hydra_value
from llmf_hydra.config.schema import Config, changed, entries
from llmf_hydra.config.secrets import MASK
from llmf_hydra.runs.checkpoints import FINAL

# The metrics worth a line, in this order; each with its eval_ twin.
TOLD = ("loss", "accuracy", "mean_token_accuracy", "rewards/accuracies", "rewards/margins", "margin",
        "reward", "pass_at_1", "pass_at_k", "objective/rlhf_reward", "objective/scores", "objective/kl")  # fmt: skip


# Settings of a method with adapters that no saved adapter holds.
OF_RUN = ("method.loraplus_lr_ratio", "method.loraplus_lr_embedding")


@dataclass(frozen=True)
class Change:
    """A metric from its first value in the log to its last."""

    metric: str
    first: float
    last: float
    first_step: int
    last_step: int

    def __str__(self) -> str:
        if self.first_step == self.last_step:
            return f"{self.metric} {self.last:.4f} (step {self.last_step})"
        return (
            f"{self.metric} {self.first:.4f} (step {self.first_step}) -> "
            f"{self.last:.4f} (step {self.last_step})"
        )


def changes(history: Iterable[Mapping[str, float]]) -> list[Change]:
    """How each metric worth a line moved, from the trainer's log."""
    points: dict[str, list[tuple[int, float]]] = {}
    for line in history:
        for metric, value in line.items():
            points.setdefault(metric, []).append((int(line["step"]), value))
    told = [metric for name in TOLD for metric in (name, f"eval_{name}") if metric in points]
    told += sorted(metric for metric in points if metric.startswith("eval_") and metric.endswith("_loss"))
    return [
        Change(
            metric, points[metric][0][1], points[metric][-1][1], points[metric][0][0], points[metric][-1][0]
        )
        for metric in dict.fromkeys(told)
    ]


def closing(cfg: Config, out: Path, command: Sequence[str], moved: Iterable[Change]) -> list[str]:
    """The last lines of a run; `command` holds the words it was started with, the program first."""
    folder = os.path.relpath(out)
    return [
        f"done: {folder}",
        *(f"  {change}" for change in moved),
        f"  {folder}/{FINAL} holds {_product(cfg)}; its README.md has the code that loads it",
        "next",
        *(f"  {what:<14}{line}" for what, line in _next(cfg, folder, command)),
    ]


def _product(cfg: Config) -> str:
    kind = "reward model" if cfg.stage.scores else "model"
    model = cfg.model.model_name_or_path
    return f"the adapter of {model}" if METHODS[cfg.method.name].adapters else f"the whole {kind}"


def _next(cfg: Config, folder: str, command: Sequence[str]) -> Iterable[tuple[str, str]]:
    if not cfg.stage.scores:
        yield "talk to it", command_line(["job=chat", f"from_run={hydra_value(folder)}"])
    words = [word for word in command[1:] if not word.startswith(("hydra.", "job="))]
    if not any(MASK in word or word.startswith("-") for word in words):
        yield "see the rows", command_line([*words, "job=preview"])
    if cfg.stage.scores:
        yield "score answers", f"llmf score FILE.jsonl --model {folder}/{FINAL}"
    elif METHODS[cfg.method.name].adapters:
        final = f"{folder}/{FINAL}"
        residual = [f"{final}/{RESIDUAL}"] if cfg.leaves_residual else []
        adapters = ",".join([*cfg.merged_adapters, *residual, final])
        model = f"model.model_name_or_path={cfg.model.model_name_or_path}"
        quoted = f"'{adapters}'" if "," in adapters else adapters
        yield (
            "train it on",
            command_line(
                [
                    f"stage={cfg.stage.name}",
                    *_of_method(cfg),
                    model,
                    f"model.adapter_name_or_path={quoted}",
                    *_of_base(cfg),
                    *_of_optimizer(cfg),
                ]
            ),
        )
    else:
        whole = f"model.model_name_or_path={folder}/{FINAL}"
        routed = ["model.mixture_of_depths=load"] if cfg.model.mixture_of_depths else []
        words = [f"stage={cfg.stage.name}", *_of_method(cfg), whole, *routed, *_of_optimizer(cfg)]
        yield "train it on", command_line(words)
    if cfg.model.mixture_of_depths is None:  # whose routers plain Transformers doesn't know
        whole = ["quantization=none"] if cfg.quantization.quantization_bit is not None else []
        target = f"export.export_dir={hydra_value(f'{folder}/exported')}"
        yield "export it", command_line(["job=export", f"from_run={hydra_value(folder)}", *whole, target])
    yield "all runs", "llmf runs"


def _of_method(cfg: Config) -> Iterable[str]:
    """Words that choose the run's method, where that isn't the default one."""
    method = cfg.method
    if method.name == "freeze" and method.use_llama_pro:
        yield "method=llama_pro"
        yield f"method.freeze_trainable_layers={method.freeze_trainable_layers}"
    elif method.name != entries()["method.name"].param.default:
        yield f"method={method.name}"
    of_adapter = METHODS[method.name].adapters  # the rest of its settings stand in the saved adapter
    for key, value in changed(cfg, "method").items():
        kept = key in ("method.use_llama_pro", "method.freeze_trainable_layers") and method.use_llama_pro
        if not kept and (not of_adapter or key in OF_RUN):
            yield f"{key}={hydra_value(value)}"


def _of_optimizer(cfg: Config) -> Iterable[str]:
    """The run's optimizer, whose memory the next run may need to fit in."""
    if cfg.optimizer.name != entries()["optimizer.name"].param.default:
        yield f"optimizer={cfg.optimizer.name}"
    for key, value in changed(cfg, "optimizer").items():
        yield f"{key}={hydra_value(value)}"
    if cfg.optimizer.layerwise_key is not None:
        yield f"training.max_grad_norm={hydra_value(cfg.training.max_grad_norm)}"


def _of_base(cfg: Config) -> Iterable[str]:
    """Words that make the base what the adapter was trained on: its new tokens, its positions, and its bits."""
    if cfg.model.rope_scaling is not None:
        yield f"model.rope_scaling={cfg.model.rope_scaling}"
        yield f"data.cutoff_len={cfg.data.cutoff_len}"
        if cfg.model.model_max_length is not None:
            yield f"model.model_max_length={cfg.model.model_max_length}"
    if cfg.model.new_special_tokens:
        yield f"model.new_special_tokens='{cfg.model.new_special_tokens}'"
    if cfg.model.resize_vocab:
        yield "model.resize_vocab=true"
    if cfg.quantization.quantization_bit is not None:
        yield f"quantization.quantization_method={cfg.quantization.quantization_method}"
        yield f"quantization.quantization_bit={cfg.quantization.quantization_bit}"
