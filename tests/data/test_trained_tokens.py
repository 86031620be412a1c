"""The trained tokens are the answers with the ends of their turns, whatever the texts, and no prompt."""

import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.data_samples import CHATML, CHATML_MARKED, make_tokenizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from llmf_hydra.config.groups.data import DataConfig
from llmf_hydra.config.groups.generation import GenerationConfig
from llmf_hydra.data.rows import BadRow, Row
from llmf_hydra.data.tokenize.encode import FastEncoder, SlowEncoder, make_encoder
from llmf_hydra.data.tokenize.features import Example, Setup
from llmf_hydra.data.tokenize.setup import make_setup

TOKENIZER = make_tokenizer()
# Texts that tempt a tokenizer to join prompt and answer, and bytes that are parts of characters.
WORDS = st.sampled_from(
    ["hello", " world", "\n", "\n\n", " ", "é", "🙂", "good ", "user", "<|im_end|", "</think>"]
)
TEXTS = st.lists(st.one_of(WORDS, st.text(max_size=3)), max_size=4).map("".join)
RESERVED = [chr(code) for code in range(0xFDD0, 0xFDD6)]


def usable(text: str) -> bool:
    return not any(one in text for one in RESERVED)


CONTENTS = TEXTS.filter(usable)


def setup_for(tokenizer: Any, template: str | None = None, **settings: Any) -> Setup:
    return make_setup(
        DataConfig(template=template, **settings), "dialogue", tokenizer, GenerationConfig(), packing=False
    )


def encoded(setup: Setup, row: Row) -> Example:
    texts = setup.texts(row)
    return setup.examples(row, texts, setup.encoder.batch([text.text for text in texts]))[0]


def dialogue(contents: list[str]) -> Row:
    roles = ("user", "assistant")
    messages = [{"role": roles[n % 2], "content": content} for n, content in enumerate(contents)]
    return Row(prompt=messages[:-1], answers=[messages[-1:]])


def trained(tokenizer: Any, example: Example) -> list[str]:
    return [tokenizer.decode(example.ids["input_ids"][a:b]) for a, b in example.trained]


SETUPS = {
    "the tokenizer's own, by turns": setup_for(make_tokenizer(CHATML)),
    "the tokenizer's own, marked": setup_for(make_tokenizer(CHATML_MARKED)),
    "named, without conditions": setup_for(TOKENIZER, "chatml"),
    "named, with conditions": setup_for(TOKENIZER, "qwen"),
}


@pytest.mark.parametrize("name", SETUPS)
@given(contents=st.lists(st.tuples(CONTENTS, CONTENTS), min_size=1, max_size=3))
@settings(max_examples=150, deadline=None)
def test_decoding_what_is_trained_gives_the_answers(name: str, contents: list[tuple[str, str]]) -> None:
    flat = [text for pair in contents for text in pair]
    example = encoded(SETUPS[name], dialogue(flat))
    assert trained(TOKENIZER, example) == [f"{answer}<|im_end|>" for _, answer in contents]
    ids = example.ids["input_ids"]
    between = [0, *(border for span in example.trained for border in span), len(ids)]
    rest = "".join(TOKENIZER.decode(ids[a:b]) for a, b in zip(between[::2], between[1::2], strict=True))
    for question, _ in contents:
        assert question in rest


@given(question=CONTENTS, answer=CONTENTS)
@settings(max_examples=100, deadline=None)
def test_a_space_before_the_answer_belongs_to_it_and_one_after_the_prompt_does_not(
    question: str, answer: str
) -> None:
    example = encoded(VICUNA, dialogue([question, answer]))
    assert trained(TOKENIZER, example) == [f" {answer}<|im_end|>"]


VICUNA = setup_for(TOKENIZER, "vicuna")


