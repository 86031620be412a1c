"""An exported model on the Hugging Face hub."""

import os
from pathlib import Path

from llmf_hydra.errors import Problem, Refused

KEY, TOKEN = "export.export_hub_model_id", "model.hf_hub_token"


def prepare(name: str, token: str | None) -> None:
    """Have the repository there, before the work begins. Raises Refused where the hub doesn't let it."""
    from huggingface_hub import HfApi, errors

    try:
        HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=token).create_repo(
            name, repo_type="model", exist_ok=True
        )
    except errors.HfHubHTTPError as error:
        raise _refused(name, error.response.status_code, error) from error
    except (OSError, ValueError) as error:  # no network; no such name
        raise _refused(name, None, error) from error


def push(folder: Path, name: str, token: str | None) -> str:
    """Upload a folder as one commit; returns its address. Raises Refused."""
    from huggingface_hub import HfApi, errors

    try:
        api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=token)
        pushed = api.upload_folder(
            repo_id=name, folder_path=str(folder), commit_message="Exported by llmf_hydra"
        )
    except errors.HfHubHTTPError as error:
        raise _refused(name, error.response.status_code, error) from error
    return str(pushed.commit_url)


def _refused(name: str, status: int | None, error: Exception) -> Refused:
    if status == 401:
        what = "the Hugging Face hub does not know you, or does not accept the token"
        return Refused([Problem(KEY, name, what, f"give one that may write there, by {TOKEN} or HF_TOKEN")])
    if status == 403:
        return Refused(
            [Problem(KEY, name, "the token may not write there", f"give another by {TOKEN}, or another name")]
        )
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return Refused([Problem(KEY, name, f"cannot be made on the hub: {reason}")])
