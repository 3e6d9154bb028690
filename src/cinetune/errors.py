"""Errors that a user or a client can correct, reported in one sentence without a stack trace."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)
# How safetensors and PyTorch, whose errors carry no number, speak of a full disk.
SPOKEN_OF = (*map(os.strerror, FULL), "PytorchStreamWriter failed writing")


class InputError(ValueError):
    """What was given cannot be used: one sentence that names the value and the remedy."""


MAX_REASON_CHARS = 200


def reason_of(error: BaseException) -> str:
    """What another library's error says, as part of a sentence: one line without a full stop, shortened if long."""
    line = " ".join(str(error).split())
    return line.rstrip(".") if len(line) <= MAX_REASON_CHARS else f"{line[: MAX_REASON_CHARS - 1]}…"


def causes_of(error: BaseException | None) -> list[BaseException]:
    """An error and what it was raised for, the last first."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def of_machine(error: BaseException) -> InputError | None:
    """What the machine refuses, room or a permission, as one sentence; None for any other error."""
    number, path = getattr(error, "errno", None), getattr(error, "filename", None)
    place = f" at {str(path)!r}" if path else ""
    if number in FULL or any(words in str(error) for words in SPOKEN_OF):
        return InputError(
            f"there is no room left on the disk{place}: free some and run it again; docs/disk.md says what may be "
            "deleted."
        )
    if number in REFUSED and path:
        return InputError(
            f"{str(path)!r} is refused to this user ({os.strerror(number)}): change its owner or mode, or run as the "
            "user who owns it."
        )
    return None


def of_hub(error: BaseException, what: str, page: str, revision: str) -> InputError:
    """What asking the Hugging Face hub ended in, as one sentence that begins with `what` and ends in the remedy.

    page: `owner/name` of a model, `datasets/owner/name` of a dataset.
    """
    causes = causes_of(error)
    machine = next(filter(None, map(of_machine, causes)), None)
    return machine or InputError(f"{what}: {_hub_remedy(causes, page, revision)}.")


def _hub_remedy(causes: list[BaseException], page: str, revision: str) -> str:
    from huggingface_hub import errors, is_offline_mode

    def has(*kinds: type[BaseException]) -> bool:
        return any(isinstance(cause, kinds) for cause in causes)

    address = f"https://huggingface.co/{page}"
    answer = next((cause for cause in causes if isinstance(cause, errors.HfHubHTTPError)), None)
    status = answer.response.status_code if answer is not None else 0
    is_gated = has(errors.GatedRepoError)
    is_offline = has(errors.OfflineModeIsEnabled) or (has(errors.LocalEntryNotFoundError) and is_offline_mode())
    is_away = answer is None and has(errors.HTTPError, ConnectionError, TimeoutError)
    remedies = (
        (is_offline, "HF_HUB_OFFLINE is set and the files are not in the cache, unset it or name local files"),
        (is_gated and status == 401, "you are not logged in, run `hf auth login` or set HF_TOKEN"),
        (is_gated, f"your account has not accepted its terms, or the token may not read gated data, see {address}"),
        (has(errors.RevisionNotFoundError), f"there is no commit {revision!r}, copy one from {address}/commits/main"),
        (
            has(errors.RepositoryNotFoundError),
            f"the hub does not show it to you, check its name and HF_ENDPOINT, and log in with `hf auth login`, see "
            f"{address}",
        ),
        (
            status == 401,
            "the hub does not accept the token, make a new one and run `hf auth login` or set HF_TOKEN",
        ),
        (status == 403, "the token may not read it, give it read access to gated repositories"),
        (status == 429 or status >= 500, f"the hub is busy (it answered {status}), run it again in some minutes"),
        (is_away, "the hub cannot be reached, check the network, HTTPS_PROXY and HF_ENDPOINT"),
        (has(errors.HFValidationError), "the hub has no such names, write owner/name as on its page"),
    )
    return next((remedy for applies, remedy in remedies if applies), f"{reason_of(causes[0])}, or name local files")


@contextmanager
def one_sentence() -> Iterator[None]:
    """Turns what the machine refuses within the block (space, permission) into InputError."""
    try:
        yield
    except _of_writing() as error:
        sentence = of_machine(error)
        if sentence is None:
            raise
        raise sentence from None


def _of_writing() -> tuple[type[Exception], ...]:
    from safetensors import SafetensorError

    return OSError, RuntimeError, SafetensorError
