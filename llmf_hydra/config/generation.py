"""Group `generation`: how text is generated (spec table generating, and eval_num_beams)."""

from dataclasses import dataclass

from llmf_hydra.config.param import param


@dataclass
class Generation:
    do_sample: bool = param(True, "Sample; false takes the likeliest token.", planned=True)
    temperature: float = param(0.95, "Randomness: higher is more random.", gt=0, planned=True)
    top_p: float = param(0.7, "Sample from the likeliest tokens that hold this probability.", gt=0, le=1, planned=True)
    top_k: int = param(50, "Sample from this many of the likeliest tokens.", ge=0, planned=True)
    num_beams: int = param(1, "Width of the beam search; 1 is none.", ge=1, planned=True)
    max_length: int = param(1024, "Most tokens of prompt and answer together.", ge=1, planned=True)
    max_new_tokens: int = param(1024, "Most tokens of the answer; goes before max_length.", ge=1, planned=True)
    repetition_penalty: float = param(1.0, "Penalty on tokens already generated; 1 is none.", gt=0, planned=True)
    length_penalty: float = param(1.0, "Beam search: above 0 favours long answers, below 0 short ones.", planned=True)
    default_system: str | None = param(None, "System message of a dialogue that has none.")
    skip_special_tokens: bool = param(True, "Leave special tokens out of decoded text.", planned=True)
    eval_num_beams: int | None = param(None, "Width of the beam search at evaluation.", ge=1, planned=True)
