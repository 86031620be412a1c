"""Where a step's time goes: shares of its work by torch.profiler, as a table and a flame chart.

python -m benchmarks.profile sft|dpo|kto smollm2 [--chart FILE.svg] [--words KEY=VALUE ...]

An operator belongs to the part of the network that called it; one of the backward pass to that of its forward operator
(the profiler numbers both alike). What no operator accounts for is the interpreter's: Python, dispatch, autograd's own
bookkeeping.
"""

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function
from transformers import TrainerCallback

from benchmarks.bare import COMMON, trainer_of

STEPS = 2  # that are profiled, after two that warm up
SCOPE = "part: "
Weights = dict[tuple[str, ...], float]  # seconds by path


def scopes(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules whose operators are counted apart, with the part that they are."""
    for name, module in model.named_modules():
        last, kind = name.rpartition(".")[2], type(module).__name__
        if last.startswith("lora_") or last in ("default",):
            continue
        if hasattr(module, "base_layer"):
            yield "LoRA", module
        elif last == "base_layer" or kind in ("Linear", "Conv1D"):
            yield ("head and loss" if last in ("lm_head", "score") else "matmul"), module
        elif "Norm" in kind:
            yield "norms", module
        elif "Rotary" in kind:
            yield "rotary", module
        elif last == "mlp" or last == "act_fn":
            yield "activation", module
        elif last in ("self_attn", "attention", "attn"):
            # What stands between its products and its scores: views, and the rotation of queries and keys.
            yield "rotary", module
        elif kind == "Embedding":
            yield "embedding", module


@contextmanager
def marked(model: nn.Module) -> Iterator[None]:
    """The model with the profiler told in which part it is."""
    from transformers import AttentionInterface

    from llmf_hydra.models.architecture import padding_free

    originals: list[tuple[nn.Module, Any]] = []

    def wrap(module: nn.Module, part: str) -> None:
        original = module.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            with record_function(SCOPE + part):
                return original(*args, **kwargs)

        originals.append((module, module.__dict__.get("forward")))
        module.forward = forward

    def attention(*args: Any, **kwargs: Any) -> Any:
        with record_function(SCOPE + "attention"):
            return padding_free.attention_of_rows(*args, **kwargs)

    for part, module in list(scopes(model)):
        wrap(module, part)
    AttentionInterface.register("sdpa", attention)
    try:
        yield
    finally:
        AttentionInterface.register("sdpa", padding_free.attention_of_rows)
        for module, before in originals:
            if before is None:
                del module.forward
            else:
                module.forward = before


class Profiled(TrainerCallback):
    """Profiles some optimizer steps, from the end of one to the end of another."""

    def __init__(self, warm: int, steps: int):
        self.warm, self.steps, self.done = warm, steps, 0
        self.profile = profile(activities=[ProfilerActivity.CPU], record_shapes=False)
        self.seconds = self._begun = 0.0

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.done += 1
        if self.done == self.warm:
            self.profile.start()
            self._begun = time.perf_counter()
        elif self.done == self.warm + self.steps:
            self.seconds = time.perf_counter() - self._begun
            self.profile.stop()


def weigh(events: list[Any]) -> Weights:
    """Seconds of each (phase, part, operator) by its own time."""
    forward: dict[int, str] = {}
    for event in events:
        if event.sequence_nr >= 0 and event.scope == 0 and not event.name.startswith("autograd::"):
            part = _part(event)
            if part is not None:
                forward[event.sequence_nr] = part
    weights: Weights = defaultdict(float)
    for event in events:
        if event.self_cpu_time_total <= 0 or event.name.startswith(SCOPE):
            continue
        weights[_path(event, forward)] += event.self_cpu_time_total / 1e6
    return weights


def _ancestors(event: Any) -> Iterator[Any]:
    while event is not None:
        yield event
        event = event.cpu_parent


def _part(event: Any) -> str | None:
    return next(
        (one.name.removeprefix(SCOPE) for one in _ancestors(event) if one.name.startswith(SCOPE)), None
    )


def _path(event: Any, forward: dict[int, str]) -> tuple[str, str, str]:
    names = [one.name for one in _ancestors(event)]
    if any(name.startswith("Optimizer.") for name in names):
        return "optimizer", "optimizer", event.name
    if any("DataLoader" in name for name in names):
        return "data", "data", event.name
    part, phase = _part(event), "forward"
    evaluated = next((one for one in _ancestors(event) if one.name.startswith("autograd::engine")), None)
    if evaluated is not None:
        phase = "backward"
        if "AccumulateGrad" in evaluated.name:
            return phase, "gradients added up", event.name
        part = part or forward.get(evaluated.sequence_nr)
    return phase, part or "rest", event.name


def shares(stage: str, model: str, words: list[str]) -> tuple[dict[str, float], Weights]:
    """Shares of the seconds of a step by part, and the seconds by path."""
    trainer = trainer_of([f"stage={stage}", "method=lora", f"model={model}", *COMMON, "data.max_samples=24",
                          f"training.max_steps={2 + STEPS}", *words])  # fmt: skip
    profiled = Profiled(2, STEPS)
    trainer.add_callback(profiled)
    with marked(trainer.model):
        trainer.train()
    weights = weigh(list(profiled.profile.events() or ()))
    by_part: dict[str, float] = defaultdict(float)
    for (_, part, _), seconds in weights.items():
        by_part[part] += seconds
    idle = max(profiled.seconds - sum(by_part.values()), 0.0)
    by_part["interpreter"] = idle
    weights["interpreter", "interpreter", "Python"] = idle
    found = {part: round(100 * seconds / profiled.seconds, 1) for part, seconds in by_part.items()}
    return dict(sorted(found.items(), key=lambda item: -item[1])), weights


WIDTH, HEIGHT, COLORS = 960, 22, ("#d9822b", "#4c78a8", "#59a14f", "#b07aa1", "#76b7b2", "#e15759", "#9c755f")


def flame_chart(weights: Weights, title: str) -> str:
    """An SVG: a step at the bottom, above it its phases, their parts, and the operators of these, width is time."""
    total, boxes = sum(weights.values()), list[str]()

    def draw(level: int, left: float, wide: float, text: str, color: str) -> None:
        y = HEIGHT * (3 - level) + 30
        shown = escape(text) if wide > 7 * len(text) + 6 else ""
        boxes.append(
            f'<g><title>{escape(text)}: {100 * wide / WIDTH:.1f} %</title><rect x="{left:.1f}" y="{y}" '
            f'width="{max(wide - 0.4, 0.2):.1f}" height="{HEIGHT - 1}" fill="{color}"/>'
            f'<text x="{left + 3:.1f}" y="{y + 15}">{shown}</text></g>'
        )

    def layer(paths: Weights, level: int, left: float) -> None:
        groups: dict[str, Weights] = defaultdict(dict)
        for path, seconds in paths.items():
            groups[path[0]][path[1:]] = groups[path[0]].get(path[1:], 0.0) + seconds
        for name, inner in sorted(groups.items(), key=lambda group: -sum(group[1].values())):
            wide = WIDTH * sum(inner.values()) / total
            if wide < 0.5:
                continue
            draw(level, left, wide, name, COLORS[hash_of(name) % len(COLORS)])
            if level < 3:
                layer(inner, level + 1, left)
            left += wide

    draw(0, 0, WIDTH, title, "#cccccc")
    layer(weights, 1, 0)
    style = "text{font:12px sans-serif;fill:#111}"
    high = 4 * HEIGHT + 40
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{high}"><style>{style}</style>'
        f"{''.join(boxes)}</svg>\n"
    )


def hash_of(name: str) -> int:
    """A number of a name, the same in each process."""
    return sum(map(ord, name))


def main() -> None:
    """Profile in this process, and print JSON."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("stage")
    words.add_argument("model")
    words.add_argument("--chart")
    words.add_argument("--words", nargs="*", default=[])
    asked = words.parse_args()
    torch.set_num_threads(1)
    found, weights = shares(asked.stage, asked.model, asked.words)
    if asked.chart:
        chart = flame_chart(weights, f"a step of stage={asked.stage} model={asked.model}")
        Path(asked.chart).write_text(chart, encoding="utf8")
    most = sorted(weights.items(), key=lambda item: -item[1])[:40]
    for path, seconds in most:
        print(f"{100 * seconds / sum(weights.values()):5.1f} %  {' / '.join(path)}", file=sys.stderr)
    print(json.dumps({"stage": asked.stage, "percent": found}))


if __name__ == "__main__":
    main()
