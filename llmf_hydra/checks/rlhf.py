"""Rules of the preference stages and of PPO: reference, reward, weights of the losses."""

from collections.abc import Iterator

from llmf_hydra.checks.register import rule
from llmf_hydra.config.choices import LEARNING_JOBS
from llmf_hydra.config.schema import Config, value_at
from llmf_hydra.errors import Problem

REFERENCE_KEYS = ("rlhf.ref_model", "rlhf.ref_model_adapters", "rlhf.ref_model_quantization_bit")
REWARD = "rlhf.reward_model"
REWARDS = {
    "lora": "name the folder of an adapter that stage=rm method=lora has written",
    "full": "name the folder of a model that stage=rm has written",
    "api": "give the URL of the service",
}


@rule("rlhf.pref_loss", *REFERENCE_KEYS)
def no_reference_where_none_is_used(cfg: Config) -> Iterator[Problem]:
    """The losses orpo and simpo use no reference model."""
    if cfg.stage.info.several_losses and cfg.rlhf.reference_free:
        for key in REFERENCE_KEYS:
            value = value_at(cfg, key)
            if value is not None:
                what = f"rlhf.pref_loss={cfg.rlhf.pref_loss} uses no reference model"
                yield Problem(key, value, what, "leave it out, or choose another loss")


@rule("rlhf.ref_model_quantization_bit", "rlhf.ref_model_adapters", "model.adapter_name_or_path")
def reference_can_be_quantized(cfg: Config) -> Iterator[Problem]:
    """A reference model is quantized to 4 or 8 bits, and then takes one adapter at most."""
    rlhf = cfg.rlhf
    bits, key = rlhf.ref_model_quantization_bit, "rlhf.ref_model_adapters"
    if rlhf.ref_model is None and rlhf.ref_model_adapters is None:  # the start of the run is the reference
        key = "model.adapter_name_or_path"
    adapters = value_at(cfg, key)
    if bits is not None and bits not in (4, 8):
        yield Problem("rlhf.ref_model_quantization_bit", bits, "must be 4 or 8")
    elif bits is not None and adapters is not None and "," in adapters:
        what = "are several adapters, which cannot be merged into quantized weights"
        yield Problem(key, adapters, what, "merge them first, or leave the bits out")


@rule(
    "stage.name",
    "training.per_device_train_batch_size",
    "training.gradient_accumulation_steps",
    jobs=LEARNING_JOBS,
)
def kto_needs_two_rows(cfg: Config) -> Iterator[Problem]:
    """KTO estimates a divergence from the answers of other rows: an optimizer step needs two of them."""
    training = cfg.training
    if (
        cfg.stage.name == "kto"
        and training.per_device_train_batch_size * training.gradient_accumulation_steps < 2
    ):
        what = "with one row an optimizer step, stage=kto has no other row's answer to estimate its divergence by"
        yield Problem("training.per_device_train_batch_size", 1, what,
                      "take 2 or more, or training.gradient_accumulation_steps=2")  # fmt: skip


@rule("rlhf.kto_chosen_weight", "rlhf.kto_rejected_weight")
def kto_learns_from_something(cfg: Config) -> Iterator[Problem]:
    """One of KTO's two weights is above 0."""
    rlhf = cfg.rlhf
    if cfg.stage.name == "kto" and rlhf.kto_chosen_weight == 0 and rlhf.kto_rejected_weight == 0:
        yield Problem("rlhf.kto_chosen_weight", 0, "nothing would be learned: rlhf.kto_rejected_weight is 0 too",
                      "let one of them be above 0")  # fmt: skip


@rule(REWARD, jobs=LEARNING_JOBS)
def a_reward_is_named(cfg: Config) -> Iterator[Problem]:
    """PPO needs a reward: an adapter, a model, a service, or the list rlhf.rewards."""
    rlhf = cfg.rlhf
    if cfg.stage.name == "ppo" and not rlhf.reward_model and not rlhf.rewards:
        yield Problem(REWARD, None, f"stage=ppo needs a reward (reward_model_type={rlhf.reward_model_type})",
                      REWARDS[rlhf.reward_model_type])  # fmt: skip


@rule(REWARD, "rlhf.reward_model_type")
def a_service_has_a_url(cfg: Config) -> Iterator[Problem]:
    """A service is a URL with reward_model_type=api, and a folder or hub name goes with lora and full."""
    rlhf = cfg.rlhf
    if cfg.stage.name != "ppo" or not rlhf.reward_model:
        return
    is_url = rlhf.reward_model.startswith(("http://", "https://"))
    if rlhf.reward_model_type == "api" and not is_url:
        yield Problem(REWARD, rlhf.reward_model, "is no URL, which rlhf.reward_model_type=api needs",
                      "begin it with http:// or https://")  # fmt: skip
    elif rlhf.reward_model_type != "api" and is_url:
        yield Problem(REWARD, rlhf.reward_model, f"contradicts rlhf.reward_model_type={rlhf.reward_model_type}",
                      "set rlhf.reward_model_type=api")  # fmt: skip


@rule("rlhf.reward_model_quantization_bit")
def the_reward_has_four_or_eight_bits(cfg: Config) -> Iterator[Problem]:
    """A quantized reward model has 4 or 8 bits."""
    bits = cfg.rlhf.reward_model_quantization_bit
    if bits not in (None, 4, 8):
        yield Problem("rlhf.reward_model_quantization_bit", bits, "must be 4 or 8")


@rule(REWARD, "rlhf.reward_model_type", "model.adapter_name_or_path", "method.create_new_adapter")
def a_reward_adapter_keeps_its_base(cfg: Config) -> Iterator[Problem]:
    """A reward adapter sits on the model's own weights, so no adapter may be merged into them."""
    changed = cfg.merged_adapters
    adapter = cfg.rlhf.reward_model is not None and cfg.rlhf.reward_model_type == "lora"
    if cfg.stage.name == "ppo" and adapter and changed:
        what = f"is an adapter on weights into which {', '.join(changed)} would be merged: its scores would be others"
        remedy = "go on from one adapter without method.create_new_adapter, or set rlhf.reward_model_type=full or api"
        yield Problem(REWARD, cfg.rlhf.reward_model, what, remedy)
