"""`job=train`: one training run, from its config to the saved model."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean
from typing import Any

from transformers import TrainerState

from llmf_hydra.config.schema import Config, entries, value_at
from llmf_hydra.config.secrets import masked_tree
from llmf_hydra.errors import Refused
from llmf_hydra.jobs import assemble, model_card, pruning
from llmf_hydra.jobs.digests import Digests, digests_of_inputs, digests_of_weights, files_of, in_background
from llmf_hydra.jobs.summary import Change, changes, closing
from llmf_hydra.models.digests import starting_weights
from llmf_hydra.models.inspect import print_parameters
from llmf_hydra.runs import folder as runs
from llmf_hydra.runs import manifest, ranks, sources, trained_with
from llmf_hydra.runs import signals as interrupt
from llmf_hydra.runs.checkpoints import FINAL, choose, tidy_final
from llmf_hydra.runs.folder import Objective
from llmf_hydra.stages.protocol import load_stage
from llmf_hydra.tracking.callback import watch
from llmf_hydra.tracking.contract import Dataset, FinalModel, RunInfo
from llmf_hydra.tracking.files import LOG
from llmf_hydra.tracking.open import open_trackers
from llmf_hydra.tracking.plots import draw
from llmf_hydra.training.callbacks import FirstStep
from llmf_hydra.training.determinism import arithmetic, deterministic, use_threads
from llmf_hydra.training.state import logged_before
from llmf_hydra.training.trainer import SteppingTrainer

log = logging.getLogger(__name__)


def run(cfg: Config, out: Path, *, resume: bool) -> None:
    """Train and save. What can be refused is refused before the weights are loaded."""
    use_threads()
    with deterministic(cfg.training.deterministic):
        _run(cfg, out, resume=resume)


def _run(cfg: Config, out: Path, *, resume: bool) -> None:
    stage = load_stage(cfg.stage.name)
    start = _checkpoint(cfg, out, resume)
    if start is not None and (problem := trained_with.weights_problem(start, starting_weights(cfg))):
        raise Refused([problem])
    inputs = assemble.load_inputs(cfg)
    if start is not None and (problem := trained_with.data_problem(start, inputs.rows.report.digest)):
        raise Refused([problem])
    weights = in_background(lambda: starting_weights(cfg))
    if ranks.is_main():
        inputs.rows.write(out)
    log.info("%s", "\n".join(inputs.lines()))
    model = assemble.load_policy(cfg, inputs.precision, inputs.tokenizer)
    if merged := cfg.merged_adapters:
        log.info(
            "final/ will hold the trained adapter alone; to use it, give %s before it", ", ".join(merged)
        )
    if cfg.model.print_param_status and ranks.is_main():
        print_parameters(model)
    info = _run_info(cfg, out, inputs, logged_before(start) if resume else None)
    with (
        _manifest(cfg, inputs, out),
        open_trackers(cfg.tracking, info, main_process=ranks.is_main()) as trackers,
    ):
        first = FirstStep()
        trainer = stage.build_trainer(assemble.run_context(cfg, inputs, model, [first], out, weights.result))
        watch(trainer, trackers, vram=cfg.tracking.record_vram, table=trainer.newest_table)
        for callback in pruning.callbacks(cfg.training.eval_strategy != "no"):
            trainer.add_callback(callback)  # after the trackers, which so have what it was judged by
        with interrupt.stoppable():
            result = trainer.train(resume_from_checkpoint=start and str(start))
        trainer.save_final()
        facts = trainer.facts()
        if not ranks.is_main():
            return
        inputs.rows.write(out)  # once more: of a stream it is known only now what was read
        summary = _summary(trainer, result.metrics)
        runs.update_manifest(out, **facts)
        _note_end(cfg, out, summary, first)
        trackers.summarize(summary)
        trackers.attach(out / runs.CONFIG)
        if cfg.training.plot_loss:
            trackers.attach(*draw(out / LOG, out))
        moved = _changes(trainer.state)
        chats = bool(inputs.tokenizer.chat_template)
        model_card.write(out / FINAL, cfg, trainer.state.global_step, moved, chats=chats)
        tidy_final(out)
        if cfg.tracking.log_model:
            trackers.log_model(_final_model(out / FINAL))
    log.info("%s", "\n".join(closing(cfg, out, runs.read_manifest(out)["command"], moved)))


@contextmanager
def _manifest(cfg: Config, inputs: assemble.Inputs, out: Path) -> Iterator[None]:
    """Write what is known of the run; the digests of its weights, which no other process waits for, come at the end."""
    if not ranks.is_main():
        yield
        return
    known = digests_of_inputs(inputs)
    estimate = inputs.estimate.as_dict()
    machine = {**manifest.machine(), **arithmetic()}
    runs.update_manifest(
        out,
        machine=machine,
        sources=sources.digests(),
        digests=known,
        estimate=estimate,
        tokenized=_tokenized(cfg, inputs),
    )
    of_files = in_background(lambda: (digests_of_weights(cfg), files_of(cfg)))
    try:
        yield
    except BaseException:
        with suppress(OSError):  # the cause may be a full disk, and is what the user must read
            _note_digests(out, known, of_files.result())
        raise
    _note_digests(out, known, of_files.result())


def _note_digests(out: Path, known: Digests, computed: tuple[Digests, dict[str, object]]) -> None:
    weights, files = computed
    runs.update_manifest(out, digests={**known, **weights}, files=files)


def _tokenized(cfg: Config, inputs: assemble.Inputs) -> dict[str, str]:
    """Of each dataset, whether this run tokenized it or an earlier one had; nothing of a stream."""
    if cfg.data.streaming:
        return {}
    sources = inputs.rows.report.sources
    return {source.name: "kept from an earlier run" if source.found else "by this run" for source in sources}


def _changes(state: TrainerState) -> list[Change]:
    """What the metrics were at the beginning and at the end."""
    return changes(
        [
            {key: value for key, value in line.items() if isinstance(value, int | float)}
            for line in state.log_history
        ]
    )


def _final_model(folder: Path) -> FinalModel:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    digests = {file.relative_to(folder).as_posix(): manifest.digest_of_file(file) for file in files}
    return FinalModel(folder, digests)


def _checkpoint(cfg: Config, out: Path, resume: bool) -> Path | None:
    """The checkpoint to start from: the run's own last one when it is resumed, else the one the config names."""
    if resume:
        return choose(out).checkpoint
    named = cfg.training.resume_from_checkpoint
    return None if named is None else Path(named)


