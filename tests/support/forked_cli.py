"""Many command lines through one process that has imported the launcher and forks a child for each."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

SERVER = """
import gc, json, os, sys, tempfile
import llmf_hydra.launch, llmf_hydra.refusals, llmf_hydra.__main__ as cli
from llmf_hydra.config import compose
from llmf_hydra.runs import processes
processes.run_worker = lambda *_, **__: 0  # what isn't refused would train
compose.composed(["stage=sft", "model=tiny"])  # its grammar and files are read here, and not in each child
gc.collect(), gc.freeze()
for words, env in json.load(sys.stdin):
    with tempfile.TemporaryFile() as said:
        child = os.fork()
        if child == 0:
            os.dup2(said.fileno(), 1), os.dup2(said.fileno(), 2)
            os.environ.update(env)
            try:
                code = cli.main(words)
            except SystemExit as end:
                code = end.code or 0
            except BaseException:
                import traceback; traceback.print_exc()
                code = 99
            sys.stdout.flush(), sys.stderr.flush()
            os.write(1, b"\\0torch" if "torch" in sys.modules else b"\\0")
            os._exit(code)
        _, status = os.waitpid(child, 0)
        said.seek(0)
        text, _, torch = said.read().decode(errors="replace").rpartition("\\0")
        print(json.dumps([os.waitstatus_to_exitcode(status), text, torch == "torch"]), flush=True)
"""


class Answer(NamedTuple):
    """What a command line gave: its exit code, all it printed, and whether torch was imported."""

    code: int
    said: str
    torch: bool


def answers(
    lines: Sequence[tuple[Sequence[str], dict[str, str]]], cwd: Path, env: dict[str, str]
) -> list[Answer]:
    """The answers to command lines, each with what it changes in the environment. Nothing is trained."""
    done = subprocess.run([sys.executable, "-c", SERVER], input=json.dumps(lines), cwd=cwd, env=env,
                          capture_output=True, text=True, check=True)  # fmt: skip
    return [Answer(*answer) for answer in map(json.loads, done.stdout.splitlines())]
