"""`llmf compose WORDS`: the config that a command line stands for, and what would be refused of it, without a run."""

import json
import sys
from collections.abc import Sequence

from llmf_hydra.cli.commands import Parser
from llmf_hydra.config import compose, overrides, record, secrets
from llmf_hydra.errors import DONE, REFUSED, Refused


def main(argv: Sequence[str]) -> int:
    """Answer `llmf compose`; returns the exit code: 2 where something would be refused."""
    parser = Parser("compose")
    parser.add_argument("-m", "--multirun", action="store_true", help="a sweep: what all its trials share")
    parser.add_argument("--json", action="store_true", help="print both as JSON: config (YAML), problems")
    parser.add_argument("words", nargs="*", metavar="WORD", help="as they follow llmf-hydra")
    asked = parser.parse_intermixed_args(argv)
    secrets.learn_words(asked.words)
    config, refused = _composed(asked.words, asked.multirun)
    if asked.json:
        problems = [secrets.masked_text(str(problem)) for problem in refused.problems] if refused else []
        print(json.dumps({"config": config, "problems": problems}, indent=2))
    else:
        print(config or "", end="")
        if refused:
            print(secrets.masked_text(refused.report()), file=sys.stderr)
    return REFUSED if refused else DONE


def _composed(words: Sequence[str], several: bool) -> tuple[str | None, Refused | None]:
    """The config as YAML, as far as it can be composed, and all that is wrong.

    With `several`, words that give several values are checked and left out: each trial sets its own.
    """
    from llmf_hydra import launch

    config = None
    try:
        line = compose.CommandLine(words)
        with line.refusing():
            launch.check_words(line)
            if several:
                swept = overrides.swept(line.overrides)
                line = compose.CommandLine([word for word in line.overrides if word not in swept])
            composed = line.compose()
            cfg = compose.typed(composed)
            config = record.dump(cfg)
            launch.checked(cfg, composed.hydra)
    except Refused as refused:
        return config, refused
    return config, None
