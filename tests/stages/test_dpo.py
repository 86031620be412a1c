"""`stage=dpo` on the tiny model: the reference, what is kept of it, and what does not change a step."""

import json
from pathlib import Path

import pytest
import torch
from support.stage_runs import SGD, Build, steps
from transformers import AutoModelForCausalLM

from llmf_hydra.stages import dpo
from llmf_hydra.training.pairs import PairCollator, pair_log_probs
from llmf_hydra.training.reference.store import ReferenceStore
from llmf_hydra.training.token_logprobs import install_head

DPO = ["stage=dpo", *SGD]
LOSSES = ["sigmoid", "hinge", "ipo", "kto_pair", "orpo", "simpo"]


@pytest.mark.parametrize(
    "loss",
    [
        "sigmoid",
        "orpo",
        *(pytest.param(loss, marks=pytest.mark.slow) for loss in LOSSES if loss not in ("sigmoid", "orpo")),
    ],
)
def test_a_step_does_not_depend_on_how_it_is_cut_into_batches(loss: str, build: Build) -> None:
    done = [
        steps(build(*DPO, f"rlhf.pref_loss={loss}", f"training.per_device_train_batch_size={size}",
                    f"training.gradient_accumulation_steps={times}"))
        for size, times in ((4, 1), (2, 2), (1, 4))
    ]  # fmt: skip
    for losses, weights in done[1:]:
        assert losses == pytest.approx(done[0][0], rel=1e-5)
        for name, weight in weights.items():
            torch.testing.assert_close(weight, done[0][1][name], atol=1e-5, rtol=1e-4, msg=name)
    assert done[0][0][0] != done[0][0][1], "the second step saw what the first one learned"


