"""Whether a saved adapter fits is told from its file's header, before any weight of the base is loaded."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.small_models import HIDDEN, VOCABULARY, llama

from llmf_hydra.config.groups.method import MethodConfig
from llmf_hydra.config.groups.model import ModelConfig
from llmf_hydra.errors import Refused
from llmf_hydra.methods import lora
from llmf_hydra.methods.adapters import check_saved, like, load
from llmf_hydra.models import adapters
from llmf_hydra.models.load import load_config, told_of
from llmf_hydra.training.rewards.adapter import check_vocabulary


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


def test_embeddings_are_saved_once_and_load_also_as_peft_saves_them(tmp_path: Path) -> None:
    """PEFT adds those of a resized vocabulary again, as they were before the training and as they are."""
    made = lora.apply(base(more=3), MethodConfig(lora_rank=2, additional_target="embed_tokens"), pure=False)
    with torch.no_grad():
        made.get_input_embeddings().weight.fill_(0.5)
    adapters.save(made, tmp_path / "ours", "default")
    made.save_pretrained(str(tmp_path / "theirs"), save_embedding_layers=True)
    names = {name: load_file(tmp_path / name / "adapter_model.safetensors") for name in ("ours", "theirs")}
    whole = [name for name in names["ours"] if "lora_" not in name]
    assert whole == ["base_model.model.model.embed_tokens.weight"] and len(names["theirs"]) > len(
        names["ours"]
    )
    for folder in ("ours", "theirs"):
        fresh = like(base(more=3), str(tmp_path / folder), pure=False)
        check_saved(fresh, str(tmp_path / folder))
        again = load(fresh, str(tmp_path / folder))
        assert torch.equal(again.get_input_embeddings().weight, made.get_input_embeddings().weight)


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
