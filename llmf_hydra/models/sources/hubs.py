"""Models and adapters of a hub: Hugging Face, ModelScope or Modelers.

Their files are fetched into the hub's cache before anything reads them, config and tokenizer first, weights only when
they are loaded. Whatever goes wrong is told in one sentence, under the setting that named the model.
"""

import functools
import logging
import os
from collections.abc import Mapping
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

from llmf_hydra.config.groups.model import ModelConfig
from llmf_hydra.config.names import adapter_place
from llmf_hydra.errors import NO_VALUE, Problem, Refused
from llmf_hydra.models.adapter_files import names_a_folder
from llmf_hydra.models.ref import is_on_hub, locate
from llmf_hydra.optional import require

MODEL = "model.model_name_or_path"
SETTINGS = ("*.json", "*.jinja", "*.txt", "*.model", "*.py", "*.tiktoken")
WEIGHTS, OLDER_WEIGHTS = ("*.safetensors",), ("*.bin",)
IGNORED = ("*/*", "consolidated*")  # further formats of the same weights
PATIENCE = 10.0  # seconds in which a hub must begin to answer
HUGGING_FACE, MODELSCOPE, MODELERS = "the Hugging Face hub", "ModelScope", "Modelers"


def folder_of(model: ModelConfig, *, weights: bool, key: str = MODEL) -> str:
    """The folder of the model's files, fetched if they lie on a hub. Raises Refused, under the key that names it."""
    if not is_on_hub(str(model.model_name_or_path)):
        return locate(model)
    return _fetched(str(model.model_name_or_path), model.model_revision, model, weights=weights, key=key)


def adapter_folder(name: str, model: ModelConfig, key: str) -> str:
    """The folder of an adapter's files; from the hub that the model comes from. Raises Refused."""
    place, subfolder = adapter_place(name)
    if names_a_folder(place):
        return place
    return _fetched(place, "main", model, weights=True, key=key, subfolder=subfolder)


def hub_of(model: ModelConfig) -> str:
    """The hub that a name stands for."""
    return MODELSCOPE if model.use_modelscope_hub else MODELERS if model.use_openmind_hub else HUGGING_FACE


class Files(NamedTuple):
    """Which files of a repository are fetched."""

    wanted: tuple[str, ...]
    ignored: tuple[str, ...]

    @classmethod
    def of(cls, subfolder: str | None, *kinds: tuple[str, ...]) -> "Files":
        """Those of these kinds, of a folder in the repository or of its top."""
        within = "" if subfolder is None else f"{subfolder}/"
        wanted = tuple(f"{within}{name}" for kind in kinds for name in kind)
        return cls(wanted, tuple(f"{within}{name}" for name in IGNORED))


def _fetched(
    name: str, revision: str, model: ModelConfig, *, weights: bool, key: str, subfolder: str | None = None
) -> str:
    kinds = (SETTINGS, WEIGHTS) if weights else (SETTINGS,)
    fetch = functools.partial(_FETCH[hub_of(model)], name, revision, model, key)
    folder = Path(fetch(Files.of(subfolder, *kinds)), subfolder or "")
    if weights and not any(folder.glob(WEIGHTS[0])):
        folder = Path(fetch(Files.of(subfolder, *kinds, OLDER_WEIGHTS)), subfolder or "")
    return str(folder)


def _from_hugging_face(name: str, revision: str, model: ModelConfig, key: str, files: Files) -> str:
    from huggingface_hub import constants, errors

    token = model.hf_hub_token
    offline = bool(constants.HF_HUB_OFFLINE)
    try:
        return _snapshot(name, revision, model.cache_dir, token, files, offline)
    except errors.RevisionNotFoundError as error:
        where = "model.model_revision" if key == MODEL else key
        value = revision if key == MODEL else name
        what = (
            f"{name} on {HUGGING_FACE} has no such revision"
            if key == MODEL
            else f"has no revision {revision}"
        )
        raise Refused([Problem(where, value, what, "name a branch, tag or commit of it")]) from error
    except errors.GatedRepoError as error:
        remedy = "ask for access on its page, and give a token of yours by model.hf_hub_token or HF_TOKEN"
        raise Refused([Problem(key, name, f"is gated on {HUGGING_FACE}", remedy)]) from error
    except errors.RepositoryNotFoundError as error:
        raise _not_found(name, key, HUGGING_FACE, "model.hf_hub_token", given=bool(token)) from error
    except errors.LocalEntryNotFoundError as error:
        raise _unreachable(name, revision, key, offline) from error
    except errors.HfHubHTTPError as error:
        if error.response.status_code == 401:
            raise Refused([_bad_token(HUGGING_FACE, "model.hf_hub_token")]) from error
        raise Refused([_failed(name, key, HUGGING_FACE, error)]) from error
    except (errors.HFValidationError, OSError) as error:
        raise Refused([_failed(name, key, HUGGING_FACE, error)]) from error


