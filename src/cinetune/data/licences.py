"""Under which licence an adapter stands: that of the data it was trained on."""

from __future__ import annotations

from cinetune.errors import InputError
from cinetune.task.data_card import MINI, UNKNOWN_LICENCE

# CinePile's data card; its clips belong to their owners besides.
CINEPILE = "CC-BY-NC-SA-4.0"
# Drawn and written by this project's own code.
OWN = "Apache-2.0"


def of_data(name: str, accepted: str) -> str:
    """The licence of adapters trained on a data set; `accepted` is what the user has acknowledged.

    Raises InputError for CinePile as long as its licence is not acknowledged.
    """
    if name == MINI:
        return OWN
    if not name.lower().startswith("cinepile"):
        return accepted or UNKNOWN_LICENCE
    if accepted != CINEPILE:
        raise InputError(
            f"an adapter trained on {name!r} follows CinePile's licence and may be used non-commercially alone: "
            f"set register.accept_licence to {CINEPILE} if you accept that."
        )
    return CINEPILE
