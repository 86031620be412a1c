"""The command line: the manual and the small commands at once, everything else to the launcher."""

import gc
import importlib
import os
import sys

from llmf_hydra.errors import DONE, REFUSED, Refused, did_you_mean

COMMANDS = {  # word -> the module whose main(argv) answers it
    "explain": "llmf_hydra.cli.explain",
    "status": "llmf_hydra.cli.status",
    "import": "llmf_hydra.cli.llamafactory.importer",
    "data": "llmf_hydra.cli.data",
    "runs": "llmf_hydra.runs.folder",
    "score": "llmf_hydra.cli.score",
    "resume": "llmf_hydra.cli.resume",
}
FALSE = ("0", "false", "no", "off", "n")


def main(argv: list[str] | None = None) -> int:
    """Answer a command line; returns the exit code: 0 done, 1 failed, 2 refused, 130 interrupted."""
    words = sys.argv[1:] if argv is None else argv
    try:
        if words and words[0] in COMMANDS:
            return importlib.import_module(COMMANDS[words[0]]).main(words[1:])
        if "--help" in words or "-h" in words:
            return _help([word for word in words if not word.startswith("-")])
        if "--version" in words:
            return _version()
        if words and "=" not in words[0] and not words[0].startswith(("-", "+", "~")):
            raise Refused([_unknown_command(words[0])])
        gc.set_threshold(200_000)  # composing makes many objects and no garbage: a tenth of the time
        from llmf_hydra import launch

        return launch.main(words)
    except Refused as refused:
        print(refused.report(), file=sys.stderr)
        return REFUSED
    except BrokenPipeError:  # `llmf runs | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE


def short() -> int:
    """The short command `llmf`; launch.enable_short_console takes it away."""
    if os.environ.get("ENABLE_SHORT_CONSOLE", "1").lower() in FALSE:
        print("refused: ENABLE_SHORT_CONSOLE is off; the long name is llmf-hydra", file=sys.stderr)
        return REFUSED
    return main()


def _help(groups: list[str]) -> int:
    from llmf_hydra.cli import help as manual

    print("\n".join(manual.group_page(group) for group in groups) if groups else manual.overview())
    return DONE


def _version() -> int:
    from llmf_hydra import __version__

    print(__version__)
    return DONE


def _unknown_command(word: str) -> str:
    hint = did_you_mean(word, COMMANDS)
    return f"{word}: no such command" + (f"; {hint}" if hint else "; `llmf-hydra --help` lists them")


if __name__ == "__main__":
    sys.exit(main())
