"""The model card: `final/README.md`, with the YAML header that a hub reads and code that loads the model."""

import re
from collections.abc import Iterable
from pathlib import Path

from huggingface_hub import ModelCardData

from llmf_hydra import __version__
from llmf_hydra.checks.residual import RESIDUAL
from llmf_hydra.config.choices import METHODS, STAGES
from llmf_hydra.config.groups.model import EMBEDDED
from llmf_hydra.config.names import names
from llmf_hydra.config.schema import Config, acts, changed, entries, value_at
from llmf_hydra.config.secrets import masked_text
from llmf_hydra.jobs.summary import Change
from llmf_hydra.runs.checkpoints import CARD

HUB_NAMES = {EMBEDDED: "HuggingFaceTB/SmolLM2-135M-Instruct"}
ON_HUB = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
SETTINGS = ("training.learning_rate", "training.lr_scheduler_type", "training.num_train_epochs", "training.max_steps",
            "training.per_device_train_batch_size", "training.gradient_accumulation_steps", "data.cutoff_len",
            "training.seed", "optimizer.name")  # fmt: skip
OF_ADAPTERS = {
    "lora": ("method.lora_rank", "method.lora_alpha", "method.lora_target"),
    "oft": ("method.oft_rank", "method.oft_block_size", "method.oft_target"),
}
IN_FULL = ("optimizer", "method", "quantization")  # groups of which all is shown that isn't the default
OF_PREFERENCES = ("rlhf.pref_loss", "rlhf.pref_beta")


def write(folder: Path, cfg: Config, steps: int, moved: Iterable[Change], *, chats: bool) -> None:
    """Write the card into the folder of the saved model, in place of any that a library left there.

    `chats` says whether its tokenizer has a chat template.
    """
    (folder / CARD).write_text(masked_text(card(cfg, steps, moved, chats=chats)), encoding="utf8")


def card(cfg: Config, steps: int, moved: Iterable[Change], *, chats: bool) -> str:
    """The whole text."""
    stage = STAGES[cfg.stage.name]
    lines = [
        "---", _header(cfg), "---", "",
        f"# {cfg.model.model_name_or_path}, {stage.help}, {cfg.method_label}", "",
        f"- Base model: `{cfg.model.model_name_or_path}`" + _after(cfg.merged_adapters),
        f"- Data: {', '.join(f'`{name}`' for name in names(cfg.data.dataset)) or 'none'}",
        f"- Stage: {cfg.stage.name}, {stage.help}",
        f"- Method: {cfg.method_label}, {METHODS[cfg.method.name].help}",
        f"- Trained for {steps} steps with llmf_hydra {__version__}", "",
        "## Settings", "", "| parameter | value |", "| --- | --- |",
        *(f"| `{key}` | {value} |" for key, value in _settings(cfg)), "",
        "## Metrics", "", "| metric | first | last |", "| --- | --- | --- |",
        *(f"| `{m.metric}` | {m.first:.4f} (step {m.first_step}) | {m.last:.4f} (step {m.last_step}) |" for m in moved),
        "", "## How to load it", "", "```python", *_code(cfg, chats), "```", "",
    ]  # fmt: skip
    return "\n".join(lines)


def _header(cfg: Config) -> str:
    adapters = METHODS[cfg.method.name].adapters
    base = HUB_NAMES.get(str(cfg.model.model_name_or_path), str(cfg.model.model_name_or_path))
    datasets = [name for name in names(cfg.data.dataset) if _on_hub(name)]
    header = ModelCardData(
        base_model=base if _on_hub(base) else None,
        library_name="peft" if adapters else "transformers",
        pipeline_tag="text-classification" if cfg.stage.scores else "text-generation",
        tags=[*([cfg.method.name] if adapters else []), cfg.stage.name, "llmf_hydra"],
        datasets=datasets or None,
        ignore_metadata_errors=True,
    )
    return header.to_yaml()


def _on_hub(name: str) -> bool:
    return ON_HUB.fullmatch(name) is not None and not Path(name).exists()