@functools.lru_cache(maxsize=32)
def _snapshot(
    name: str,
    revision: str,
    cache_dir: str | None,
    token: str | None,
    files: Files,
    offline: bool,
) -> str:
    """The folder of a snapshot; what was fetched once in this process isn't asked for again."""
    from huggingface_hub import snapshot_download

    return snapshot_download(
        name,
        revision=revision,
        cache_dir=cache_dir,
        token=token,
        allow_patterns=list(files.wanted),
        ignore_patterns=list(files.ignored),
        etag_timeout=PATIENCE,
        endpoint=os.environ.get("HF_ENDPOINT"),
        local_files_only=offline,
    )


def _from_modelscope(name: str, revision: str, model: ModelConfig, key: str, files: Files) -> str:
    hub: Any = require("modelscope_hub", extra="modelscope", key="model.use_modelscope_hub")
    logging.getLogger("modelscope_hub").setLevel(logging.WARNING)
    try:
        api = hub.HubApi(token=model.ms_hub_token, endpoint=os.environ.get("MODELSCOPE_ENDPOINT"))
        with redirect_stderr(StringIO()):  # its bars of progress
            folder = api.download_repo(
                name,
                "model",
                revision="master" if revision == "main" else revision,  # what its default branch is called
                cache_dir=model.cache_dir,
                allow_patterns=list(files.wanted),
                ignore_patterns=list(files.ignored),
            )
    except Exception as error:  # its library raises classes of its own, and those of requests
        raise _translated(
            name, revision, key, MODELSCOPE, "model.ms_hub_token", model.ms_hub_token, error
        ) from error
    return str(folder)


def _from_modelers(name: str, revision: str, model: ModelConfig, key: str, files: Files) -> str:
    hub: Any = require("openmind_hub", extra="openmind", key="model.use_openmind_hub")
    try:
        return str(
            hub.snapshot_download(
                name,
                revision=revision,
                cache_dir=model.cache_dir,
                token=model.om_hub_token,
                allow_patterns=list(files.wanted),
                ignore_patterns=list(files.ignored),
            )
        )
    except Exception as error:
        raise _translated(
            name, revision, key, MODELERS, "model.om_hub_token", model.om_hub_token, error
        ) from error


_FETCH: Mapping[str, Any] = {
    HUGGING_FACE: _from_hugging_face,
    MODELSCOPE: _from_modelscope,
    MODELERS: _from_modelers,
}


def _translated(
    name: str, revision: str, key: str, hub: str, token_key: str, token: str | None, error: Exception
) -> Refused:
    """The sentence for an error of the two other hubs' libraries, told apart by the status of the answer."""
    status = getattr(error, "status_code", None) or getattr(
        getattr(error, "response", None), "status_code", None
    )
    if status in (401, 403):
        return _not_found(name, key, hub, token_key, given=token is not None)
    if status == 404:
        if revision != "main" and key == MODEL:
            what = f"{hub} has no {name}, or none of this revision"
            return Refused(
                [Problem("model.model_revision", revision, what, "name a branch, tag or commit of it")]
            )
        return _not_found(name, key, hub, token_key, given=token is not None)
    return Refused([_failed(name, key, hub, error)])


def _bad_token(hub: str, key: str) -> Problem:
    return Problem(
        key, NO_VALUE, f"{hub} does not accept this token", "give one that is valid, or leave it out"
    )


def _not_found(name: str, key: str, hub: str, token_key: str, *, given: bool) -> Refused:
    if given:
        remedy = f"check the name, and that the token of {token_key} is valid and may read it"
    else:
        remedy = f"check the name; a private model needs {token_key}"
    return Refused([Problem(key, name, f"{hub} has no model of that name for you", remedy)])


def _unreachable(name: str, revision: str, key: str, offline: bool) -> Refused:
    if offline:
        what = f"is not in the cache in its revision {revision}, and HF_HUB_OFFLINE=1 keeps the network out"
        remedy = "unset HF_HUB_OFFLINE, set model.cache_dir, or name a folder"
    else:
        endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
        what = f"{HUGGING_FACE} ({endpoint}) does not answer, and the cache has no such model"
        remedy = "is the network there? or name a folder"
    return Refused([Problem(key, name, what, remedy)])


def _failed(name: str, key: str, hub: str, error: Exception) -> Problem:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = lines[0] if lines else type(error).__name__
    return Problem(
        key, name, f"could not be fetched from {hub}: {reason}", "is the network there, and the name right?"
    )
