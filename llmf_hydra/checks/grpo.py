"""Rules of `stage=grpo`, and of the list of rewards that it shares with PPO: what stands in the config alone."""

from collections.abc import Iterator
from pathlib import Path

from llmf_hydra.checks.register import PACKAGES, rule
from llmf_hydra.checks.values import GPU_DRIVERS
from llmf_hydra.config.choices import LEARNING_JOBS
from llmf_hydra.config.rewards import items as rewards
from llmf_hydra.config.schema import Config
from llmf_hydra.errors import NO_VALUE, Problem
from llmf_hydra.optional import missing

BATCH, EVAL_BATCH = "training.per_device_train_batch_size", "training.per_device_eval_batch_size"
REWARDS = ("reward", "pass_at_1", "pass_at_k")  # metrics of which the greater is the better
PACKAGES_OF = {"math": "math_verify", "json_schema": "jsonschema"}  # kinds of rewards -> what they import


@rule(rewards.KEY)
def rewards_are_well_written(cfg: Config) -> Iterator[Problem]:
    """rlhf.rewards is a list of KIND, KIND:ARGUMENT or {kind: KIND, weight: 0.5, ...}."""
    wrong = list(rewards.problems(cfg.rlhf.rewards))
    yield from wrong
    if not wrong and (twice := rewards.named_twice(cfg.rlhf.listed)):
        yield twice


@rule(rewards.KEY, jobs=LEARNING_JOBS)
def grpo_has_a_reward(cfg: Config) -> Iterator[Problem]:
    """stage=grpo needs at least one reward."""
    if cfg.stage.name == "grpo" and not cfg.rlhf.rewards:
        kinds = ", ".join(f"{kind}:{of.argument.upper()}" if of.argument else kind
                          for kind, of in rewards.KINDS.items())  # fmt: skip
        yield Problem(rewards.KEY, None, "stage=grpo needs a reward", f"name some of {kinds}")


@rule(rewards.KEY, "rlhf.reward_model")
def ppo_is_rewarded_by_one_of_both(cfg: Config) -> Iterator[Problem]:
    """PPO takes a reward model or the list of rewards."""
    if cfg.stage.name == "ppo" and cfg.rlhf.rewards and cfg.rlhf.reward_model:
        yield Problem("rlhf.reward_model", cfg.rlhf.reward_model, f"contradicts {rewards.KEY}",
                      "put it into the list: model:FOLDER or service:URL")  # fmt: skip


@rule(rewards.KEY, jobs=LEARNING_JOBS, phase=PACKAGES)
def packages_of_rewards_are_there(cfg: Config) -> Iterator[Problem]:
    """The rewards math and json_schema need a package each."""
    if not cfg.stage.info.rollouts or list(rewards.problems(cfg.rlhf.rewards)):
        return
    for kind in dict.fromkeys(spec.kind for spec in cfg.rlhf.listed):
        if kind in PACKAGES_OF:
            problem = missing(PACKAGES_OF[kind], extra="rewards", key=f"{rewards.KEY}={kind}")
            yield from [problem] if problem else []


@rule("rlhf.num_generations", BATCH, "rlhf.steps_per_generation", "training.gradient_accumulation_steps")
def groups_fill_a_generation(cfg: Config) -> Iterator[Problem]:
    """What is answered at once in stage=grpo holds whole groups of rlhf.num_generations answers."""
    if cfg.stage.name != "grpo":
        return
    training, rlhf = cfg.training, cfg.rlhf
    steps = rlhf.steps_per_generation or training.gradient_accumulation_steps
    named = (
        "rlhf.steps_per_generation" if rlhf.steps_per_generation else "training.gradient_accumulation_steps"
    )
    whole = training.per_device_train_batch_size * cfg.launch.nproc_per_node * steps
    if whole % rlhf.num_generations:
        processes = f" x {cfg.launch.nproc_per_node} processes" if cfg.launch.nproc_per_node > 1 else ""
        what = (f"answers are generated {whole} at once ({BATCH}={training.per_device_train_batch_size}{processes} x "
                f"{named}={steps}), which are no whole groups")  # fmt: skip
        yield Problem("rlhf.num_generations", rlhf.num_generations, what,
                      f"let that product be a multiple of {rlhf.num_generations}")  # fmt: skip


@rule("rlhf.num_generations_eval", EVAL_BATCH)
def groups_fill_an_evaluation_batch(cfg: Config) -> Iterator[Problem]:
    """An evaluation batch of stage=grpo holds whole groups of rlhf.num_generations_eval answers."""
    training, count = cfg.training, cfg.rlhf.answers_per_prompt
    whole = training.per_device_eval_batch_size * cfg.launch.nproc_per_node
    if cfg.stage.name == "grpo" and training.evaluates and whole % count:
        key = "rlhf.num_generations_eval" if cfg.rlhf.num_generations_eval else "rlhf.num_generations"
        what = f"holds no whole groups of {key}={count} answers"
        yield Problem(EVAL_BATCH, training.per_device_eval_batch_size, what, f"set {EVAL_BATCH}={count}")


