"""`builtin:tiny`: a random Llama of some 100,000 weights with a tokenizer trained on the demo text.

For tests, and for trying a config in seconds. The same everywhere: the weights come from a fixed seed.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmf_hydra.models.builtin.store import built_once
from llmf_hydra.paths import data_dir
from llmf_hydra.runs.manifest import digest_of_file

VERSION = 1  # of this file's recipe
VOCABULARY = 1024
UNKNOWN, BOS, EOS = SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
}
CHATML = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] }}<|im_end|>{% endgeneration %}\n"
    "{% else %}{{ message['content'] }}<|im_end|>\n{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def ready() -> Path:
    """The folder of the tiny model."""
    return built_once(f"models/tiny-v{VERSION}-{digest_of_file(_demo_text())[:12]}", _build)


def _build(draft: Path) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = _train_tokenizer()
    tokenizer.save_pretrained(draft)
    config = LlamaConfig(
        **SHAPE,
        tie_word_embeddings=True,
        bos_token_id=SPECIAL.index(BOS),
        eos_token_id=SPECIAL.index(EOS),
        pad_token_id=SPECIAL.index(EOS),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(draft)


def _train_tokenizer():  # a PreTrainedTokenizerFast, whose module is imported here only
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(_texts(), trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=EOS,
        unk_token=UNKNOWN,
        model_max_length=2048,
    )
    tokenizer.chat_template = CHATML
    return tokenizer


def _demo_text() -> Path:
    return data_dir() / "demo_text.jsonl"


def _texts() -> Iterator[str]:
    with _demo_text().open(encoding="utf8") as lines:
        for line in lines:
            yield json.loads(line)["text"]