def test_a_token_across_the_border_is_tokenized_in_pieces(tokenizer: Any) -> None:
    """`two good`: the answer begins within what would be one token of space and letters."""
    template = "{% for m in messages %}{{ m.content }}{% if m.role == 'user' %} {% endif %}{% endfor %}"
    template += "{% if add_generation_prompt %}{% endif %}"
    setup = setup_for(make_tokenizer(template))
    whole = tokenizer("two good", add_special_tokens=False)["input_ids"]
    example = encoded(setup, dialogue(["two", "good"]))
    assert whole != example.ids["input_ids"]
    assert trained(tokenizer, example) == ["good"]
    assert tokenizer.decode(example.ids["input_ids"]) == "two good"


def metaspace() -> PreTrainedTokenizerFast:
    """A tokenizer that writes a space before each text, as that of Llama 2 does."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    backend.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=60, special_tokens=["<s>", "</s>"], show_progress=False)
    backend.train_from_iterator(["hello world good bad hello world INST [/INST] [INST]"], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )


def test_a_tokenizer_that_prepends_a_space_trains_the_answer() -> None:
    tokenizer = metaspace()
    setup = setup_for(tokenizer, "llama2")
    assert isinstance(setup.encoder, FastEncoder)
    assert setup.encoder.prepends
    example = encoded(setup, dialogue(["hello", "good"]))
    assert trained(tokenizer, example) == ["good </s>"]  # Llama 2 has a space before the end


def test_trimmed_offsets_do_not_hide_a_space_of_the_prompt() -> None:
    tokenizer = make_tokenizer("{% for m in messages %}{{ m.content }}{% endfor %}")
    tokenizer.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    example = encoded(setup_for(tokenizer), dialogue(["hello ", "world"]))
    assert trained(tokenizer, example) == ["world"]
    assert tokenizer.decode(example.ids["input_ids"]) == "hello world"


def test_special_tokens_in_a_text_are_special_unless_split(tokenizer: Any) -> None:
    row = dialogue(["hello<|im_end|>", "good"])
    special = encoded(setup_for(tokenizer), row).ids["input_ids"]
    split = make_tokenizer()
    split.split_special_tokens = True
    plain = encoded(setup_for(split), row).ids["input_ids"]
    assert special.count(2) == 3
    assert plain.count(2) == 2
    assert tokenizer.decode(plain) == tokenizer.decode(special)


def test_without_special_tokens_in_the_texts_splitting_changes_nothing(tokenizer: Any) -> None:
    split = make_tokenizer()
    split.split_special_tokens = True
    row = dialogue(["hello", "good"])
    assert encoded(setup_for(split), row) == encoded(setup_for(tokenizer), row)


def test_a_tokenizer_without_offsets_trains_the_same_answers(tokenizer: Any) -> None:
    setup = setup_for(tokenizer)
    slow = dataclasses.replace(setup, encoder=SlowEncoder(tokenizer))
    row = dialogue(["hello", "good", "how", "bad"])
    assert encoded(slow, row) == encoded(setup, row)
    assert isinstance(make_encoder(tokenizer), FastEncoder)


def test_history_that_the_template_rewrites_is_found_by_a_probe(tokenizer: Any) -> None:
    """Older answers lose their thought, so that no beginning is the beginning of the whole."""
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{% if m.role == 'assistant' and not loop.last %}{{ m.content.split('</think>')[-1] }}"
        "{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    row = dialogue(["hello", "<think>how</think>good", "how", "<think>one</think>bad"])
    example = encoded(setup_for(make_tokenizer(template)), row)
    assert trained(tokenizer, example) == ["good<|im_end|>", "<think>one</think>bad<|im_end|>"]


def test_an_answer_that_cannot_be_found_is_refused() -> None:
    setup = setup_for(make_tokenizer("{% for m in messages[-1:] %}{{ m.content }}{% endfor %}"))
    with pytest.raises(BadRow) as refused:
        setup.texts(dialogue(["hello", "good", "how", "bad"]))
    assert refused.value.what == "has an answer (turn 2) that cannot be found in the chat template's text"
    assert "data.template" in refused.value.remedy
