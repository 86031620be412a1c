"""What stage=grpo relies on in TRL's trainers beyond their documented interface."""

import inspect
import re
from itertools import chain

import pytest
import trl
from trl import GRPOTrainer, RLOOTrainer

from llmf_hydra.training.layout.largest_batch import TILE
from llmf_hydra.training.rl.groups.trainer import GroupTrainer

METHODS = {  # replaced by ours -> parameters in their order
    "_calculate_rewards": "inputs prompts completions completion_ids_list",
    "_generate_and_score_completions": "inputs",
    "_get_train_sampler": "dataset",
    "_send_telemetry": "",
    "_tokenize_prompts": "prompts",
    "compute_loss": "model inputs return_outputs num_items_in_batch",
    "create_model_card": "model_name dataset_name tags",
    "evaluate": "eval_dataset ignore_keys metric_key_prefix",
    "log": "logs start_time",
    "training_step": "model inputs num_items_in_batch",
}
CALLED = ("_calculate_rewards", "_generate_and_score_completions", "_send_telemetry", "_tokenize_prompts")
ATTRIBUTES = ("_buffered_inputs", "_metrics", "_step", "eos_token_ids", "generation_config", "generation_kwargs",
              "num_iterations", "ref_model", "reward_func_names", "reward_weights", "temperature")  # fmt: skip


@pytest.mark.parametrize("trainer", [GRPOTrainer, RLOOTrainer])
def test_the_installed_trl_has_what_ours_relies_on(trainer: type) -> None:
    where = f"trl {trl.__version__}: {trainer.__name__}"
    of_trl = [base for base in trainer.__mro__ if base.__module__.startswith("trl.")]
    source = "".join(map(inspect.getsource, of_trl))
    for name, expected in METHODS.items():
        method = getattr(trainer, name, None)
        assert method is not None, f"{where}.{name} is gone"
        found = [each for each in inspect.signature(method).parameters if each != "self"]
        assert found == expected.split(), f"{where}.{name} takes other arguments"
    for name in CALLED:
        assert f"self.{name}(" in source, f"{where}.{name} isn't called any more"
    for name in ATTRIBUTES:
        assert re.search(rf"self\.{name}\b", source), f"{where}.{name} isn't used any more"


def test_the_list_is_whole() -> None:
    """Whatever ours replaces of TRL's."""
    theirs = set(chain.from_iterable(map(vars, (*GRPOTrainer.__mro__, *RLOOTrainer.__mro__))))
    replaced = {
        name for name, value in vars(GroupTrainer).items()
        if callable(value) and name in theirs and not name.startswith("__")
    }  # fmt: skip
    assert replaced == set(METHODS)


def test_the_tiles_of_the_head_are_those_that_memory_is_estimated_by() -> None:
    from trl.kernels import chunked_logprob
    from trl.trainer import utils

    assert (chunked_logprob.TOKEN_CHUNK_SIZE, utils._CHUNKED_LOGPROB_CHUNK_SIZE) == TILE
