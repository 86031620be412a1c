"""Packing: full sequences, and no token that sees another row."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.data_samples import alpaca, run
from transformers import LlamaConfig, LlamaForCausalLM

from llmf_hydra.config.groups.data import DataConfig
from llmf_hydra.config.groups.stage import StageConfig
from llmf_hydra.config.schema import Config
from llmf_hydra.data.collate import FORMS, Collator, block_mask, make_collator
from llmf_hydra.data.packing import best_fit_decreasing

ROWS = [[5, 6, 7, 8, 9], [10, 11, 12], [13, 14, 15, 16], [17, 18], [19, 20, 21, 22, 23, 24]]


def test_literal_packs() -> None:
    assert best_fit_decreasing([5, 3, 4, 2, 6], 10) == [[0, 1, 3], [2, 4]]
    assert best_fit_decreasing([10, 10], 10) == [[0], [1]]
    assert best_fit_decreasing([], 10) == []


@given(st.lists(st.integers(1, 50), max_size=80))
@settings(max_examples=100, deadline=None)
def test_each_row_stands_in_one_pack_that_is_not_too_long(lengths: list[int]) -> None:
    packs = best_fit_decreasing(lengths, 50)
    assert sorted(index for pack in packs for index in pack) == list(range(len(lengths)))
    assert all(sum(lengths[index] for index in pack) <= 50 for pack in packs)
    assert all(pack == sorted(pack) for pack in packs)


def test_many_rows_fill_the_packs_to_97_percent() -> None:
    lengths = np.random.default_rng(0).integers(10, 400, 5000).tolist()
    packs = best_fit_decreasing(lengths, 2048)
    assert sum(lengths) / (len(packs) * 2048) > 0.97


def packed(rows: list[list[int]], capacity: int) -> list[dict[str, Any]]:
    made = []
    for pack in best_fit_decreasing([len(row) for row in rows], capacity):
        parts = [rows[index] for index in pack]
        ids = [token for part in parts for token in part]
        labels = [label for part in parts for label in (-100, *part[1:])]
        made.append({"input_ids": ids, "labels": labels, "seq_lengths": [len(part) for part in parts]})
    return made


def model_of(attention: str) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=40, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, use_cache=False, attn_implementation=attention,
    )  # fmt: skip
    return LlamaForCausalLM(config).train()


def loss_and_gradient(
    model: LlamaForCausalLM, batches: list[dict[str, torch.Tensor]]
) -> tuple[float, torch.Tensor]:
    """The mean over all trained tokens, and its gradient as one vector."""
    model.zero_grad()
    count = sum(int((batch["labels"][:, 1:] != -100).sum()) for batch in batches)
    total = 0.0
    for batch in batches:
        loss = model(**batch, num_items_in_batch=torch.tensor(count)).loss
        loss.backward()
        total += loss.item()
    return total, torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_loss_and_gradient_are_those_of_the_rows_alone(attention: str, form: str) -> None:
    model = model_of(attention)
    alone = [Collator(0)([{"input_ids": row, "labels": row}]) for row in ROWS]
    together = [Collator(0, neat=True, form=form)(packed(ROWS, 10))]
    wanted, gradient = loss_and_gradient(model, alone)
    loss, packed_gradient = loss_and_gradient(model, together)
    assert loss == pytest.approx(wanted, abs=1e-5)
    assert torch.allclose(packed_gradient, gradient, atol=1e-5)


def test_a_mask_of_ones_would_mix_the_rows() -> None:
    """The reason for all this: without positions that restart the loss is another."""
    model = model_of("sdpa")
    wanted, _ = loss_and_gradient(model, [Collator(0)([{"input_ids": row, "labels": row}]) for row in ROWS])
    mixed, _ = loss_and_gradient(model, [Collator(0, neat=False)(packed(ROWS, 10))])
    assert abs(mixed - wanted) > 1e-3


def test_literal_batch_of_packs() -> None:
    made = Collator(0, neat=True)(packed(ROWS[:3], 9))
    assert made["input_ids"].tolist() == [[5, 6, 7, 8, 9, 13, 14, 15, 16], [10, 11, 12, 0, 0, 0, 0, 0, 0]]
    assert made["position_ids"].tolist() == [[0, 1, 2, 3, 4, 0, 1, 2, 3], [0, 1, 2, 0, 1, 2, 3, 4, 5]]
    assert made["labels"].tolist()[0] == [-100, 6, 7, 8, 9, -100, 14, 15, 16]
    assert made["labels"].tolist()[1] == [-100, 11, 12, *[-100] * 6]
    assert set(made) == {"input_ids", "labels", "position_ids"}


def test_literal_block_mask() -> None:
    sees = (block_mask([[2, 1]], torch.float32) == 0).int().tolist()
    assert sees == [[[[1, 0, 0], [1, 1, 0], [0, 0, 1]]]]


def test_padding_is_a_label_only_if_asked_for(tokenizer: Any) -> None:
    rows = [{"input_ids": [5, 6], "labels": [5, 6]}, {"input_ids": [7], "labels": [7]}]
    left_out = make_collator(DataConfig(), tokenizer)(rows)
    trained = make_collator(DataConfig(ignore_pad_token_for_loss=False), tokenizer)(rows)
    assert left_out["labels"].tolist() == [[5, 6], [7, -100]]
    assert trained["labels"].tolist() == [[5, 6], [7, 0]]
    assert left_out["attention_mask"].tolist() == [[1, 1], [1, 0]]


def test_a_width_can_be_a_multiple(tokenizer: Any) -> None:
    made = make_collator(DataConfig(), tokenizer, multiple_of=8)([{"input_ids": [5], "labels": [5]}])
    assert made["input_ids"].tolist() == [[5, 0, 0, 0, 0, 0, 0, 0]]


@pytest.mark.parametrize("neat", [False, True])
def test_prepare_packs_rows_whole(neat: bool, tokenizer: Any, write: Any) -> None:
    path = write(alpaca(20))
    rows = run(tokenizer, path).train
    made = run(tokenizer, path, cutoff_len=100, neat_packing=neat, packing=True)
    lengths = {row["row"]: len(row["input_ids"]) for row in rows}
    for pack in made.train:
        assert pack["seq_lengths"] == [lengths[number] for number in pack["row"]]
        assert len(pack["input_ids"]) == sum(pack["seq_lengths"]) <= 100
    assert sorted(number for pack in made.train for number in pack["row"]) == list(range(1, 21))
    first = made.train[0]
    parts = [rows[number - 1] for number in first["row"]]
    assert first["input_ids"] == [token for part in parts for token in part["input_ids"]]
    assert first["labels"] == [label for part in parts for label in part["labels"]]
    assert made.report.packed is not None
    assert made.report.packed["sequences"] == len(made.train)


@pytest.mark.parametrize(
    ("stage", "settings", "packs"),
    [
        ("pt", {}, True),
        ("sft", {}, False),
        ("pt", {"packing": False}, False),
        ("sft", {"packing": True}, True),
        ("sft", {"neat_packing": True}, True),
    ],
)
def test_when_rows_are_packed(stage: str, settings: dict[str, bool], packs: bool) -> None:
    assert Config(stage=StageConfig(name=stage), data=DataConfig(**settings)).packs is packs


def test_the_first_token_of_a_row_is_a_target_only_where_it_sees_the_row_before(
    tokenizer: Any, write: Any
) -> None:
    path = write([{"text": "hello"}, {"text": "world"}])
    loose = run(tokenizer, path, "text", packing=True).train[0]
    neat = run(tokenizer, path, "text", packing=True, neat_packing=True).train[0]
    assert loose["labels"] == loose["input_ids"]
    borders = np.cumsum([0, *neat["seq_lengths"]])[:-1].tolist()
    assert [index for index, label in enumerate(neat["labels"]) if label == -100] == borders
