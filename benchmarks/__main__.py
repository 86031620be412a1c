"""`make bench`: measure and print JSON, keyed by what was measured; with `--out FILE` it is written there too.

python -m benchmarks [--quick] [--out FILE]      --quick leaves the embedded model out
"""

import argparse
import json
import sys
from pathlib import Path

from benchmarks import beside_trl, data, optimizers, serving, start, train
from llmf_hydra.runs.manifest import machine


def main() -> None:
    """Run the benchmarks one after another: two at once would measure each other. Exit code 1 for a slow answer."""
    parser = argparse.ArgumentParser(description="Measure speed and memory.")
    parser.add_argument("--quick", action="store_true", help="the tiny model only")
    parser.add_argument("--out", type=Path, help="file the JSON is written to")
    args = parser.parse_args()
    known = machine()
    result = {
        "machine": {key: known[key] for key in ("cpu", "cores", "memory_gb", "python")},
        "answers": start.answers(),
        "start": start.measure(),
        "tiny": {stage: train.measure(stage, "tiny", steps=20) for stage in ("sft", "dpo")},
    }
    if not args.quick:
        result["optimizers"] = optimizers.measure("smollm2", steps=50)
        result["data"] = data.measure()
        result["beside_trl"] = beside_trl.measure("smollm2")
        result["serving"] = serving.measure("smollm2")
        result["smollm2"] = {stage: train.measure(stage, "smollm2", steps=5) for stage in ("sft", "dpo")}
    text = json.dumps(result, indent=2)
    print(text)
    if args.out:
        args.out.write_text(text + "\n", encoding="utf8")
    late = [words for words, taken in result["answers"].items() if taken["too_slow"]]
    if late:
        sys.exit(f"slower than allowed: {', '.join(late)}")


if __name__ == "__main__":
    main()
