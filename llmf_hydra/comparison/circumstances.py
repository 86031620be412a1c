"""What two runs began with, or a run and what is here now: code, packages, data, tokenizer, template, models."""

import textwrap
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from typing import Any

from llmf_hydra.comparison.difference import Difference, differences_of
from llmf_hydra.comparison.packages import deciding, normalized
from llmf_hydra.config.schema import Config
from llmf_hydra.data.digests import dataset_files
from llmf_hydra.models.digests import model_files, weights_digest
from llmf_hydra.models.ref import locate
from llmf_hydra.paths import PACKAGE
from llmf_hydra.runs import git, sources
from llmf_hydra.runs.manifest import machine
from llmf_hydra.training.rewards.files import reward_files

Manifest = Mapping[str, Any]
CODE, PACKAGE_KIND, DATA, TOKENIZER, TEMPLATE, MODEL, REWARD = (
    "code",
    "package",
    "data",
    "tokenizer",
    "template",
    "model",
    "reward",
)
HERE = "here"  # marks the circumstances of this moment, whose sources lie on the disk
HARDWARE = {
    "platform": "operating system",
    "cpu": "CPU",
    "cpu_capability": "vector instructions",
    "cores": "cores",
    "gpus": "GPUs",
}
TOKENIZER_FILES = {
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "vocab.txt", "merges.txt", "tokenizer.model", "spiece.model",
}  # fmt: skip
TEMPLATE_FILES = {"chat_template.jinja", "chat_template.json"}


def present(cfg: Config) -> Manifest:
    """What a run of this config would begin with now, in the form of a manifest. The config's paths lead somewhere."""
    return {
        HERE: True,
        "git": git.source(),
        "sources": sources.digests(),
        "machine": machine(),
        "files": {
            "data": dataset_files(cfg.data),
            "models": model_files(cfg),
            "rewards": reward_files(cfg),
        },
        "digests": {"model": weights_digest(locate(cfg.model))},
    }


def differences(old: Manifest, new: Manifest) -> list[Difference]:
    """All that can part two runs beside their configs, each by its name."""
    found = [*_code(old, new), *_packages(old, new), *_data(old, new), *_models(old, new)]
    found += _rewards(old, new)
    told = {change.kind for change in found}
    return found + [change for change in _digests(old, new) if change.kind not in told]


def notices(old: Manifest, new: Manifest) -> list[str]:
    """What is known to change the last bits of sums, or nothing at all: hardware, packages that no run imports."""
    was, now = old.get("machine") or {}, new.get("machine") or {}
    found = [
        f"{name}: {_listed(was[key])} -> {_listed(now[key])}"
        for key, name in HARDWARE.items()
        if key in was and key in now and was[key] != now[key]
    ]
    found += [
        f"{name}: not in the hub's cache, so its files are compared after the run"
        for name in _absent(old, new)
    ]
    others = [change.name for change in _versions(old, new) if not _decides(change.name)]
    if others:
        found.append(f"packages that no run imports differ: {', '.join(others)}")
    return found


def _absent(old: Manifest, new: Manifest) -> Iterator[str]:
    """Datasets and models whose files were recorded, and that will be fetched from a hub."""
    for kind in ("data", "models"):
        was, now = ((side.get("files") or {}).get(kind) or {} for side in (old, new))
        yield from (name for name in was if was[name]["files"] and name in now and not now[name]["files"])


def not_recorded(old: Manifest) -> list[str]:
    """What an older version left out of its manifest, so that it can't be compared before the run."""
    keys = {"sources": "digests of source files", "files": "digests of data and model files"}
    return [what for key, what in keys.items() if not old.get(key)]


def _listed(value: Any) -> str:
    return ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)


def _code(old: Manifest, new: Manifest) -> Iterator[Difference]:
    was, now = old.get("sources"), new.get("sources")
    if was and now:
        for change in differences_of(CODE, was, now):
            yield Difference(CODE, change.name, change.old, change.new, _first_line(change, old, new))
        return
    before, after = _commit(old), _commit(new)
    if before != after:
        yield Difference(CODE, "commit", before, after)


def _commit(manifest: Manifest) -> str | None:
    """The commit, with a mark where something was changed on top of it; of an installed package its version."""
    state = manifest.get("git")
    if not state:
        return manifest.get("version")
    return state["commit"][:12] + ("+changes" if state["diff"] else "")


