"""What there is to choose: one description of each stage, method, optimizer and job.

Whoever needs a fact about a choice asks here: the kind of rows of a stage, what its evaluation logs, whether an
optimizer suits adapters. Light and torch-free. To add a choice: its module, its file in `conf/`, its line here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar


@dataclass(frozen=True)
class StageInfo:
    """One kind of training."""

    help: str
    rows: str  # kind of rows, one of `data.kinds.KINDS`
    metrics: tuple[str, ...]  # logged by every evaluation, without the prefix eval_
    switched_metrics: Mapping[str, tuple[str, ...]] = field(
        default_factory=dict
    )  # switch of `training` -> metrics
    output: str = "text"  # what the trained model gives: text, or a score
    packs: bool = False  # several rows may share a sequence
    reference: bool = False  # the loss compares the policy with a reference model
    preference: bool = False  # rlhf.pref_beta and pref_ftx shape the loss
    several_losses: bool = False  # rlhf.pref_loss chooses one
    rollouts: bool = False  # trains on answers that the policy itself samples
    token_logprobs: bool = False  # reads the output head's weight directly, so the head takes no adapter
    planned: bool = False


@dataclass(frozen=True)
class MethodInfo:
    """A way to choose the trained weights."""

    help: str
    adapters: bool = False  # trains adapters on a frozen base, which alone is its own reference
    planned: bool = False


@dataclass(frozen=True)
class OptimizerInfo:
    """An optimizer."""

    help: str
    adam: bool = False  # reads Adam's betas and epsilon
    whole: bool = False  # saves state of whole matrices, so it is not for adapters
    planned: bool = False


@dataclass(frozen=True)
class QuantizerInfo:
    """A library that quantizes a model's weights while it loads."""

    help: str
    bits: tuple[int, ...]
    package: str  # that must be importable
    extra: str  # of this package, which installs it
    cuda: bool = False  # its kernels run on an NVIDIA GPU alone


@dataclass(frozen=True)
class JobInfo:
    """What is done with a config."""

    help: str
    trains: bool = False  # trains, or looks at a training before it begins: the training parameters act
    rows_only: bool = (
        False  # of a training looks at the rows alone: what it needs beside them isn't asked for
    )
    infers: bool = False  # uses a model as it is: `from_run` names one, the parameters of inference act
    interactive: bool = False  # answers in the terminal or on a port, until it is ended: no run folder
    planned: bool = False


_REWARDS = ("rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins",
            "logps/chosen", "logps/rejected")  # fmt: skip
_ACCURACY = {"compute_accuracy": ("accuracy",)}
_GENERATED = {"predict_with_generate": ("bleu-4", "rouge-1", "rouge-2", "rouge-l", "exact_match")}

STAGES: dict[str, StageInfo] = {
    "pt": StageInfo(
        "pre-training", "text", ("loss",), _ACCURACY, packs=True, token_logprobs=True
    ),
    "sft": StageInfo(
        "supervised fine-tuning", "dialogue", ("loss",), {**_ACCURACY, **_GENERATED}, packs=True, token_logprobs=True
    ),
    "rm": StageInfo(
        "reward model", "preference", ("loss", "accuracy", "margin", "rewards/chosen", "rewards/rejected"),
        output="score",
    ),
    "ppo": StageInfo(
        "proximal policy optimization", "prompt",
        ("loss", "objective/scores", "objective/kl", "objective/rlhf_reward", "objective/response_length"),
        reference=True, rollouts=True,
    ),
    "grpo": StageInfo(
        "group-relative policy optimization and its kin", "prompt",
        ("loss", "reward", "reward_std", "pass_at_1", "pass_at_k", "entropy", "completions/mean_length"),
        reference=True, rollouts=True, token_logprobs=True,
    ),
    "dpo": StageInfo(
        "direct preference optimization and its kin", "preference", ("loss", *_REWARDS), reference=True,
        preference=True, several_losses=True, token_logprobs=True,
    ),
    "kto": StageInfo(
        "answers marked good or bad", "feedback", ("loss", "kl", *_REWARDS), reference=True, preference=True,
        token_logprobs=True,
    ),
}  # fmt: skip

METHODS: dict[str, MethodInfo] = {
    "lora": MethodInfo("low-rank adapters on frozen weights", adapters=True),
    "oft": MethodInfo("orthogonal adapters on frozen weights", adapters=True),
    "freeze": MethodInfo("some layers"),
    "full": MethodInfo("all weights"),
}

OPTIMIZERS: dict[str, OptimizerInfo] = {
    "adamw": OptimizerInfo("AdamW", adam=True),
    "adafactor": OptimizerInfo("Adafactor"),
    "sgd": OptimizerInfo("plain gradient descent"),
    "adam_mini": OptimizerInfo("Adam-mini", adam=True),
    "galore": OptimizerInfo("GaLore", adam=True, whole=True),
    "apollo": OptimizerInfo("APOLLO", adam=True, whole=True),
    "badam": OptimizerInfo("BAdam", adam=True, whole=True),
    "muon": OptimizerInfo("Muon", adam=True),
}

QUANTIZERS: dict[str, QuantizerInfo] = {
    "bitsandbytes": QuantizerInfo("NF4, FP4 and LLM.int8()", (4, 8), "bitsandbytes", "bnb"),
    "hqq": QuantizerInfo("half-quadratic quantization", (1, 2, 3, 4, 8), "hqq", "hqq"),
    "eetq": QuantizerInfo("int8 weights by the kernels of EETQ", (8,), "kernels", "eetq", cuda=True),
}
QUANTIZER_ALIASES = {"bnb": "bitsandbytes"}

JOBS: dict[str, JobInfo] = {
    "train": JobInfo("train a model", trains=True),
    "predict": JobInfo("answer a dataset's prompts", infers=True),
    "evaluate": JobInfo("run a multiple-choice benchmark", infers=True),
    "export": JobInfo("merge, quantize, push a model", infers=True),
    "chat": JobInfo("talk to a model in the terminal", infers=True, interactive=True),
    "api": JobInfo("serve a model over HTTP", infers=True, interactive=True),
    "webui": JobInfo("serve a web page", interactive=True),
    "check": JobInfo("look for what would be refused, and estimate the cost", trains=True),
    "preview": JobInfo("show the rows as the trainer sees them", trains=True, rows_only=True),
}

TRAINING_JOBS = tuple(name for name, job in JOBS.items() if job.trains)
LEARNING_JOBS = tuple(name for name in TRAINING_JOBS if not JOBS[name].rows_only)
INFERENCE_JOBS = tuple(name for name, job in JOBS.items() if job.infers)
GENERATING_JOBS = tuple(name for name in INFERENCE_JOBS if name not in ("evaluate", "export"))
INTERACTIVE_JOBS = tuple(name for name, job in JOBS.items() if job.interactive)
MODEL_JOBS = (*TRAINING_JOBS, *INFERENCE_JOBS)  # they need a model, or its tokenizer
LOADING_JOBS = (*LEARNING_JOBS, *INFERENCE_JOBS)  # they need its weights


class _Info(Protocol):
    @property
    def planned(self) -> bool: ...


Info = TypeVar("Info", bound=_Info)


def planned(choices: Mapping[str, _Info]) -> tuple[str, ...]:
    """The choices that are declared and not built yet."""
    return tuple(name for name, info in choices.items() if info.planned)


def stages(test: Callable[[StageInfo], bool]) -> tuple[str, ...]:
    """The stages of which something is true, for the `only` of a parameter."""
    return tuple(name for name, info in STAGES.items() if test(info))
