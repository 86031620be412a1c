"""Rules of the group `data` that need no look at any file."""

from collections.abc import Iterator

from llmf_hydra.checks.register import rule
from llmf_hydra.config.choices import LEARNING_JOBS, STAGES
from llmf_hydra.config.names import names
from llmf_hydra.config.schema import Config, value_at
from llmf_hydra.errors import Problem


@rule("data.dataset", "data.tokenized_path")
def a_dataset_is_named(cfg: Config) -> Iterator[Problem]:
    """Every training needs data."""
    if not cfg.data.dataset and not cfg.data.tokenized_path:
        yield Problem(
            "data.dataset",
            None,
            "no training data is named",
            "set data.dataset to a row of dataset_info.json, a file or a hub name",
        )


@rule("data.eval_dataset", "data.val_size")
def one_source_of_evaluation(cfg: Config) -> Iterator[Problem]:
    """Rows to evaluate on come from data.eval_dataset or from data.val_size, not from both."""
    if cfg.data.eval_dataset and cfg.data.val_size > 0:
        yield Problem(
            "data.val_size",
            cfg.data.val_size,
            f"contradicts data.eval_dataset={cfg.data.eval_dataset}",
            "give one of them",
        )


@rule("data.dataset", "data.eval_dataset", "data.interleave_probs")
def each_dataset_is_named_once(cfg: Config) -> Iterator[Problem]:
    """A dataset is named once; data.interleave_probs gives it more weight."""
    for key in ("data.dataset", "data.eval_dataset"):
        named = names(value_at(cfg, key))
        twice = next((name for name in named if named.count(name) > 1), None)
        if twice is not None:
            remedy = "name it once"
            if key == "data.dataset":
                remedy += "; to weight it, set data.mix_strategy=interleave_over and data.interleave_probs"
            yield Problem(key, value_at(cfg, key), f"names {twice} twice", remedy)


@rule("data.val_size")
def held_out_share(cfg: Config) -> Iterator[Problem]:
    """data.val_size is a share below 1, or a whole number of rows; of a stream only a number is known."""
    size = cfg.data.val_size
    if size > 1 and size != int(size):
        yield Problem("data.val_size", size, "must be a share below 1 or a whole number of rows")
    if cfg.data.streaming and 0 < size < 1:
        what = "is a share, and with data.streaming=true the number of rows is not known"
        yield Problem("data.val_size", size, what, "give a number of rows")


@rule("data.val_size", "data.max_samples")
def held_out_leaves_rows(cfg: Config) -> Iterator[Problem]:
    """Rows held out must leave rows to train on."""
    data = cfg.data
    if data.max_samples is not None and data.val_size >= 1 and data.val_size >= data.max_samples:
        yield Problem(
            "data.val_size",
            f"{data.val_size:g}",
            f"leaves nothing to train on of data.max_samples={data.max_samples}",
            "hold out fewer rows",
        )


@rule("data.streaming", "training.max_steps", jobs=LEARNING_JOBS)
def a_stream_has_no_epochs(cfg: Config) -> Iterator[Problem]:
    """Streamed data has no known end: training.max_steps says how long to train."""
    if cfg.data.streaming and cfg.training.max_steps < 1:
        yield Problem(
            "data.streaming",
            True,
            f"has no known end, and training.max_steps={cfg.training.max_steps}",
            "set training.max_steps",
        )


@rule("data.streaming", "launch.nproc_per_node", jobs=LEARNING_JOBS)
def a_stream_has_one_reader(cfg: Config) -> Iterator[Problem]:
    """Rows that are read while training go to one process."""
    if cfg.data.streaming and cfg.launch.nproc_per_node > 1:
        yield Problem("data.streaming", True,
                      f"feeds one process, and launch.nproc_per_node={cfg.launch.nproc_per_node}",
                      "set data.streaming=false: the rows are then read from a file, not kept in memory")  # fmt: skip


@rule("data.streaming")
def prompts_are_at_hand(cfg: Config) -> Iterator[Problem]:
    """Online training draws its prompts by their number, so they cannot be read while it trains."""
    if cfg.stage.info.rollouts and cfg.data.streaming:
        what = f"stage={cfg.stage.name} draws its prompts by their number, which a stream has not"
        yield Problem("data.streaming", True, what, "leave it out")


@rule("data.mask_history", "data.train_on_prompt")
def history_or_prompt(cfg: Config) -> Iterator[Problem]:
    """data.mask_history leaves earlier turns out of the loss, data.train_on_prompt trains on them: not both."""
    if cfg.data.train_on_prompt and cfg.data.mask_history:
        what = "contradicts data.train_on_prompt=true: one leaves history out, the other trains on it"
        yield Problem("data.mask_history", True, what, "choose one")


@rule("data.packing", "data.neat_packing", "stage.name")
def only_sequences_are_packed(cfg: Config) -> Iterator[Problem]:
    """Rows are packed in the stages pt and sft; data.neat_packing contradicts data.packing=false."""
    data = cfg.data
    if data.neat_packing and data.packing is False:
        yield Problem("data.neat_packing", True, "contradicts data.packing=false", "leave data.packing out")
    if (data.packing or data.neat_packing) and not cfg.stage.info.packs:
        key = "data.packing" if data.packing else "data.neat_packing"
        stages = " and ".join(f"stage={name}" for name, info in STAGES.items() if info.packs)
        yield Problem(key, True, f"only texts and dialogues can be packed ({stages})", "leave it out")


@rule("data.interleave_probs", "data.dataset")
def shares_fit_the_datasets(cfg: Config) -> Iterator[Problem]:
    """data.interleave_probs holds one positive share per dataset, and they add up to 1."""
    data = cfg.data
    if data.interleave_probs is None:
        return
    try:
        given = data.shares
    except ValueError:
        yield Problem("data.interleave_probs", data.interleave_probs, "is not a list of numbers",
                      "write one share for each dataset, such as 0.7,0.3")  # fmt: skip
        return
    count = len(names(data.dataset))
    if len(given) != count:
        yield Problem("data.interleave_probs", data.interleave_probs, f"has {len(given)} shares for {count} datasets",
                      "give one for each dataset")  # fmt: skip
    elif min(given) <= 0 or abs(sum(given) - 1) > 1e-6:
        yield Problem("data.interleave_probs", data.interleave_probs, f"adds up to {sum(given):g}",
                      "give positive shares that add up to 1")  # fmt: skip
