"""`stage=pt`: pre-training on plain text, packed unless `data.packing=false`."""

from llmf_hydra.training.context import Parts
from llmf_hydra.training.language import LanguageTrainer
from llmf_hydra.training.language import build_trainer as build_language_trainer


def build_trainer(parts: Parts) -> LanguageTrainer:
    """The trainer of the next token, on every token of the texts."""
    return build_language_trainer(parts)