@rule("tracking.direction", "tracking.objective")
def rewards_are_better_the_greater(cfg: Config) -> Iterator[Problem]:
    """A study by the reward looks for the greatest."""
    objective = cfg.tracking.objective
    by_reward = (objective or "").removeprefix("eval_") in REWARDS
    if cfg.stage.name == "grpo" and by_reward and cfg.tracking.direction == "minimize":
        what = f"would look for the smallest {objective}"
        yield Problem("tracking.direction", "minimize", what, "set tracking.direction=maximize")


@rule("data.eval_on_each_dataset")
def held_out_prompts_are_one_set(cfg: Config) -> Iterator[Problem]:
    """stage=grpo logs the rewards of all held-out prompts under one name."""
    if cfg.stage.name == "grpo" and cfg.data.eval_on_each_dataset:
        what = "stage=grpo logs its rewards under one name, whatever dataset they are of"
        yield Problem("data.eval_on_each_dataset", True, what, "leave it out")


@rule("generation.do_sample", "generation.max_new_tokens")
def groups_are_sampled(cfg: Config) -> Iterator[Problem]:
    """stage=grpo compares sampled answers of a known greatest length."""
    generation = cfg.generation
    if cfg.stage.name == "grpo" and not generation.do_sample:
        yield Problem(
            "generation.do_sample", False, "all answers to a prompt would be the same", "leave it out"
        )
    if cfg.stage.name == "grpo" and generation.max_new_tokens == 0:
        yield Problem(
            "generation.max_new_tokens", 0, "stage=grpo needs a greatest length of answers", "set it"
        )


@rule("rlhf.beta", "rlhf.ref_model", "rlhf.ref_model_adapters", "rlhf.ref_model_quantization_bit")
def beta_needs_the_reference(cfg: Config) -> Iterator[Problem]:
    """With rlhf.beta=0 stage=grpo loads no reference."""
    rlhf = cfg.rlhf
    given = rlhf.ref_model or rlhf.ref_model_adapters or rlhf.ref_model_quantization_bit
    if cfg.stage.name == "grpo" and rlhf.beta == 0 and given:
        yield Problem("rlhf.beta", 0, "no reference is used, and one is named", "set rlhf.beta above 0")


@rule("rlhf.multi_objective_aggregation", "rlhf.scale_rewards", rewards.KEY)
def aggregation_has_several_rewards(cfg: Config) -> Iterator[Problem]:
    """normalize_then_sum is about several rewards, and scales them itself."""
    rlhf = cfg.rlhf
    if cfg.stage.name != "grpo" or rlhf.multi_objective_aggregation == "sum_then_normalize":
        return
    key = "rlhf.multi_objective_aggregation"
    if isinstance(rlhf.rewards, str) or len(rlhf.rewards or []) == 1:
        yield Problem(key, rlhf.multi_objective_aggregation, "has no effect with one reward", "leave it out")
    elif rlhf.scale_rewards != "group":
        yield Problem("rlhf.scale_rewards", rlhf.scale_rewards, f"has no effect with {key}=normalize_then_sum",
                      "leave it out")  # fmt: skip


@rule("rlhf.use_bias_correction_kl", "rlhf.beta")
def the_correction_has_a_kl(cfg: Config) -> Iterator[Problem]:
    """rlhf.use_bias_correction_kl is about the KL, which rlhf.beta=0 leaves out."""
    if cfg.stage.name == "grpo" and not cfg.rlhf.use_bias_correction_kl and cfg.rlhf.beta == 0:
        yield Problem("rlhf.use_bias_correction_kl", False, "has no effect with rlhf.beta=0", "leave it out")


@rule("rlhf.epsilon_high", "rlhf.loss_type")
def cispo_has_its_bound(cfg: Config) -> Iterator[Problem]:
    """CISPO clips the ratio at rlhf.epsilon_high itself, which has no default there."""
    if cfg.stage.name == "grpo" and cfg.rlhf.loss_type == "cispo" and cfg.rlhf.epsilon_high is None:
        yield Problem("rlhf.epsilon_high", None, "rlhf.loss_type=cispo needs it", "5 is usual")


@rule("generation.backend", jobs=LEARNING_JOBS, phase=PACKAGES)
def vllm_can_generate(cfg: Config) -> Iterator[Problem]:
    """generation.backend=vllm needs the package vllm and a GPU."""
    if cfg.stage.name == "grpo" and cfg.generation.backend == "vllm":
        key = "generation.backend=vllm"
        problem = missing("vllm", extra="vllm", key=key)
        if problem is None and not any(map(Path.exists, GPU_DRIVERS)):
            problem = Problem(key, NO_VALUE, "needs a GPU, and this machine has none", "leave it out")
        yield from [problem] if problem else []
