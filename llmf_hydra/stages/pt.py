"""`stage=pt`: pre-training on plain text, packed unless `data.packing=false`."""

from llmf_hydra.stages.language import LanguageTrainer
from llmf_hydra.stages.language import build_trainer as build_language_trainer
from llmf_hydra.stages.parts import Parts


def build_trainer(parts: Parts) -> LanguageTrainer:
    """The trainer of the next token, on every token of the texts."""
    return build_language_trainer(parts)
