"""Seeds as repeats: means, deviations and the paired t-test, against figures made by hand."""

import json
import math

import pytest
from support.command_line import Cli
from support.finished_study import FinishedStudy

from llmf_hydra.sweeps import repeats
from llmf_hydra.sweeps.study import Objectives, Record

LOSS: Objectives = (("eval_loss", "minimize"),)
ACCURACY: Objectives = (("accuracy", "maximize"),)


def trials(**values: list[float | None]) -> list[Record]:
    """A trial per value; the learning rates are named, the seeds counted from 1; None is a pruned trial."""
    rows = [(rate, seed, value) for rate, drawn in values.items() for seed, value in enumerate(drawn, 1)]
    return [
        Record(
            number=place,
            status="pruned" if value is None else "done",
            params={"training.learning_rate": rate, "training.seed": seed},
            values=[] if value is None else [value],
        )
        for place, (rate, seed, value) in enumerate(rows)
    ]


def compared(records: list[Record], objectives: Objectives) -> repeats.Comparison:
    found = repeats.compare(repeats.groups(records, objectives), objectives)
    assert found is not None
    return found


def test_means_and_deviations_by_hand() -> None:
    high, low = repeats.groups(trials(low=[1.5, 2.1, 4.9], high=[1.0, 2.0, 4.5]), LOSS)
    assert high.label == "training.learning_rate=high" and list(high.values.values()) == [1.0, 2.0, 4.5]
    assert high.mean == pytest.approx(2.5)
    assert high.sd == pytest.approx(math.sqrt((1.5**2 + 0.5**2 + 2.0**2) / 2))
    assert low.mean == pytest.approx(8.5 / 3)


def test_the_t_test_by_hand() -> None:
    """Differences 0.5, 0.1, 0.9: mean 0.5, deviation 0.4, t = 0.5 / (0.4 / sqrt 3); two degrees of freedom."""
    found = compared(trials(high=[1.0, 2.0, 4.0], low=[1.5, 2.1, 4.9]), LOSS)
    t = 0.5 / (0.4 / math.sqrt(3))
    assert found.difference == pytest.approx(0.5) and found.sd == pytest.approx(0.4) and found.seeds == 3
    assert found.p == pytest.approx(1 - t / math.sqrt(2 + t**2))  # of Student's t with two degrees of freedom
    assert (
        found.sentence == "the best beats the next by 0.5 ± 0.4 over 3 seeds, p = 0.16: not more than noise"
    )


def test_a_clear_difference_is_more_than_noise_whichever_way_is_better() -> None:
    for objectives, best, other in ((LOSS, 1.0, 2.0), (ACCURACY, 2.0, 1.0)):
        good, bad = [best, best + 0.01, best + 0.02], [other, other + 0.02, other + 0.01]
        found = compared(trials(bad=[*bad], good=[*good]), objectives)
        assert found.p is not None and found.p < 0.001 and found.difference == pytest.approx(1.0)
        assert found.sentence.endswith(": more than noise") and "beats the next by 1 ±" in found.sentence


def test_only_seeds_that_both_have_are_compared() -> None:
    """Seeds 1 and 3 are common: differences 0.2 and 0.6, t = 0.4 / (0.2828 / sqrt 2) = 2 with one degree of freedom."""
    found = compared(trials(good=[1.0, 1.5, 1.0], bad=[1.2, None, 1.6]), LOSS)
    assert found.seeds == 2 and found.p == pytest.approx(1 - 2 / math.pi * math.atan(2))


def test_where_no_test_is_possible_that_is_said() -> None:
    one = compared(trials(good=[1.0, 1.1], bad=[1.2, None]), LOSS)
    none = compared(trials(good=[1.0, None], bad=[None, 1.2]), LOSS)
    assert one.p is none.p is None
    assert "no test is possible" in one.sentence and "only 1 of their seeds" in one.sentence
    assert "have none of their seeds" in none.sentence
    same = compared(trials(good=[1.0, 2.0], bad=[1.5, 2.5]), LOSS)
    assert same.p is None and "by 0.5 with each of 2 seeds: without a spread" in same.sentence


def test_lines_for_readers() -> None:
    lines = repeats.closing_lines(trials(bad=[1.5, 2.1, None], good=[1.0, 2.0, 4.0]), LOSS)
    assert lines[0] == "training.seed as repeats:" and lines[1].split() == [
        "seeds",
        "mean",
        "eval_loss",
        "sd",
        "overrides",
    ]
    assert lines[2].split()[0] == "2" if "bad" in lines[2] else lines[2].startswith("3  ")
    (bad,) = (line for line in lines if "bad" in line)
    assert bad.startswith("2 of 3  ")
    fixed = [Record(number=0, status="done", params={"training.learning_rate": 1.0}, values=[1.0])]
    assert repeats.closing_lines(fixed, LOSS) == []


def test_a_real_study(cli: Cli, study: FinishedStudy) -> None:
    value = {
        (trial["params"]["training.learning_rate"], trial["params"]["training.seed"]): trial["objective"]
        for trial in study.trials
    }
    differences = [value[0.0001, seed] - value[0.05, seed] for seed in (1, 2)]
    mean = sum(differences) / 2
    sd = abs(differences[0] - differences[1]) / math.sqrt(2)
    t = mean / (sd / math.sqrt(2))

    told = json.loads(cli("sweep", "show", str(study.folder), "--json").stdout)["repeats"]
    assert [(group["n"], group["trials"]) for group in told["groups"]] in ([(3, 3), (2, 3)], [(2, 3), (3, 3)])
    first = told["groups"][0]["params"]["training.learning_rate"]
    assert abs(told["comparison"]["difference"]) == pytest.approx(abs(mean))
    assert told["comparison"]["sd"] == pytest.approx(sd)
    assert told["comparison"]["p"] == pytest.approx(1 - 2 / math.pi * math.atan(abs(t)))
    shown = cli("sweep", "show", str(study.folder)).stdout
    assert told["comparison"]["sentence"] in shown
    rows = shown.split("training.seed as repeats:")[1].splitlines()
    assert rows[2].endswith(f"training.learning_rate={first}")
