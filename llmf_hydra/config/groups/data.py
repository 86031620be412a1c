"""Group `data`: which rows, and how they become tokens (spec table data)."""

from dataclasses import dataclass
from typing import Any

from llmf_hydra.config.param import param

STREAMING = {"data.streaming": (True,)}
EVALUATES = {"training.eval_strategy": ("steps", "epoch")}


@dataclass
class DataConfig:
    template: str | None = param(
        None, "Template of a dialogue; null takes the tokenizer's own chat template."
    )
    dataset: str | None = param(
        None, "Training data: rows of dataset_info.json, files or hub names, separated by commas."
    )
    eval_dataset: str | None = param(None, "Evaluation data, named like dataset.", only=EVALUATES)
    eval_on_each_dataset: bool = param(False, "Evaluate on each dataset apart instead of on all.")
    dataset_dir: Any = param("data", "Folder that holds dataset_info.json, or the table itself as a mapping.")
    media_dir: str | None = param(None, "Folder of images, video and sound; null takes dataset_dir.")
    data_shared_file_system: bool = param(
        False, "All nodes see the same files, so that only the first prepares the data."
    )
    cutoff_len: int = param(2048, "Most tokens of a row.", ge=1)
    train_on_prompt: bool = param(False, "Train on the prompt too.", only={"stage.name": ("sft",)})
    mask_history: bool = param(False, "Train on the last turn only.", only={"stage.name": ("sft",)})
    streaming: bool = param(False, "Read the data while training instead of before.")
    buffer_size: int = param(16384, "Rows held for shuffling when streaming.", ge=1, only=STREAMING)
    mix_strategy: str = param(
        "concat",
        "How several datasets are mixed; under stops with the shortest, over with the longest.",
        choices=("concat", "interleave_under", "interleave_over"),
    )
    interleave_probs: str | None = param(
        None,
        "Shares of the datasets when interleaving, separated by commas.",
        only={"data.mix_strategy": ("interleave_under", "interleave_over")},
    )
    overwrite_cache: bool = param(False, "Tokenize again even where the result is kept.")
    preprocessing_batch_size: int = param(1000, "Rows tokenized at a time.", ge=1)
    preprocessing_num_workers: int | None = param(None, "Processes that tokenize; null takes one.", ge=1)
    max_samples: int | None = param(None, "Most rows of each dataset.", ge=1)
    ignore_pad_token_for_loss: bool = param(True, "Leave padding out of the loss.")
    val_size: float = param(
        0.0,
        "Rows held out for evaluation: a share below 1, or a count; a count when streaming.",
        ge=0,
        only=EVALUATES,
    )
    packing: bool | None = param(None, "Fill each sequence with several rows; null: only in stage=pt.")
    neat_packing: bool = param(False, "Pack, and let no row see another.")
    tool_format: str | None = param(None, "How calls of tools are written.")
    tokenized_path: str | None = param(None, "Folder the tokenized data is kept in or taken from.")
    skip_bad_rows: bool = param(
        False,
        "Leave rows out that cannot be read, and list them in rejected.jsonl, instead of stopping.",
    )

    @property
    def shares(self) -> list[float]:
        """The numbers of interleave_probs. Raises ValueError."""
        return [float(part) for part in self.interleave_probs.split(",")] if self.interleave_probs else []
