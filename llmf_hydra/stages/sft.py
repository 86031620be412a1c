"""`stage=sft`: supervised fine-tuning on the answers of dialogues.

The loss is the mean over trained tokens of -log p(token | what stands before it).
"""

from trl import SFTConfig, SFTTrainer

from llmf_hydra.stages.parts import Parts, shared_arguments


def build_trainer(parts: Parts) -> SFTTrainer:
    """TRL's trainer on rows of `input_ids` and `labels` (-100: not trained)."""
    arguments = SFTConfig(
        **shared_arguments(parts),
        max_length=None,  # the data engine has cut the rows already
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    return SFTTrainer(
        model=parts.model,
        args=arguments,
        train_dataset=parts.train,
        eval_dataset=parts.eval,
        processing_class=parts.tokenizer,
        callbacks=parts.callbacks,
    )
