"""Group `generation`: decoding parameters (spec table generating, and eval_num_beams)."""

from dataclasses import dataclass

from llmf_hydra.config.choices import stages
from llmf_hydra.config.param import param

# Without rollouts answers are sampled at evaluation, with training.predict_with_generate, which a rule checks.
ROLLOUTS = {
    "stage.name": stages(lambda stage: stage.rollouts or "predict_with_generate" in stage.switched_metrics)
}
ANSWERS = {"training.predict_with_generate": (True,)}
SAMPLING = {"generation.do_sample": (True,)}


@dataclass
class GenerationConfig:
    backend: str = param(
        "transformers",
        "What generates the answers of stage=grpo: transformers, or vllm within the process (needs CUDA).",
        choices=("transformers", "vllm"),
        only={"stage.name": ("grpo",)},
    )
    do_sample: bool = param(True, "Sample; false decodes greedily.", only_in_training=ROLLOUTS)
    temperature: float = param(0.95, "Sampling temperature.", gt=0, only=SAMPLING, only_in_training=ROLLOUTS)
    top_p: float = param(
        0.7,
        "Nucleus sampling: smallest set of tokens whose probabilities reach this sum.",
        gt=0,
        le=1,
        only=SAMPLING,
        only_in_training=ROLLOUTS,
    )
    top_k: int = param(
        50,
        "Sample from the k most likely tokens; 0 disables the filter.",
        ge=0,
        only=SAMPLING,
        only_in_training=ROLLOUTS,
    )
    num_beams: int = param(1, "Number of beams; 1 disables beam search.", ge=1, only_in_training=ANSWERS)
    max_length: int = param(
        1024,
        "Maximum tokens of prompt and answer together.",
        ge=1,
        only={"generation.max_new_tokens": (0,)},
        only_in_training=ROLLOUTS,
    )
    max_new_tokens: int = param(
        1024,
        "Maximum tokens of the answer; overrides max_length unless it is 0.",
        ge=0,
        only_in_training=ROLLOUTS,
    )
    repetition_penalty: float = param(
        1.0, "Repetition penalty; 1 disables it.", gt=0, only_in_training=ROLLOUTS
    )
    length_penalty: float = param(
        1.0, "Length penalty of beam search: above 0 favours longer answers.", only_in_training=ANSWERS
    )
    default_system: str | None = param(None, "System message for dialogues that have none.")
    skip_special_tokens: bool = param(True, "Remove special tokens when decoding.", only_in_training=ROLLOUTS)
    eval_num_beams: int | None = param(
        None, "Number of beams at evaluation; null uses num_beams.", ge=1, only_in_training=ANSWERS
    )