def _after(adapters: list[str]) -> str:
    return f" with the merged adapters {', '.join(f'`{name}`' for name in adapters)}" if adapters else ""


def _settings(cfg: Config) -> Iterable[tuple[str, object]]:
    adapters, preference = OF_ADAPTERS.get(cfg.method.name, ()), STAGES[cfg.stage.name].preference
    keys = [*SETTINGS, *adapters, *(OF_PREFERENCES if preference else ()), *_of_optimizer(cfg)]
    others = [key for group in IN_FULL for key in changed(cfg, group)]
    for key in dict.fromkeys([*keys, *others, *_of_vocabulary(cfg)]):
        value = cfg.method.alpha if key == "method.lora_alpha" else value_at(cfg, key)
        if not (key == "training.max_steps" and value < 0):  # no maximum
            yield key, value


def _of_optimizer(cfg: Config) -> Iterable[str]:
    """The settings that this optimizer alone has."""
    own = (entry for entry in entries().values() if entry.group == "optimizer" and not entry.is_choice)
    return [
        entry.key
        for entry in own
        if acts(cfg, entry) and entry.param.only.get("optimizer.name") == (cfg.optimizer.name,)
    ]


def _of_vocabulary(cfg: Config) -> Iterable[str]:
    return [key for key in ("model.new_special_tokens", "model.resize_vocab") if value_at(cfg, key)]


def _code(cfg: Config, chats: bool) -> list[str]:
    return [*_loading(cfg), *(_scoring() if cfg.stage.scores else _generating(chats))]


def _loading(cfg: Config) -> list[str]:
    auto = "AutoModelForSequenceClassification" if cfg.stage.scores else "AutoModelForCausalLM"
    more = ", num_labels=1" if cfg.stage.scores else ""
    head = [
        f"from transformers import {auto}, AutoTokenizer", "",
        'folder = "."  # this folder, or its name on a hub',
        "tokenizer = AutoTokenizer.from_pretrained(folder)",
    ]  # fmt: skip
    if not METHODS[cfg.method.name].adapters:
        return [*head, f"model = {auto}.from_pretrained(folder)"]
    return [
        "from peft import PeftConfig, PeftModel", *head,
        "base = PeftConfig.from_pretrained(folder).base_model_name_or_path",
        f"model = {auto}.from_pretrained(base{more})",
        *(["model.resize_token_embeddings(len(tokenizer))"] if cfg.model.resize_vocab else []),
        *(f"model = PeftModel.from_pretrained(model, {name!r}).merge_and_unload()" for name in cfg.merged_adapters),
        *_residual(cfg),
        "model = PeftModel.from_pretrained(model, folder)",
    ]  # fmt: skip


def _residual(cfg: Config) -> list[str]:
    if not cfg.leaves_residual:
        return []
    return [
        "# PiSSA has moved a part of the base into the adapter: this takes it out of the base",
        f'model = PeftModel.from_pretrained(model, folder, subfolder="{RESIDUAL}").merge_and_unload()',
    ]


def _generating(chats: bool) -> list[str]:
    asked = [
        'messages = [{"role": "user", "content": "What is the sea?"}]',
        "inputs = tokenizer.apply_chat_template(",
        '    messages, add_generation_prompt=True, return_tensors="pt", return_dict=True',
        ")",
    ]
    plain = ['inputs = tokenizer("The sea is", return_tensors="pt")']
    return [
        *(asked if chats else plain),
        "answer = model.generate(**inputs, max_new_tokens=64)[0, inputs['input_ids'].shape[1] :]",
        "print(tokenizer.decode(answer, skip_special_tokens=True))",
    ]


def _scoring() -> list[str]:
    return [
        "model.config.get_text_config().pad_token_id = tokenizer.pad_token_id",
        "text = tokenizer.apply_chat_template(",
        '    [{"role": "user", "content": "What is the sea?"}, {"role": "assistant", "content": "Salt water."}],',
        "    tokenize=False,",
        ")",
        "print(model(**tokenizer(text, return_tensors='pt')).logits.item())",
    ]
