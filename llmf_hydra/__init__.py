"""llmf_hydra: a Hydra-configured experiment framework for fine-tuning language models."""

__version__ = "0.1.0"
