"""Rules of `stage=ppo`: where its reward comes from."""

from collections.abc import Iterator

from llmf_hydra.checks.register import rule
from llmf_hydra.config import adapters
from llmf_hydra.config.schema import Config
from llmf_hydra.errors import Problem

KEY = "rlhf.reward_model"
WANTED = {
    "lora": "name the folder of an adapter that stage=rm method=lora has written",
    "full": "name the folder of a model that stage=rm has written",
    "api": "give the URL of the service",
}


@rule(KEY)
def a_reward_is_named(cfg: Config) -> Iterator[Problem]:
    """PPO needs a reward: an adapter, a model or a service."""
    rlhf = cfg.rlhf
    if cfg.stage.name == "ppo" and not rlhf.reward_model:
        yield Problem(KEY, None, f"stage=ppo needs a reward (reward_model_type={rlhf.reward_model_type})",
                      WANTED[rlhf.reward_model_type])  # fmt: skip


@rule(KEY, "rlhf.reward_model_type")
def a_service_has_a_url(cfg: Config) -> Iterator[Problem]:
    """A service is a URL with reward_model_type=api, and a folder or hub name goes with lora and full."""
    rlhf = cfg.rlhf
    if cfg.stage.name != "ppo" or not rlhf.reward_model:
        return
    is_url = rlhf.reward_model.startswith(("http://", "https://"))
    if rlhf.reward_model_type == "api" and not is_url:
        yield Problem(KEY, rlhf.reward_model, "is no URL, which rlhf.reward_model_type=api needs",
                      "begin it with http:// or https://")  # fmt: skip
    elif rlhf.reward_model_type != "api" and is_url:
        yield Problem(KEY, rlhf.reward_model, f"contradicts rlhf.reward_model_type={rlhf.reward_model_type}",
                      "set rlhf.reward_model_type=api")  # fmt: skip


@rule("rlhf.reward_model_quantization_bit")
def the_reward_has_four_or_eight_bits(cfg: Config) -> Iterator[Problem]:
    """A quantized reward model has 4 or 8 bits."""
    bits = cfg.rlhf.reward_model_quantization_bit
    if bits not in (None, 4, 8):
        yield Problem("rlhf.reward_model_quantization_bit", bits, "must be 4 or 8")


@rule("data.streaming")
def prompts_are_at_hand(cfg: Config) -> Iterator[Problem]:
    """PPO draws its prompts by their number, so they cannot be read while it trains."""
    if cfg.stage.name == "ppo" and cfg.data.streaming:
        yield Problem("data.streaming", True, "stage=ppo draws its prompts by their number", "leave it out")


@rule(KEY, "rlhf.reward_model_type", "model.adapter_name_or_path", "method.create_new_adapter")
def a_reward_adapter_keeps_its_base(cfg: Config) -> Iterator[Problem]:
    """A reward adapter sits on the model's own weights, so no adapter may be merged into them."""
    changed = adapters.merged(cfg)
    if cfg.stage.name == "ppo" and cfg.rlhf.reward_model_type == "lora" and changed:
        what = f"is an adapter on weights into which {', '.join(changed)} would be merged: its scores would be others"
        remedy = "go on from one adapter without method.create_new_adapter, or set rlhf.reward_model_type=full or api"
        yield Problem(KEY, cfg.rlhf.reward_model, what, remedy)
