"""Group `data`: datasets and how they become tokens (spec table data)."""

from dataclasses import dataclass
from typing import Any

from llmf_hydra.config.param import param

STREAMING = {"data.streaming": (True,)}
EVALUATES = {"training.eval_strategy": ("steps", "epoch")}


@dataclass
class DataConfig:
    template: str | None = param(None, "Chat template; null uses the tokenizer's own.")
    dataset: str | None = param(
        None, "Training datasets: entries of dataset_info.json, files or hub names, separated by commas."
    )
    eval_dataset: str | None = param(
        None, "Evaluation datasets, named like dataset.", only_in_training=EVALUATES
    )
    eval_on_each_dataset: bool = param(
        False, "Evaluate on each dataset separately instead of on their union."
    )
    dataset_dir: Any = param("data", "Folder with dataset_info.json, or its content as a mapping.")
    media_dir: str | None = param(None, "Folder of image, video and audio files; null uses dataset_dir.")
    data_shared_file_system: bool = param(
        False, "All nodes share a file system, so only the first one prepares the data."
    )
    cutoff_len: int = param(2048, "Maximum tokens per example.", ge=1)
    train_on_prompt: bool = param(False, "Compute the loss on the prompt too.", only={"stage.name": ("sft",)})
    mask_history: bool = param(
        False, "Compute the loss on the last turn only.", only={"stage.name": ("sft",)}
    )
    streaming: bool = param(False, "Stream the data while training instead of preparing it first.")
    buffer_size: int = param(
        16384, "Size of the shuffle buffer when streaming, in examples.", ge=1, only=STREAMING
    )
    mix_strategy: str = param(
        "concat",
        "How datasets are mixed: concatenated, or interleaved until the shortest (under) or longest (over) ends.",
        choices=("concat", "interleave_under", "interleave_over"),
    )
    interleave_probs: str | None = param(
        None,
        "Sampling probabilities of the datasets when interleaving, separated by commas.",
        only={"data.mix_strategy": ("interleave_under", "interleave_over")},
    )
    overwrite_cache: bool = param(False, "Tokenize again instead of using the cache.")
    preprocessing_batch_size: int = param(1000, "Examples tokenized per batch.", ge=1)
    preprocessing_num_workers: int | None = param(
        None, "Processes for tokenizing; null uses one.", ge=1, le=256
    )
    max_samples: int | None = param(None, "Maximum examples per dataset.", ge=1)
    ignore_pad_token_for_loss: bool = param(True, "Ignore padding tokens in the loss.")
    val_size: float = param(
        0.0,
        "Held-out evaluation set: a fraction below 1, or a number of examples (a number when streaming).",
        ge=0,
        only=EVALUATES,
    )
    packing: bool | None = param(
        None, "Pack several examples into one sequence; null packs in stage=pt only."
    )
    neat_packing: bool = param(False, "Pack without attention across examples.")
    tool_format: str | None = param(None, "Format of tool calls; null uses the template's own.")
    tokenized_path: str | None = param(
        None, "Folder to save the tokenized dataset to, or to load it from if it exists."
    )
    skip_bad_rows: bool = param(
        False,
        "Skip invalid examples and list them in rejected.jsonl, instead of stopping.",
    )

    @property
    def shares(self) -> list[float]:
        """The numbers of interleave_probs. Raises ValueError."""
        return [float(part) for part in self.interleave_probs.split(",")] if self.interleave_probs else []