def _summary(trainer: SteppingTrainer, trained: dict[str, float]) -> dict[str, float]:
    """The last value of each metric of the log, and what the training took."""
    last: dict[str, float] = {}
    for line in trainer.state.log_history:
        last |= {key: value for key, value in line.items() if isinstance(value, int | float)}
    last.pop("step", None)  # of the last line, no metric
    return {**last, **trained}


def _note_end(cfg: Config, out: Path, summary: dict[str, float], first: FirstStep) -> None:
    tracking = cfg.tracking
    objective = _objective(tracking.objective, summary)
    if objective is None:
        logged = ", ".join(sorted(summary))
        print(f"warning: tracking.objective={tracking.objective} was never logged; logged are {logged}")
    first_step = (
        datetime.fromtimestamp(first.at, UTC).isoformat(timespec="milliseconds") if first.at else None
    )
    runs.update_manifest(out, objective=objective, direction=tracking.direction, first_step=first_step)


def _objective(name: str | None, summary: dict[str, float]) -> Objective | None:
    """What runs are compared by: the metric that is named, else the loss on held-out rows, else that of training.

    Of datasets that are evaluated apart it is the mean of their losses.
    """
    if name is not None:
        return {"name": name, "value": summary[name]} if name in summary else None
    losses = [value for key, value in summary.items() if key.startswith("eval_") and key.endswith("_loss")]
    if losses:
        return {"name": "eval_loss", "value": mean(losses)}
    return {"name": "train_loss", "value": summary["train_loss"]} if "train_loss" in summary else None


def _run_info(
    cfg: Config, out: Path, inputs: assemble.Inputs, logged: tuple[dict[str, Any], ...] | None
) -> RunInfo:
    known = runs.read_manifest(out)
    shown = {key: value_at(cfg, key) for key, entry in entries().items() if not entry.param.secret}
    sweep = known["sweep"]
    tags = {key: str(known[key]) for key in ("stage", "method", "model", "data")}
    return RunInfo(
        out=out,
        outputs=Path(known["cwd"]) / "outputs",
        params=masked_tree(shown),
        tags=tags | ({"sweep": sweep["name"]} if sweep else {}),
        git={key: str(value) for key, value in (known["git"] or {}).items() if key in ("commit", "branch")},
        sweep=sweep["name"] if sweep else None,
        sweep_folder=Path(sweep["dir"]) if sweep else None,
        study=sweep.get("study") if sweep else None,
        varied=tuple(sweep.get("varied", ())) if sweep else (),
        datasets=[Dataset(source.name, source.digest, source.use) for source in inputs.rows.report.sources],
        logged=logged,
    )
