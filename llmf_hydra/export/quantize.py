"""Quantization of an exported model by GPTQ (Frantar et al. 2022, arXiv:2210.17323), through gptqmodel."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from llmf_hydra.config.groups.data import DataConfig
from llmf_hydra.config.groups.export import ExportConfig
from llmf_hydra.data.chat.template import Chat
from llmf_hydra.data.rows import BadRow, Row
from llmf_hydra.data.sources import hub, reader, resolve
from llmf_hydra.errors import Problem, Refused
from llmf_hydra.optional import require

DATASET = "export.export_quantization_dataset"
GROUP = 128  # weights that share a scale
SEED = 42  # of the texts that are drawn, and of where a long one is cut

Sample = dict[str, list[int]]


def calibration(
    export: ExportConfig, data: DataConfig, tokenizer: PreTrainedTokenizerBase, chat: Chat | None
) -> list[Sample]:
    """Texts of the calibration dataset as tokens: `export_quantization_nsamples` of them, each of at most
    `export_quantization_maxlen` tokens, of a longer one a part at random. Raises Refused where there are fewer."""
    draw = random.Random(SEED)
    texts = list(_texts(str(export.export_quantization_dataset), data, chat))
    if len(texts) < export.export_quantization_nsamples:
        asked = f"export.export_quantization_nsamples={export.export_quantization_nsamples}"
        what = f"holds {len(texts)} texts, and {asked}"
        raise Refused(
            [Problem(DATASET, export.export_quantization_dataset, what, "lower it, or name more data")]
        )
    most = export.export_quantization_maxlen
    samples: list[Sample] = []
    for text in draw.sample(texts, export.export_quantization_nsamples):
        ids: list[int] = tokenizer(text, add_special_tokens=chat is None)["input_ids"]
        start = draw.randint(0, max(0, len(ids) - most))
        cut = ids[start : start + most]
        samples.append({"input_ids": cut, "attention_mask": [1] * len(cut)})
    return samples


def _texts(name: str, data: DataConfig, chat: Chat | None) -> Iterator[str]:
    for source in resolve.resolve(data, name, "dataset"):
        fetched = reader.settled_by_first_row(hub.fetched(source, DATASET))
        for read in reader.rows(fetched, None, reader.read_files(fetched)):
            if isinstance(read.row, BadRow):
                raise Refused([read.problem()])
            text = _text(read.row, chat)
            if text.strip():
                yield text


def _text(row: Row, chat: Chat | None) -> str:
    if row.text is not None:
        return row.text
    messages = [*row.prompt, *(row.answers[0] if row.answers else [])]
    if chat is None:
        return "\n".join(str(message["content"]) for message in messages)
    return chat.render(chat.with_system(messages), row.tools)


def quantize(folder: Path, out: Path, export: ExportConfig, samples: list[Sample]) -> None:
    """Quantize the model in `folder` into `out`. Raises Refused where gptqmodel is missing."""
    key = f"export.export_quantization_bit={export.export_quantization_bit}"
    gptqmodel: Any = require("gptqmodel", extra="gptq", key=key)
    config = gptqmodel.QuantizeConfig(bits=export.export_quantization_bit, group_size=GROUP)
    model = gptqmodel.GPTQModel.load(str(folder), config)
    model.quantize(samples, batch_size=1)
    model.save(str(out), max_shard_size=f"{export.export_size}GB")