@pytest.mark.parametrize("loss", ["sigmoid", "orpo"])
def test_the_plain_layout_trains_alike(loss: str, build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [*DPO, f"rlhf.pref_loss={loss}", "method=full", "training.learning_rate=0.1"]
    shared = build(*words)
    assert shared.data_collator.collate.shared
    expected = steps(shared)
    monkeypatch.setattr(dpo, "shares_prompt", lambda *_: False)
    plain = build(*words)
    assert not plain.data_collator.collate.shared
    losses, weights = steps(plain)
    assert losses == pytest.approx(expected[0], rel=1e-5)
    for name, weight in weights.items():
        torch.testing.assert_close(weight, expected[1][name], atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize(
    ("words", "other"),
    [
        (["rlhf.pref_beta=0.1"], ["rlhf.pref_beta=0.5"]),
        (["rlhf.pref_ftx=0"], ["rlhf.pref_ftx=0.3"]),
        (["rlhf.dpo_label_smoothing=0"], ["rlhf.dpo_label_smoothing=0.2"]),
        (["rlhf.pref_loss=simpo", "rlhf.simpo_gamma=0.5"], ["rlhf.pref_loss=simpo", "rlhf.simpo_gamma=1.5"]),
    ],
    ids=["pref_beta", "pref_ftx", "dpo_label_smoothing", "simpo_gamma"],
)
def test_each_parameter_changes_what_is_learned(words: list[str], other: list[str], build: Build) -> None:
    one, two = steps(build(*DPO, *words)), steps(build(*DPO, *other))
    assert any((one[1][name] - two[1][name]).abs().max() > 1e-6 for name in one[1])


def test_each_loss_learns_something_else(build: Build) -> None:
    learned = [steps(build(*DPO, f"rlhf.pref_loss={loss}"))[1] for loss in LOSSES]
    name = next(name for name in learned[0] if name.endswith("lora_B.default.weight"))
    for at, one in enumerate(learned):
        assert all((one[name] - two[name]).abs().max() > 1e-6 for two in learned[at + 1 :])


def test_the_reference_is_scored_once_a_row(build: Build) -> None:
    words = [*DPO, "data.max_samples=8", "training.per_device_train_batch_size=4", "training.max_steps=-1",
             "training.num_train_epochs=3", "training.disable_shuffling=false"]  # fmt: skip
    trainer = build(*words)
    trainer.reference.store = ReferenceStore(None)  # as if no earlier run had kept anything
    with_cache = steps(trainer)
    assert trainer.reference.computed == len(trainer.reference) == 8
    anew = build(*words)
    anew.reference.cached = False
    without = steps(anew)
    assert with_cache[0] == pytest.approx(without[0], rel=1e-5)


def test_the_reference_has_no_dropout_and_the_policy_does(build: Build) -> None:
    trainer = build(*DPO, "method.lora_dropout=0.5")
    batch = trainer.data_collator([trainer.train_dataset[0]])
    trainer.rows = batch["rows"]
    trainer.model.train()
    for name, weight in trainer.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    with torch.no_grad():
        first, second = (pair_log_probs(trainer.model, batch, torch.float32).chosen for _ in range(2))
    assert (first != second).all()
    with trainer.reference.model() as reference:
        again = [pair_log_probs(reference, batch, torch.float32).chosen for _ in range(2)]
        assert torch.equal(*again)
    assert trainer.model.training


def bare(trainer, path: Path) -> torch.Tensor:
    """What a model that lies at `path` gives to the trainer's first pair."""
    model = AutoModelForCausalLM.from_pretrained(path)
    install_head(model)
    batch = PairCollator(trainer.context.tokenizer.pad_token_id, True)([trainer.train_dataset[0]])
    with torch.no_grad():
        answers = pair_log_probs(model, batch, torch.float32)
    return torch.stack([answers.chosen, answers.rejected], dim=1)


def referred(trainer) -> torch.Tensor:
    batch = trainer.data_collator([trainer.train_dataset[0]])
    trainer.rows = batch["rows"]
    return trainer._reference_log_probs(batch)


@pytest.fixture
def other_model(tmp_path: Path, cache: Path) -> Path:
    """Another model with the same tokenizer."""
    from llmf_hydra.models.builtin import tiny

    model = AutoModelForCausalLM.from_pretrained(tiny.ready())
    for weight in model.parameters():
        weight.data += 0.02 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(5))
    model.save_pretrained(tmp_path / "other")
    return tmp_path / "other"


@pytest.mark.parametrize("method", ["lora", "full", "freeze"])
def test_the_reference_is_the_start_of_the_run(method: str, build: Build) -> None:
    from llmf_hydra.models.builtin import tiny

    trainer = build(*DPO, f"method={method}")
    start = bare(trainer, tiny.ready())
    torch.testing.assert_close(referred(trainer), start)
    trainer.train()
    trainer.reference._values.clear()
    trainer.reference.store = ReferenceStore(None)
    torch.testing.assert_close(referred(trainer), start)
    assert (trainer.reference.own is None) == (method == "lora")


def test_ref_model_and_its_adapters_are_the_reference(
    build: Build, other_model: Path, tmp_path: Path
) -> None:
    from peft import LoraConfig, get_peft_model

    from llmf_hydra.models.builtin import tiny

    trainer = build(*DPO, f"rlhf.ref_model={other_model}")
    expected = bare(trainer, other_model)
    torch.testing.assert_close(referred(trainer), expected)
    assert (expected - bare(trainer, tiny.ready())).abs().max() > 0.1
    adapted = get_peft_model(
        AutoModelForCausalLM.from_pretrained(tiny.ready()), LoraConfig(init_lora_weights=False)
    )
    adapted.save_pretrained(tmp_path / "adapter")
    adapted.merge_and_unload().save_pretrained(tmp_path / "merged")
    by_adapter = build(*DPO, f"rlhf.ref_model_adapters={tmp_path / 'adapter'}")
    torch.testing.assert_close(referred(by_adapter), bare(trainer, tmp_path / "merged"))


@pytest.mark.parametrize("loss", ["orpo", "simpo"])
def test_losses_without_reference_load_none(loss: str, build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dpo, "build_reference", lambda _: pytest.fail("a reference was loaded"))
    trainer = build(*DPO, "method=full", f"rlhf.pref_loss={loss}")
    trainer.train()
    assert trainer.reference.own is None and len(trainer.reference) == 0


def test_what_is_kept_of_the_reference_is_in_the_checkpoint(build: Build, tmp_path: Path) -> None:
    words = [*DPO, "training.max_steps=4", "training.save_strategy=steps", "training.save_steps=2",
             "training.per_device_train_batch_size=4"]  # fmt: skip
    whole = build(*words)
    expected = steps(whole)
    checkpoint = Path(whole.args.output_dir) / "checkpoint-2"
    again = build(*words)
    again.train(resume_from_checkpoint=str(checkpoint))
    assert [line["loss"] for line in again.state.log_history if "loss" in line] == expected[0]
    assert {k: v.tolist() for k, v in again.reference._values.items()} == {
        k: v.tolist() for k, v in whole.reference._values.items()
    }
    fresh = build(*words)
    fresh.reference.load_state_dict(
        torch.load(checkpoint / "stage_state_0.pt", weights_only=True)["reference"]
    )
    assert len(fresh.reference) == 16, "the rows of four steps, scored before the first"
    fresh.reference.store = ReferenceStore(None)
    fresh.train(resume_from_checkpoint=str(checkpoint))
    assert fresh.reference.computed == 0


def asked(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


@pytest.mark.parametrize("shared", [True, False], ids=["one prompt", "two whole dialogues"])
def test_rows_of_several_turns(shared: bool, build: Build, tmp_path: Path) -> None:
    """What stands before the answers is the history; answers of several turns are ranked as a whole."""
    before = [asked("hello"), said("how can I help"), asked("name a colour")]
    chosen, rejected = [said("blue")], [said("a very long word"), asked("shorter"), said("red")]
    row = {"prompt": before, "chosen": chosen, "rejected": rejected}
    if not shared:
        row = {"chosen": [*before, *chosen], "rejected": [*before, *rejected]}
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{json.dumps(row)}\n" * 8)
    trainer = build(*DPO, f"data.dataset={path}", "training.max_steps=4", "training.learning_rate=0.1")
    known, decode = trainer.train_dataset[0], trainer.context.tokenizer.decode
    prompt = decode(known["prompt_ids"])
    assert all(message["content"] in prompt for message in before) and "blue" not in prompt
    assert decode(known["chosen_ids"]).startswith("blue<|im_end|>")
    assert all(message["content"] in decode(known["rejected_ids"]) for message in rejected)
    losses, _ = steps(trainer)
    assert losses[0] == pytest.approx(0.6931472, abs=1e-6) and losses[-1] < losses[0]
