"""Group `generation`: how text is generated (spec table generating, and eval_num_beams)."""

from dataclasses import dataclass

from llmf_hydra.config.choices import stages
from llmf_hydra.config.param import param

# Without rollouts answers are sampled at evaluation, with training.predict_with_generate, which a rule checks.
ROLLOUTS = {
    "stage.name": stages(lambda stage: stage.rollouts or "predict_with_generate" in stage.switched_metrics)
}
ANSWERS = {"training.predict_with_generate": (True,)}
SAMPLING = {**ROLLOUTS, "generation.do_sample": (True,)}


@dataclass
class GenerationConfig:
    do_sample: bool = param(True, "Sample; false takes the likeliest token.", only=ROLLOUTS)
    temperature: float = param(0.95, "Randomness: higher is more random.", gt=0, only=SAMPLING)
    top_p: float = param(
        0.7, "Sample from the likeliest tokens that hold this probability.", gt=0, le=1, only=SAMPLING
    )
    top_k: int = param(50, "Sample from this many of the likeliest tokens; 0: from all.", ge=0, only=SAMPLING)
    num_beams: int = param(1, "Width of the beam search; 1 is none.", ge=1, only=ANSWERS)
    max_length: int = param(
        1024,
        "Most tokens of prompt and answer together.",
        ge=1,
        only={**ROLLOUTS, "generation.max_new_tokens": (0,)},
    )
    max_new_tokens: int = param(
        1024, "Most tokens of the answer; goes before max_length; 0 leaves it to that.", ge=0, only=ROLLOUTS
    )
    repetition_penalty: float = param(
        1.0, "Penalty on tokens already generated; 1 is none.", gt=0, only=ROLLOUTS
    )
    length_penalty: float = param(
        1.0, "Beam search: above 0 favours long answers, below 0 short ones.", only=ANSWERS
    )
    default_system: str | None = param(None, "System message of a dialogue that has none.")
    skip_special_tokens: bool = param(True, "Leave special tokens out of decoded text.", only=ROLLOUTS)
    eval_num_beams: int | None = param(
        None, "Width of the beam search at evaluation; null takes num_beams.", ge=1, only=ANSWERS
    )
