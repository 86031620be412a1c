"""No micro-batch waits for the device: what would stall a GPU is looked for in the profiler's trace on the CPU."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.stage_runs import SGD, Build
from torch.overrides import TorchFunctionMode
from torch.profiler import ProfilerActivity, profile

WAITS = ("aten::item", "aten::_local_scalar_dense", "aten::is_nonzero", "aten::nonzero", "aten::masked_select",
         "aten::equal", "aten::unique", "aten::_unique2", "aten::_unique")  # fmt: skip
READS = (torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.cpu, torch.Tensor.item, torch.Tensor.__bool__,
         torch.Tensor.__float__, torch.Tensor.__int__)  # fmt: skip


class Reads(TorchFunctionMode):
    """Counts what brings numbers to Python, some of which the profiler has no name for."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in READS:
            self.counts[func.__name__] += 1
        return func(*args, **(kwargs or {}))


def waits_of(work: Callable[[], Any]) -> dict[str, int]:
    """What would wait for a GPU, by name and count."""
    with profile(activities=[ProfilerActivity.CPU]) as trace, Reads() as reads:
        work()
    found = Counter(event.name for event in trace.events() or () if event.name in WAITS)
    return dict(found + reads.counts)


def test_what_waits_is_seen() -> None:
    values = torch.arange(6.0)
    assert waits_of(lambda: values[values > 2]) == {"aten::nonzero": 1}
    assert waits_of(lambda: values.sum().item()).keys() >= {"aten::item", "item"}
    assert waits_of(values.tolist) == {"tolist": 1}
    assert waits_of(lambda: values * 2) == {}


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("stage", ["pt", "sft", "rm", "dpo", "kto"])
def test_a_micro_batch_waits_for_nothing(
    stage: str, method: str, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    packs = ["data.packing=false"] if stage == "pt" else []
    trainer = build(f"stage={stage}", f"method={method}", *SGD, *packs, "training.max_steps=1", "data.max_samples=4",
                    "training.per_device_train_batch_size=2", "training.gradient_accumulation_steps=2")  # fmt: skip
    step, seen = trainer.training_step, []

    def watched(*args: Any, **kwargs: Any) -> torch.Tensor:
        losses: list[torch.Tensor] = []
        seen.append(waits_of(lambda: losses.append(step(*args, **kwargs))))
        return losses[0]

    monkeypatch.setattr(trainer, "training_step", watched)
    trainer.train()
    assert seen == [{}, {}]
