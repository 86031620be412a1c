"""What samplers propose: inside the space, on its scale, the same for a seed, whatever was killed in between."""

from collections.abc import Callable, Sequence
from pathlib import Path

import optuna
import pytest
from hydra.core.config_loader import ConfigLoader

from llmf_hydra.config import compose
from llmf_hydra.errors import Refused
from llmf_hydra.sweeps import plan, proposals, space
from llmf_hydra.sweeps.settings import SweeperSettings
from llmf_hydra.sweeps.space import Interval, Space
from llmf_hydra.sweeps.study import Study

WORDS = ["rlhf.pref_beta=tag(log,interval(0.001,1.0))", "method.lora_rank=int(interval(4,64))",
         "stage=sft,dpo", "training.warmup_ratio=interval(0,0.5)", "model=tiny"]  # fmt: skip
OBJECTIVES = (("loss", "minimize"),)


@pytest.fixture(scope="module")
def loader() -> ConfigLoader:
    return compose.CommandLine([]).loader


@pytest.fixture(scope="module")
def wide(loader: ConfigLoader) -> Space:
    return space.read(WORDS, loader, 1)


def opened(folder: Path, name: str, wide: Space, settings: SweeperSettings) -> Study:
    """The study of a journal in this folder."""
    planned = plan.of(settings, wide, OBJECTIVES, {})
    return Study.open(f"journal:{folder}/{name}", name, settings, wide, OBJECTIVES, planned)


def proposed(
    folder: Path,
    name: str,
    wide: Space,
    settings: SweeperSettings,
    value: Callable[[dict[str, object]], float],
) -> list[dict[str, object]]:
    """The parameters of all trials of a study that is told these values."""
    study = Study.open(
        f"journal:{folder}/{name}", name, settings, wide, OBJECTIVES, plan.of(settings, wide, OBJECTIVES, {})
    )
    found = []
    while (claim := study.claim(settings, wide)) is not None:
        found.append(claim.params)
        study.end(claim, "done", values=[value(claim.params)])
    return found


def distance(params: dict[str, object]) -> float:
    """Best where beta is 0.5 and the rank is 32."""
    return (
        abs(float(str(params["rlhf.pref_beta"])) - 0.5) + abs(int(str(params["method.lora_rank"])) - 32) / 64
    )


@pytest.mark.parametrize("sampler", ["random", "qmc", "tpe", "cmaes"])
def test_a_sampler_stays_inside_and_repeats_itself(sampler: str, wide: Space, tmp_path: Path) -> None:
    settings = SweeperSettings(sampler=sampler, n_trials=24, seed=3)
    found = proposed(tmp_path, "one", wide, settings, distance)
    assert found == proposed(tmp_path, "same", wide, settings, distance)
    assert found != proposed(
        tmp_path, "other", wide, SweeperSettings(sampler=sampler, n_trials=24, seed=4), distance
    )
    assert len(found) == 24 == len({str(params) for params in found})
    ranks, betas = [p["method.lora_rank"] for p in found], [p["rlhf.pref_beta"] for p in found]
    assert all(isinstance(rank, int) and 4 <= rank <= 64 for rank in ranks)
    assert all(isinstance(beta, float) and 0.001 <= beta <= 1.0 for beta in betas)
    assert {params["stage"] for params in found} == {"sft", "dpo"}
    if sampler in ("random", "qmc"):  # half of a logarithmic scale lies below its middle, at 0.03
        assert 7 <= sum(isinstance(beta, float) and beta < 0.0316 for beta in betas) <= 17


def test_a_killed_study_proposes_what_an_undisturbed_one_would(wide: Space, tmp_path: Path) -> None:
    settings = SweeperSettings(sampler="tpe", n_trials=16, seed=3)
    undisturbed = proposed(tmp_path, "one", wide, settings, distance)
    asked = Study.open(
        f"journal:{tmp_path}/two", "two", settings, wide, OBJECTIVES, plan.of(settings, wide, OBJECTIVES, {})
    )
    for _ in range(7):
        claim = asked.claim(settings, wide)
        assert claim is not None
        asked.end(claim, "done", values=[distance(claim.params)])
    lost = asked.claim(settings, wide)  # and its launcher is killed
    assert lost is not None
    asked.note(lost, owner=None)
    again = proposed(tmp_path, "two", wide, settings, distance)
    assert again[0] == lost.params and again == undisturbed[7:]


