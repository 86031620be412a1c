"""What the tests of the data engine share: templates, a small tokenizer, rows, a short way to `prepare`."""

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from llmf_hydra.config.groups.data import DataConfig
from llmf_hydra.config.groups.generation import GenerationConfig
from llmf_hydra.data.prepare import Prepared, prepare

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CHATML_MARKED = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}{{ '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CORPUS = (
    "user assistant system tool hello world the answer is what question how are you good bad "
    "one two three four five six seven\n\nhello world\n the answer is good\n what is the question"
)


def make_tokenizer(template: str | None = CHATML) -> PreTrainedTokenizerFast:
    """Byte-level BPE with merges learned from CORPUS: the same ids on each run."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=340, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator([CORPUS], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=template,
    )


def alpaca(count: int = 4, start: int = 0) -> list[dict[str, Any]]:
    """Rows that differ."""
    numbers = range(start, start + count)
    return [{"instruction": f"question {n}", "input": "", "output": f"answer {n}"} for n in numbers]


def run(
    tokenizer: Any,
    dataset: str | None,
    kind: str = "dialogue",
    *,
    seed: int = 0,
    packing: bool = False,
    default_system: str | None = None,
    **settings: Any,
) -> Prepared:
    """`prepare` with defaults."""
    generation = GenerationConfig(default_system=default_system)
    return prepare(DataConfig(dataset=dataset, **settings), kind, tokenizer, generation, seed, packing)


def described(folder: Path, rows: list[Any], info: dict[str, Any], name: str = "rows") -> dict[str, Any]:
    """A table for `data.dataset_dir` with one dataset, whose rows are written to the folder."""
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return {name: {"file_name": str(path), **info}}


def texts(tokenizer: Any, rows: Any, column: str = "input_ids") -> list[str]:
    """A column of ids as text, without what is not trained."""
    return [tokenizer.decode([i for i in row[column] if i >= 0]) for row in rows]
