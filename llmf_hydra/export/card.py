"""The model card of an export, `README.md`, and its record, `export.json`: what was made of what, and by which run."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from huggingface_hub import ModelCardData

from llmf_hydra import __version__
from llmf_hydra.config import record
from llmf_hydra.config.groups.model import EMBEDDED
from llmf_hydra.config.names import names
from llmf_hydra.config.schema import Config
from llmf_hydra.config.secrets import masked_text, masked_tree
from llmf_hydra.runs import folder as runs

HUB_NAMES = {EMBEDDED: "HuggingFaceTB/SmolLM2-135M-Instruct"}
ON_HUB = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
PACKAGES = ("torch", "transformers", "peft", "trl", "datasets", "accelerate")
OF_RUN = ("version", "stage", "method", "model", "data", "command", "seeds", "digests", "objective")
# of a run's manifest; what tells of its machine and user stays there


@dataclass(frozen=True)
class Export:
    """What was exported."""

    model: str
    adapters: Sequence[str]
    dtype: str
    device: str
    scores: bool  # a reward model
    chats: bool  # its tokenizer has a chat template
    bits: int | None = None
    runs: Sequence[Mapping[str, Any]] = field(
        default_factory=tuple
    )  # excerpts of the manifests of those that trained it
    files: Mapping[str, str] = field(default_factory=dict)  # SHA-256 of each file

    def record(self) -> dict[str, object]:
        """As `export.json` holds it."""
        return masked_tree(
            {
                "llmf_hydra": __version__,
                "created": runs.now(),
                "model": self.model,
                "adapters": list(self.adapters),
                "dtype": self.dtype,
                "device": self.device,
                "quantization_bit": self.bits,
                "runs": list(self.runs),
                "files": dict(self.files),
            }
        )

    def card(self) -> str:
        """As `README.md` has it."""
        name = HUB_NAMES.get(self.model, self.model)
        merged = (
            f" with {len(self.adapters)} adapter{'s' if len(self.adapters) > 1 else ''} merged"
            if self.adapters
            else ""
        )
        lines = [
            "---", self._header(name), "---", "",
            f"# {name}{merged}", "",
            f"- Base model: `{name}`",
            *(f"- Merged adapter: `{adapter}`" for adapter in self.adapters),
            f"- Weights: {self.dtype}" + (f", quantized to {self.bits} bits by GPTQ" if self.bits else ""),
            f"- Exported with llmf_hydra {__version__}", "",
            *(line for run in self.runs for line in _of_run(run)),
            "## How to load it", "", "```python", *self._code(), "```", "",
        ]  # fmt: skip
        return masked_text("\n".join(lines))

    def _header(self, base: str) -> str:
        datasets = [name for run in self.runs for name in names(run.get("data")) if _on_hub(name)]
        header = ModelCardData(
            base_model=base if _on_hub(base) else None,
            library_name="transformers",
            pipeline_tag="text-classification" if self.scores else "text-generation",
            tags=[*dict.fromkeys(str(run["stage"]) for run in self.runs), "llmf_hydra"],
            datasets=list(dict.fromkeys(datasets)) or None,
            ignore_metadata_errors=True,
        )
        return header.to_yaml()

    def _code(self) -> list[str]:
        auto = "AutoModelForSequenceClassification" if self.scores else "AutoModelForCausalLM"
        head = [
            f"from transformers import {auto}, AutoTokenizer", "",
            'folder = "."  # this folder, or its name on a hub',
            "tokenizer = AutoTokenizer.from_pretrained(folder)",
            f'model = {auto}.from_pretrained(folder, dtype="auto")',
        ]  # fmt: skip
        if self.scores:
            return [*head, "print(model(**tokenizer('Salt water.', return_tensors='pt')).logits.item())"]
        asked = [
            'messages = [{"role": "user", "content": "What is the sea?"}]',
            "inputs = tokenizer.apply_chat_template(",
            '    messages, add_generation_prompt=True, return_tensors="pt", return_dict=True',
            ")",
        ]
        return [
            *head,
            *(asked if self.chats else ['inputs = tokenizer("The sea is", return_tensors="pt")']),
            "answer = model.generate(**inputs, max_new_tokens=64)[0, inputs['input_ids'].shape[1] :]",
            "print(tokenizer.decode(answer, skip_special_tokens=True))",
        ]


def runs_behind(cfg: Config) -> list[dict[str, Any]]:
    """Excerpts of the manifests of the runs that trained the model and its adapters, where they lie in the folders of
    their runs."""
    found: dict[Path, None] = {}
    for name in [*cfg.model.adapters, str(cfg.model.model_name_or_path)]:
        for folder in list(Path(name).expanduser().absolute().parents)[:2]:
            if (folder / runs.MANIFEST).is_file() and (folder / runs.CONFIG).is_file():
                found[folder] = None
    return [excerpt(folder) for folder in found]


def excerpt(run: Path) -> dict[str, Any]:
    """What others may know of a run: what it did with what, and to which result."""
    manifest = cast("Mapping[str, Any]", runs.read_manifest(run))
    packages = (manifest.get("machine") or {}).get("packages", {})
    told: dict[str, Any] = {key: manifest[key] for key in OF_RUN if manifest.get(key) is not None}
    told["commit"] = (manifest.get("git") or {}).get("commit")
    told["packages"] = {name: packages[name] for name in PACKAGES if name in packages}
    told["metrics"] = runs.metrics(run)
    told["settings"] = _settings(record.load(run / runs.CONFIG))
    return told


def _settings(cfg: Config) -> dict[str, Any]:
    training = cfg.training
    return {
        "training.learning_rate": training.learning_rate,
        "training.num_train_epochs": training.num_train_epochs,
        "training.max_steps": training.max_steps,
        "training.per_device_train_batch_size": training.per_device_train_batch_size,
        "training.gradient_accumulation_steps": training.gradient_accumulation_steps,
        "data.cutoff_len": cfg.data.cutoff_len,
    }


def _of_run(run: Mapping[str, Any]) -> Iterable[str]:
    yield from (f"## Trained by stage={run['stage']}", "", "| | |", "| --- | --- |")
    yield f"| command | `{' '.join(map(str, run.get('command', [])))}` |"
    for key in ("method", "data", "commit"):
        if run.get(key) is not None:
            yield f"| {key} | `{run[key]}` |"
    for group in ("settings", "seeds", "packages", "digests"):
        for name, value in (run.get(group) or {}).items():
            if value is not None:
                yield f"| {name} | `{value}` |"
    for name, value in (run.get("metrics") or {}).items():
        if isinstance(value, int | float):
            yield f"| `{name}` | {value:.4g} |"
    yield ""


def _on_hub(name: str) -> bool:
    return ON_HUB.fullmatch(name) is not None and not Path(name).exists()
