"""What every stage's trainer is built from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from datasets import Dataset
from transformers import (
    PretrainedConfig,
    PreTrainedTokenizerBase,
    TrainerCallback,
)

from llmf_hydra.config.schema import Config
from llmf_hydra.models.network import Network
from llmf_hydra.models.precision import Precision


@dataclass(frozen=True)
class RunContext:
    """A run's pieces, loaded and ready."""

    cfg: Config
    model: Network
    tokenizer: PreTrainedTokenizerBase
    train: Dataset
    eval: Dataset | dict[str, Dataset] | None
    precision: Precision
    callbacks: list[TrainerCallback]
    out: Path
    sources: tuple[str, ...] = ()  # names of the datasets, by the number in the rows' column `source`
    data_digest: str = ""  # of the rows
    weights_digests: Callable[[], Mapping[str, str]] = (
        dict  # of the models that the run starts from; waits for them
    )
    stops: tuple[str, ...] = ()  # texts with which the chat template ends an answer

    @property
    def pad_id(self) -> int:
        """The padding token, which every tokenizer that we load has."""
        return self.tokenizer.pad_token_id  # pyright: ignore

    @property
    def activations(self) -> torch.dtype:
        """The type in which the model computes, which a 4-D attention mask must have."""
        return torch.bfloat16 if self.precision.autocast else self.precision.weights


def attention_of(config: PretrainedConfig) -> str:
    """The attention that computes: sdpa, eager, flash_attention_2 ..."""
    return str(config._attn_implementation)
