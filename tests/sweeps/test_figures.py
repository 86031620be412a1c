"""The plots of studies with seeds as repeats and with several objectives."""

from itertools import product
from typing import Any

from llmf_hydra.sweeps import account, repeats
from llmf_hydra.sweeps.report import figures
from llmf_hydra.sweeps.study import Objectives, Record

THREE: Objectives = (("loss", "minimize"), ("accuracy", "maximize"), ("memory", "minimize"))
VALUES = [[1.0, 0.9, 30.0], [2.0, 0.5, 20.0], [3.0, 0.4, 40.0], [2.5, 0.95, 35.0]]


def done(number: int, values: list[float], **params: Any) -> Record:
    return Record(
        number, "done", params={key.replace("__", "."): value for key, value in params.items()}, values=values
    )


def test_a_front_of_three_objectives_is_one_plot_and_each_pair_another() -> None:
    records = [done(number, values, method__lora_rank=number + 1) for number, values in enumerate(VALUES)]
    assert [record.number for record in account.pareto(records, THREE)] == [0, 1, 3]
    whole, *pairs = figures.pareto(records, THREE)
    (trace,) = whole["data"]
    assert trace["type"] == "parcoords" and len(pairs) == 3
    labels = [axis["label"] for axis in trace["dimensions"]]
    assert labels == ["minimize loss", "maximize accuracy", "minimize memory"]
    rows = list(zip(*(axis["values"] for axis in trace["dimensions"]), strict=True))
    on_front = {row for row, color in zip(rows, trace["line"]["color"], strict=True) if color == 1}
    assert on_front == {tuple(VALUES[number]) for number in (0, 1, 3)} and len(rows) == 4
    assert [axis["range"] for axis in trace["dimensions"]] == [[3.0, 1.0], [0.4, 0.95], [40.0, 20.0]]

    four: Objectives = (*THREE, ("time", "minimize"))
    more = [done(record.number, [*record.values, 1.0], method__lora_rank=1) for record in records]
    (only,) = figures.pareto(more, four)  # six pairs would say less
    assert len(only["data"][0]["dimensions"]) == 4
    assert len(figures.pareto([done(0, [1.0, 2.0]), done(1, [2.0, 1.0])], THREE[:2])) == 1


def test_the_seed_is_an_axis_only_where_nothing_else_varies() -> None:
    records = [
        done(number, [float(rank + seed)], method__lora_rank=rank, training__seed=seed)
        for number, (rank, seed) in enumerate(product((4, 8), (1, 2, 3)))
    ]
    assert figures.parameters(records) == ["method.lora_rank"]
    assert repeats.means(records, ["method.lora_rank"]) == [
        ({"method.lora_rank": 4}, [6.0]),
        ({"method.lora_rank": 8}, [10.0]),
    ]
    plot = figures.parallel(records, (("loss", "minimize"),))
    assert plot is not None
    assert [axis["label"] for axis in plot["data"][0]["dimensions"]] == ["lora_rank", "loss"]
    assert figures.parameters([done(n, [1.0], training__seed=n) for n in range(2)]) == ["training.seed"]
