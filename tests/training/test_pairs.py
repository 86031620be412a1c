"""The shared layout gives what two lines a pair give; only trained tokens go through the output head."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from llmf_hydra.training.layout.rows import PADDED, Layout
from llmf_hydra.training.pairs import (
    PairCollator,
    answer_batch,
    answer_log_probs,
    padded,
    pair_log_probs,
    shares_prompt,
)
from llmf_hydra.training.token_logprobs import IGNORED, install_head, next_tokens, token_log_probs

TINY = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 97, "max_position_embeddings": 128}  # fmt: skip
PAD = 0


def llama(attention: str = "sdpa", **more: Any) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(**TINY, **more)
    config._attn_implementation = attention
    model = LlamaForCausalLM(config)
    for weight in model.parameters():  # far from uniform, so that a wrong mask shows
        torch.nn.init.normal_(weight, std=0.3) if weight.dim() > 1 else None
    return model


def rows(count: int = 3) -> list[dict[str, list[int]]]:
    made = torch.Generator().manual_seed(2)

    def ids(length: int) -> list[int]:
        return torch.randint(1, 97, (length,), generator=made).tolist()

    shapes = [(7, 3, 5), (1, 4, 1), (12, 1, 2)][:count]
    return [{"prompt_ids": ids(p), "chosen_ids": ids(c), "rejected_ids": ids(r)} for p, c, r in shapes]


def by_hand(model: LlamaForCausalLM, prompt: list[int], answer: list[int]) -> torch.Tensor:
    """The simple version: all logits of one sequence."""
    logits = model(torch.tensor([[*prompt, *answer]]), use_cache=False).logits[0].float().log_softmax(dim=-1)
    return sum(logits[len(prompt) - 1 + at, token] for at, token in enumerate(answer))  # pyright: ignore


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "plain"])
def test_both_layouts_equal_the_simple_version(shared: bool, attention: str) -> None:
    model = llama(attention)
    pairs = rows()
    simple = [(by_hand(model, r["prompt_ids"], r["chosen_ids"]), by_hand(model, r["prompt_ids"], r["rejected_ids"]))
              for r in pairs]  # fmt: skip
    (-F.logsigmoid(torch.stack([c - r for c, r in simple]))).mean().backward()
    expected = {
        name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None
    }
    model.zero_grad()
    install_head(model)
    answers = pair_log_probs(model, PairCollator(PAD, shared)(pairs), torch.float32)
    (-F.logsigmoid(answers.chosen - answers.rejected)).mean().backward()
    torch.testing.assert_close(answers.chosen, torch.stack([c for c, _ in simple]), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(answers.rejected, torch.stack([r for _, r in simple]), atol=1e-5, rtol=1e-5)
    assert answers.chosen_tokens.tolist() == [3, 4, 1] and answers.rejected_tokens.tolist() == [5, 1, 2]
    for name, weight in model.named_parameters():
        assert weight.grad is not None
        torch.testing.assert_close(weight.grad, expected[name], atol=1e-5, rtol=1e-4, msg=name)


def test_the_shared_layout_holds_the_prompt_once() -> None:
    pairs = rows()
    shared, plain = PairCollator(PAD, True)(pairs), PairCollator(PAD, False)(pairs)
    assert shared["input_ids"].shape == (3, 14) and plain["input_ids"].shape == (6, 13)
    assert int((shared["side"] != 3).sum()) == sum(
        len(r["prompt_ids"]) - 1 + len(r["chosen_ids"]) + len(r["rejected_ids"]) for r in pairs
    )
    assert shared["position_ids"][0, :14].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 6, 7, 8, 9, 10]


def test_lines_do_not_depend_on_padding() -> None:
    model = llama()
    install_head(model)
    pairs = rows()
    together = answer_log_probs(
        model,
        answer_batch([r["prompt_ids"] for r in pairs], [r["chosen_ids"] for r in pairs], PAD),
        torch.float32,
    )
    alone = [
        answer_log_probs(model, answer_batch([r["prompt_ids"]], [r["chosen_ids"]], PAD), torch.float32)
        for r in pairs
    ]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-5)


def test_only_trained_tokens_go_through_the_head() -> None:
    model = llama()
    install_head(model)
    seen: list[tuple[int, ...]] = []
    model.lm_head.register_forward_hook(lambda _, given, __: seen.append(tuple(given[0].shape)))
    ids = padded([list(range(1, 20)), list(range(1, 8))], PAD)
    labels = ids.clone()
    labels[:, :4] = IGNORED
    labels[1, 7:] = IGNORED
    scored = token_log_probs(model, {"input_ids": ids}, next_tokens(labels))
    assert seen == [(18, 32)]
    assert int((scored.log_probs != 0).sum()) == 18
    assert model(ids).logits.shape == (2, 19, 97), "a call without the flag is as ever"


def test_scores_equal_those_of_trl(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trl.trainer.utils import add_fused_lm_head

    mine, theirs = llama(), llama()
    install_head(mine, top=True)
    add_fused_lm_head(theirs, outputs=("log_probs", "is_top1"))
    ids = padded([list(range(1, 20)), list(range(5, 15))], PAD)
    targets = next_tokens(ids.masked_fill(ids == PAD, IGNORED))
    ours, other = (
        token_log_probs(mine, {"input_ids": ids}, targets),
        token_log_probs(theirs, {"input_ids": ids}, targets),
    )
    torch.testing.assert_close(ours.log_probs, other.log_probs, atol=1e-5, rtol=1e-5)
    assert ours.is_top is not None and other.is_top is not None
    assert torch.equal(ours.is_top.bool(), other.is_top.bool())
    install_head(mine)
    assert token_log_probs(mine, {"input_ids": ids}, targets).is_top is None


def test_what_takes_no_mask_of_its_own_gets_the_plain_layout() -> None:
    assert shares_prompt(llama("sdpa"), PADDED) and shares_prompt(llama("eager"), PADDED)
    flash = llama()
    flash.config._attn_implementation = "flash_attention_2"
    assert not shares_prompt(flash, PADDED) and not shares_prompt(flash, Layout(None))
    windows = MistralForCausalLM(MistralConfig(**TINY, sliding_window=16))
    assert not shares_prompt(windows, PADDED)
    assert shares_prompt(MistralForCausalLM(MistralConfig(**TINY, sliding_window=None)), PADDED)
    assert shares_prompt(windows, Layout(None, by_row=True)), "end to end each row has a window of its own"
    without_positions = AutoModelForCausalLM.from_config(_bloom())
    assert not shares_prompt(without_positions, PADDED)


def _bloom() -> Any:
    from transformers import BloomConfig

    return BloomConfig(vocab_size=97, hidden_size=32, n_layer=1, n_head=2)
