"""What our trainers rely on in Transformers beyond its documented interface: private names, and methods they replace.

A version that lacks one of them would fail in the middle of a run or, worse, quietly stop calling ours.
"""

import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import transformers
from transformers import Trainer

from llmf_hydra.config.choices import STAGES
from llmf_hydra.paths import PACKAGE
from llmf_hydra.training.resumable import ResumableTrainer
from llmf_hydra.training.rl.groups.trainer import GroupTrainer

METHODS = {  # called or replaced by ours -> parameters in their order
    "_get_eval_sampler": "eval_dataset",
    "_get_grad_norm": "model grad_norm",
    "_get_output_dir": "trial",
    "_load_best_model": "",
    "_load_from_checkpoint": "resume_from_checkpoint model",
    "_load_rng_state": "checkpoint",
    "_maybe_log_save_evaluate": "tr_loss grad_norm model trial epoch ignore_keys_for_eval start_time learning_rate",
    "_prepare_inputs": "inputs",
    "_run_epoch": "model epoch train_dataloader steps_in_epoch num_update_steps_per_epoch trial ignore_keys_for_eval "
    "start_time resume_from_checkpoint epochs_trained steps_trained_in_current_epoch",
    "_save": "output_dir state_dict",
    "_save_checkpoint": "model trial",
    "_save_rng_state": "output_dir",
    "compute_loss": "model inputs return_outputs num_items_in_batch",
    "create_optimizer": "model",
    "evaluate": "eval_dataset ignore_keys metric_key_prefix",
    "evaluation_loop": "dataloader description prediction_loss_only ignore_keys metric_key_prefix",
    "get_batch_samples": "epoch_iterator num_batches device",
    "get_eval_dataloader": "eval_dataset",
    "get_train_dataloader": "",
    "log": "logs start_time",
    "prediction_step": "model inputs prediction_loss_only ignore_keys",
    "save_model": "output_dir _internal_call",
    "train": "resume_from_checkpoint trial ignore_keys_for_eval",
    "training_step": "model inputs num_items_in_batch",
}
CALLED = (
    "_get_grad_norm",
    "_load_rng_state",
    "_run_epoch",
    "_save",
    "_save_checkpoint",
    "_load_best_model",
    "_load_from_checkpoint",
    "get_batch_samples",
)  # by its loop
ATTRIBUTES = ("_globalstep_last_logged", "_initial_global_step", "_total_loss_scalar", "_tr_loss",
              "loss_is_scaled_for_ga")  # fmt: skip


def problems(trainer: type) -> Iterator[str]:
    """A sentence for each thing that a class of trainers lacks or has in another form."""
    where, source = f"transformers {transformers.__version__}: Trainer", inspect.getsource(trainer)
    for name, expected in METHODS.items():
        method = getattr(trainer, name, None)
        if method is None:
            yield f"{where}.{name} is gone, and llmf_hydra relies on it"
            continue
        found = [each for each in inspect.signature(method).parameters if each != "self"]
        if found != expected.split():
            yield f"{where}.{name} takes ({', '.join(found)}), and llmf_hydra expects ({expected.replace(' ', ', ')})"
        elif name in CALLED and f"self.{name}(" not in source:
            yield f"{where}.{name} isn't called any more, and llmf_hydra acts in it"
    for name in ATTRIBUTES:
        if not re.search(rf"self\.{name}\b", source):
            yield f"{where}.{name} isn't used any more, and llmf_hydra relies on it"


def our_trainers() -> Iterator[type]:
    """The trainers of all stages and their bases, but those that are TRL's: tests/training/rl/test_trl_contract.py."""
    for stage in STAGES:
        import_module(f"llmf_hydra.stages.{stage}")
    waiting: list[type] = [ResumableTrainer]
    while waiting:
        waiting += waiting[0].__subclasses__()
        if not issubclass(waiting[0], GroupTrainer):
            yield waiting[0]
        del waiting[0]


def test_the_installed_transformers_has_what_our_trainers_rely_on() -> None:
    assert list(problems(Trainer)) == []


def test_a_name_that_is_gone_and_another_signature_are_told() -> None:
    class Other:
        def _save(self, folder: str) -> None: ...

        def evaluate(
            self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = ""
        ) -> None:
            self._tr_loss = 0

    told = "\n".join(problems(Other))
    assert "Trainer._get_grad_norm is gone" in told and "Trainer._tr_loss" not in told
    assert "Trainer._save takes (folder), and llmf_hydra expects (output_dir, state_dict)" in told
    assert "Trainer._total_loss_scalar isn't used any more" in told and "Trainer.evaluate" not in told


def test_the_list_is_whole() -> None:
    """Whatever ours replaces, and each private name of Transformers' that stands in our sources."""
    replaced = {
        name for ours in our_trainers() for name, value in vars(ours).items()
        if callable(value) and name in vars(Trainer) and not name.startswith("__")
    }  # fmt: skip
    private = {name for name in vars(Trainer) if re.match("_[a-z]", name)}
    private |= set(re.findall(r"self\.(_[a-z]\w*)", inspect.getsource(Trainer)))
    sources = {*PACKAGE.glob("training/**/*.py"), *PACKAGE.glob("stages/*.py")}
    sources -= set(PACKAGE.glob("training/rl/groups/*.py"))
    used = {
        name for file in sources for name in re.findall(r"\._[a-z]\w*|def _[a-z]\w*", file.read_text("utf8"))
    }
    ours = {re.sub(r"^(\.|def )", "", name) for name in used}
    assert replaced | (ours & private) == {*METHODS, *ATTRIBUTES} - {"loss_is_scaled_for_ga"}
