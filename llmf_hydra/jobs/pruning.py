"""The worker's side of pruning: a trial reports its metric while it trains, and ends where it is hopeless."""

from typing import TYPE_CHECKING

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from llmf_hydra.errors import Pruned
from llmf_hydra.runs import ranks
from llmf_hydra.sweeps.place import Place
from llmf_hydra.sweeps.storage import open_storage

if TYPE_CHECKING:
    import optuna


def callbacks(evaluates: bool) -> list[TrainerCallback]:
    """The callback of a trial that may be pruned; none for any other run. Of several processes one reports."""
    place = Place.taken()
    return [ReportAndPrune(place, evaluates)] if place is not None and ranks.is_main() else []


class ReportAndPrune(TrainerCallback):
    """Reports a metric whenever it is logged; raises Pruned where the study's pruner says so."""

    def __init__(self, place: Place, evaluates: bool):
        self._metric = place.metric or ("eval_loss" if evaluates else "loss")
        self._trial = _opened(place)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: object,
    ) -> None:
        value = (logs or {}).get(self._metric)
        if value is None:
            return
        step = state.global_step
        self._trial.report(value, step)
        if step < state.max_steps and self._trial.should_prune():
            raise Pruned(f"pruned at step {step} of {state.max_steps}: {self._metric} {value:.4f}")


def _opened(place: Place) -> "optuna.trial.Trial":
    import optuna

    from llmf_hydra.sweeps import (
        proposals,
    )  # here, since it brings Hydra, which no other worker has a use for

    study = optuna.load_study(
        study_name=place.study,
        storage=open_storage(place.storage),
        sampler=optuna.samplers.RandomSampler(),  # asked for nothing: the parameters are drawn already
        pruner=proposals.pruner(place.pruner),
    )
    return optuna.trial.Trial(study, place.trial_id)
