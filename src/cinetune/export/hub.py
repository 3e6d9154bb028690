"""An export on the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from cinetune.errors import InputError, reason_of

# Of an earlier export: those in one file would be opened in the place of new ones in shards.
WEIGHTS = ["*.safetensors", "*.safetensors.index.json"]


def check(repo: str) -> None:
    """Raises InputError, before any work, for a name that the hub would not take, and where there is no token."""
    from huggingface_hub import get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo)
        is_complete = repo.count("/") == 1
    except HFValidationError:
        is_complete = False
    if not is_complete:
        raise InputError(f"export.push must be a name on the hub, <owner>/<name>, got {repo!r}.")
    if get_token() is None:
        raise InputError(f"nothing can be pushed to {repo!r} without a token: run `hf auth login`, or set HF_TOKEN.")


def push(folder: Path, repo: str) -> str:
    """The address of the commit. A repository that is made for it is private. Raises InputError where it fails."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError, OfflineModeIsEnabled

    api = HfApi()
    try:
        api.create_repo(repo, private=True, exist_ok=True)
        made = api.upload_folder(
            repo_id=repo, folder_path=folder, commit_message="Export the fine-tuned model", delete_patterns=WEIGHTS
        )
    except (HTTPError, OfflineModeIsEnabled, OSError, ValueError) as error:
        remedy = "check the token's rights, the network and HF_ENDPOINT, and push again"
        raise InputError(
            f"the export is in {str(folder)!r} but was not pushed to {repo!r} ({reason_of(error)}): {remedy}."
        ) from None
    return str(made.commit_url)
