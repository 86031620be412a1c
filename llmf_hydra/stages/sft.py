"""`stage=sft`: supervised fine-tuning on the answers of dialogues."""

from llmf_hydra.stages.language import LanguageTrainer
from llmf_hydra.stages.language import build_trainer as build_language_trainer
from llmf_hydra.stages.parts import Parts


def build_trainer(parts: Parts) -> LanguageTrainer:
    """The trainer of the next token, on the tokens of the answers."""
    return build_language_trainer(parts)
