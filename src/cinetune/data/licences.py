"""Under which licence an adapter stands: that of the data it was trained on."""

from __future__ import annotations

from cinetune.errors import InputError
from cinetune.task.data_card import MINI, UNKNOWN_LICENCE
from cinetune.task.description import CINEPILE, Task

# Drawn and written by this project's own code.
OWN = "Apache-2.0"


def of_data(name: str, accepted: str, task: Task = CINEPILE) -> str:
    """The licence of adapters trained on a data set; `accepted` is what the user has acknowledged.

    A description's licence is that of the data called by its name. Raises InputError for one with terms, such as
    CinePile's, as long as it is not acknowledged.
    """
    if name == MINI:
        return OWN
    if not task.licence or not name.lower().startswith(task.name.lower()):
        return accepted or UNKNOWN_LICENCE
    if task.terms and accepted != task.licence:
        raise InputError(
            f"an adapter trained on {name!r} follows {task.name}'s licence: set register.accept_licence to "
            f"{task.licence} if you accept that. {task.terms}"
        )
    return task.licence