def test_tpe_learns_from_what_it_was_told(wide: Space, tmp_path: Path) -> None:
    learned = proposed(tmp_path, "tpe", wide, SweeperSettings(sampler="tpe", n_trials=60), distance)
    drawn = proposed(tmp_path, "random", wide, SweeperSettings(sampler="random", n_trials=60), distance)
    assert min(map(distance, learned)) < min(map(distance, drawn))
    assert sum(map(distance, learned[30:])) < 0.8 * sum(map(distance, drawn[30:]))


def test_words_of_a_trial_give_its_values_back_exactly(
    wide: Space, loader: ConfigLoader, tmp_path: Path
) -> None:
    (params,) = proposed(tmp_path, "one", wide, SweeperSettings(sampler="random", n_trials=1), distance)
    composed = compose.composed(wide.words(params))  # type: ignore[arg-type]
    assert composed.rlhf.pref_beta == params["rlhf.pref_beta"]
    assert composed.method.lora_rank == params["method.lora_rank"] and composed.stage.name == params["stage"]


def test_a_study_that_is_gone_on_with_keeps_its_plan(wide: Space, tmp_path: Path) -> None:
    opened(tmp_path, "one", wide, SweeperSettings(sampler="random", n_trials=4))
    for other in (
        SweeperSettings(sampler="random", n_trials=4, seed=7),
        SweeperSettings(sampler="random", n_trials=5),
        SweeperSettings(sampler="random", n_trials=4, pruner="median"),
        SweeperSettings(sampler="random", n_trials=4, constraints=["loss <= 1"]),
    ):
        with pytest.raises(Refused) as refused:
            opened(tmp_path, "one", wide, other)
        assert "holds the study one already" in str(refused.value)


def test_a_shuffled_grid_has_one_order_for_a_seed(loader: ConfigLoader) -> None:
    word = ["training.seed=shuffle(range(0,20))"]
    orders = [
        [p["training.seed"] for p in space.read(word, loader, seed).combinations()] for seed in (1, 1, 2)
    ]
    assert orders[0] == orders[1] != orders[2] and sorted(map(int, map(str, orders[0]))) == list(range(20))


@pytest.mark.parametrize(
    ("word", "said"),
    [("training.seed=range(0,20000)", "more than 10000"), ("rlhf.pref_beta=tag(log,interval(0,1))", "above 0"),
     ("rlhf.pref_beta=tag(lg,interval(0.1,1))", "has no meaning")],
)  # fmt: skip
def test_an_impossible_space_is_refused(word: str, said: str, loader: ConfigLoader) -> None:
    with pytest.raises(Refused) as refused:
        space.read([word], loader, 1)
    assert said in str(refused.value)


PRUNERS = {
    "median": {"pruner_startup_trials": 1},
    "percentile": {"pruner_startup_trials": 1, "pruner_percentile": 50.0},
    "patience": {"pruner_patience": 2},
    "asha": {"pruner_reduction_factor": 2},
}


def pruned_by(settings: SweeperSettings, slopes: Sequence[float]) -> list[int]:
    """The trials that a pruner ends, of which each reports 16 values on a line of this slope."""
    study = optuna.create_study(
        pruner=proposals.pruner(settings), sampler=optuna.samplers.RandomSampler(1), study_name="pruned"
    )
    pruned = []
    for number, slope in enumerate(slopes):
        trial = study.ask()
        for step in range(1, 17):
            trial.report(4 + slope * step, step)
            if trial.should_prune():
                pruned.append(number)
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                break
        else:
            study.tell(trial, 4 + slope * 16)
    return pruned


@pytest.mark.parametrize("name", PRUNERS)
def test_a_pruner_ends_the_trial_that_gets_worse_and_no_other(name: str) -> None:
    settings = SweeperSettings(pruner=name, **PRUNERS[name])  # type: ignore[arg-type]
    assert pruned_by(settings, [-0.1, -0.11, 0.2, -0.12, 0.3]) == [2, 4]


def test_hyperband_ends_bad_trials_alone() -> None:
    settings = SweeperSettings(pruner="hyperband", pruner_reduction_factor=2)
    slopes = [0.2 if number % 2 else -0.1 - number / 1000 for number in range(40)]  # its brackets fill slowly
    pruned = pruned_by(settings, slopes)
    assert len(pruned) > 5 and all(number % 2 for number in pruned)


def test_no_pruner_ends_nothing() -> None:
    study = optuna.create_study(pruner=proposals.pruner(SweeperSettings()))
    trial = study.ask()
    trial.report(float("inf"), 1)
    assert not trial.should_prune()


def test_an_interval_that_is_whole_takes_both_ends() -> None:
    entry = Interval("a.b", 1, 3, log=False, whole=True)
    assert {proposals._at(entry, share) for share in (0.0, 0.34, 0.67, 0.999999)} == {1, 2, 3}
