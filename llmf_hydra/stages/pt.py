"""`stage=pt`: pre-training on plain text, packed unless `data.packing=false`."""

from llmf_hydra.training.context import RunContext
from llmf_hydra.training.language import LanguageTrainer


def build_trainer(context: RunContext) -> LanguageTrainer:
    """The trainer of the next token, on every token of the texts."""
    return LanguageTrainer(context)
