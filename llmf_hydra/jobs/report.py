"""What a run says of its inputs: the data report on disk, and digests of all that decides the result."""

import json
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from llmf_hydra import runs
from llmf_hydra.config.schema import Config
from llmf_hydra.data.prepare import DataReport
from llmf_hydra.manifest import digest_of_folder, digest_of_text
from llmf_hydra.models.location import locate

DATA_REPORT = "data_report.json"


def write(report: DataReport, out: Path) -> None:
    """Write the data report into the run's folder."""
    runs.write_json(out / DATA_REPORT, report.to_dict())


def digests(cfg: Config, tokenizer: PreTrainedTokenizerBase) -> dict[str, str | None]:
    """Digests of tokenizer, template and base model; None for a model that isn't a local folder."""
    folder = Path(locate(cfg.model))
    return {
        "tokenizer": digest_of_text(json.dumps(tokenizer.get_vocab(), sort_keys=True)),
        "template": digest_of_text(str(tokenizer.chat_template)),
        "model": digest_of_folder(folder, "*.safetensors") if folder.is_dir() else None,
    }


def tokens_at_once(cfg: Config, report: DataReport) -> int:
    """Tokens of the largest batch a forward pass can hold; preference stages pass two answers a row."""
    answers = 2 if cfg.stage.rows == "preference" else 1
    return cfg.training.per_device_train_batch_size * report.longest * answers