def _first_line(change: Difference, old: Manifest, new: Manifest) -> str:
    """The first line that differs in a changed file, where its text of both times is known."""
    if change.old is None or change.new is None:
        return ""
    before = sources.recorded_text(change.name, old.get("git"), change.old)
    if new.get(HERE):
        after = (PACKAGE / change.name).read_text(encoding="utf8")
    else:
        after = sources.recorded_text(change.name, new.get("git"), change.new)
    if before is None or after is None:
        return ""
    pairs = zip_longest(before.splitlines(), after.splitlines())
    first = next(((number, line) for number, (was, line) in enumerate(pairs, 1) if was != line), None)
    if first is None:
        return ""
    number, changed = first[0], str(first[1] or "").strip()
    return f"first at line {number}: {textwrap.shorten(changed, 80)}"


def _packages(old: Manifest, new: Manifest) -> Iterator[Difference]:
    yield from (change for change in _versions(old, new) if _decides(change.name))


def _versions(old: Manifest, new: Manifest) -> list[Difference]:
    sides = [side.get("machine") or {} for side in (old, new)]
    if not all("packages" in side for side in sides):
        return []
    was, now = ({"python": side["python"], **side["packages"]} for side in sides)
    return differences_of(PACKAGE_KIND, was, now)


def _decides(package: str) -> bool:
    known = deciding()
    return package == "python" or known is None or normalized(package) in known


def _data(old: Manifest, new: Manifest) -> Iterator[Difference]:
    was, now = ((side.get("files") or {}).get("data") for side in (old, new))
    if was is None or now is None:
        return
    for name in dict.fromkeys((*was, *now)):
        before, after = was.get(name), now.get(name)
        if before is None or after is None:
            yield Difference(DATA, name, before and "a dataset", after and "a dataset")
            continue
        if before["files"] and after["files"]:
            yield from _files(DATA, name, before, after)
        if before["reading"] != after["reading"]:
            yield Difference(
                DATA, name, before["reading"], after["reading"], "read in another way: dataset_info.json"
            )


def _digests(old: Manifest, new: Manifest) -> Iterator[Difference]:
    """What two runs made of their inputs: the vocabulary, the chat template, the rows as they were tokenized."""
    was, now = ((side.get("digests") or {}) for side in (old, new))
    for kind, what in ((DATA, "tokenized rows"), (TOKENIZER, "vocabulary"), (TEMPLATE, "chat template")):
        if was.get(kind) and now.get(kind) and was[kind] != now[kind]:
            yield Difference(kind, what, was[kind], now[kind])


def _files(
    kind: str, owner: str, before: Mapping[str, Any], after: Mapping[str, Any]
) -> Iterator[Difference]:
    alone = len(before["files"]) == len(after["files"]) == 1
    was, now = before["files"], after["files"]
    if alone:  # whatever it is called here
        (name,) = now
        was, now = {name: next(iter(was.values()))}, now
    for change in differences_of(kind, was, now):
        path = f"{after['path']}/{change.name}"
        note = path if change.new is not None else f"{path} is not there"
        shown = change.name if owner in (change.name, "") else f"{owner}: {change.name}"
        yield Difference(kind, shown, change.old, change.new, note)


def _rewards(old: Manifest, new: Manifest) -> Iterator[Difference]:
    """The files of functions and schemas that score answers."""
    was, now = ((side.get("files") or {}).get("rewards") or {} for side in (old, new))
    for label in was.keys() & now.keys():
        yield from _files(REWARD, label, was[label], now[label])


def _models(old: Manifest, new: Manifest) -> Iterator[Difference]:
    was, now = ((side.get("files") or {}).get("models") for side in (old, new))
    if was is None or now is None:
        recorded, found = ((side.get("digests") or {}).get("model") for side in (old, new))
        if recorded and found and recorded != found:
            yield Difference(MODEL, "weights", recorded, found)
        return
    for setting in dict.fromkeys((*was, *now)):
        before, after = was.get(setting), now.get(setting)
        if before is None or after is None:
            yield Difference(MODEL, setting, before and before["path"], after and after["path"])
        elif before["files"] and after["files"]:
            for change in _files(MODEL, setting, before, after):
                file = change.name.rpartition(": ")[2]
                kind = TOKENIZER if file in TOKENIZER_FILES else TEMPLATE if file in TEMPLATE_FILES else MODEL
                yield Difference(kind, change.name, change.old, change.new, change.note)
