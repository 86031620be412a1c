"""Byte widths and Rust's offsets find the same borders."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from llmf_hydra.data.tokenize.borders import by_offsets, by_width, byte_widths

WORDS = ["hello world, good day — héllo wörld 你好 世界", "one two  three\n\nfour 12345"]


def byte_level(*added: AddedToken) -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.post_processor = processors.ByteLevel(trim_offsets=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        WORDS * 3, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    )
    made.add_special_tokens(["<|end|>", *added])
    return made


PLAIN = byte_level()
TEXTS = st.lists(
    st.one_of(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
        st.sampled_from([*WORDS, "<|end|>", " "]),
    )
).map("".join)


@given(text=TEXTS)
@settings(max_examples=300, deadline=None)
def test_widths_and_offsets_agree(text: str) -> None:
    widths = byte_widths(PLAIN)
    assert widths is not None
    encoding = PLAIN.encode(text, add_special_tokens=False)
    fast = PLAIN.encode_batch_fast([text], add_special_tokens=False)[0]
    assert fast.ids == encoding.ids
    wide, told = by_width(widths, fast.ids, text), by_offsets(encoding, text)
    assert wide is not None
    # Rust gives the token within which a character ends or begins; a border is where both agree on a start.
    places = [at for at in range(len(text) + 1) if wide(at) is not None]
    assert [wide(at) for at in places] == [told(at) for at in places]
    assert {0, len(text)} <= set(places)


def test_a_token_across_is_no_border() -> None:
    widths = byte_widths(PLAIN)
    assert widths is not None
    ids = PLAIN.encode("hello", add_special_tokens=False).ids
    border = by_width(widths, ids, "hello")
    assert border is not None
    assert border(5) == len(ids)
    assert len(ids) == 1 and [border(at) for at in range(1, 5)] == [None] * 4


def test_a_special_token_that_takes_spaces_leaves_the_widths_unusable() -> None:
    greedy = byte_level(AddedToken("<s>", rstrip=True))
    widths = byte_widths(greedy)
    assert widths is not None
    assert by_width(widths, greedy.encode("<s>   hello").ids, "<s>   hello") is None
    assert by_width(widths, greedy.encode("<s>hello").ids, "<s>hello") is not None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("normalizer", normalizers.Lowercase()),
        ("pre_tokenizer", pre_tokenizers.ByteLevel(add_prefix_space=True)),
        ("pre_tokenizer", pre_tokenizers.Metaspace()),
        ("model", models.WordLevel({"a": 0}, "a")),
    ],
)
def test_other_tokenizers_have_no_widths(name: str, value: object) -> None:
    made = byte_level()
    setattr(made, name, value)
    assert byte_widths(made) is None
