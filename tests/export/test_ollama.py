"""Ollama's template writes what the chat template writes, or is left out."""

import pytest
from support.data_samples import make_tokenizer

from llmf_hydra.config.groups.data import DataConfig
from llmf_hydra.config.groups.generation import GenerationConfig
from llmf_hydra.data.chat.index import template_names
from llmf_hydra.data.chat.render import render_prompt
from llmf_hydra.data.chat.template import Chat, load_chat
from llmf_hydra.export.ollama import go_template, modelfile

# What Ollama's language has no word for: thoughts that open the last answer alone, a system message in the last turn.
WITHOUT = {"deepseek", "deepseek3", "deepseekr1", "ernie", "gpt_oss", "minimax2", "ministral3", "mistral", "qwen3_5",
           "qwen3_5_nothink", "qwen3_6"}  # fmt: skip
CHATML = '''FROM .

TEMPLATE """{{ if .System }}<|im_start|>system
{{ .System }}<|im_end|>
{{ end }}{{ range .Messages }}{{ if eq .Role "user" }}<|im_start|>user
{{ .Content }}<|im_end|>
<|im_start|>assistant
{{ else if eq .Role "assistant" }}{{ .Content }}<|im_end|>
{{ end }}{{ end }}"""

PARAMETER stop "<|im_end|>"
PARAMETER num_ctx 2048
'''
TURNS = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"},
    {"role": "user", "content": "Why?"},
]


def chat(name: str, system: str | None = None) -> Chat:
    tokenizer = make_tokenizer()
    tokenizer.bos_token, tokenizer.eos_token = "<s>", "</s>"
    return load_chat(DataConfig(template=name), GenerationConfig(default_system=system), tokenizer)


@pytest.mark.parametrize("name", template_names())
def test_it_writes_what_the_template_writes(name: str) -> None:
    known = chat(name)
    made = go_template(known)
    assert (made is None) == (name in WITHOUT)
    if made is not None:
        for dialogue in (TURNS, [{"role": "system", "content": "Be kind."}, *TURNS]):
            assert made.render(dialogue) == render_prompt(known, dialogue, None)


def test_a_modelfile() -> None:
    assert modelfile(chat("chatml"), ["<|im_end|>"], begin="", longest=2048) == CHATML
    told = modelfile(chat("chatml", "Be kind."), ["\"'\n"], begin="", longest=131072)
    assert 'SYSTEM """Be kind."""' in told and 'PARAMETER stop "\\"\'\\n"' in told and "num_ctx 4096" in told
    assert "TEMPLATE" not in modelfile(chat("mistral"), [], begin="", longest=None)


def test_the_first_token_is_left_to_ollama_where_the_tokenizer_writes_it_itself() -> None:
    known = chat("gemma")
    assert "<s>" not in modelfile(known, [], begin="<s>", longest=None)
    assert 'TEMPLATE """<s>' in modelfile(known, [], begin="", longest=None)
