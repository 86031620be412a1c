"""Whether a saved adapter fits is told from its file's header, before any weight of the base is loaded."""

from pathlib import Path
from typing import Any

import pytest
from support.small_models import HIDDEN, VOCABULARY, llama

from llmf_hydra.config.groups.method import MethodConfig
from llmf_hydra.config.groups.model import ModelConfig
from llmf_hydra.errors import Refused
from llmf_hydra.methods import lora
from llmf_hydra.methods.adapters import check_saved, like
from llmf_hydra.models.load import load_config, told_of
from llmf_hydra.training.rl.rewards.adapter import check_vocabulary


def base(more: int = 0) -> Any:
    made = llama().float()
    if more:
        made.resize_token_embeddings(VOCABULARY + more, mean_resizing=False)
    return made


@pytest.fixture
def with_new_tokens(tmp_path: Path) -> str:
    method = MethodConfig(lora_rank=2, additional_target="embed_tokens")
    lora.apply(base(more=3), method, pure=False).save_pretrained(str(tmp_path))
    return str(tmp_path)


def test_an_adapter_with_new_tokens_is_refused_on_a_model_without_them(with_new_tokens: str) -> None:
    fits = base(more=3).to("meta")
    check_saved(like(fits, with_new_tokens, pure=False), with_new_tokens)
    narrow = like(base().to("meta"), with_new_tokens, pure=False)
    with pytest.raises(Refused, match=r"adapter_name_or_path=.*embed_tokens.*model.resize_vocab as then"):
        check_saved(narrow, with_new_tokens)


def test_so_is_a_reward_adapter(with_new_tokens: str) -> None:
    check_vocabulary(with_new_tokens, base(more=3).to("meta"))
    with pytest.raises(
        Refused, match=rf"rlhf.reward_model=.*trained with {VOCABULARY + 3} tokens.* has {VOCABULARY}"
    ):
        check_vocabulary(with_new_tokens, base().to("meta"))


def test_a_file_that_is_no_safetensors_is_told(with_new_tokens: str) -> None:
    adapted = like(base(more=3).to("meta"), with_new_tokens, pure=False)
    Path(with_new_tokens, "adapter_model.safetensors").write_bytes(b"nonsense" * HIDDEN)
    with pytest.raises(Refused, match=r"adapter_name_or_path="):
        check_saved(adapted, with_new_tokens)


def test_what_is_wrong_with_a_model_beside_is_told_under_its_own_key(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(Refused) as refused, told_of("rlhf.ref_model"):
        load_config(ModelConfig(model_name_or_path=str(tmp_path)))
    assert str(refused.value.problems[0]).startswith(f"rlhf.ref_model={tmp_path}: ")
