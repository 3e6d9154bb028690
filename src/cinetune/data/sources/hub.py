"""The dataset on the Hugging Face hub: the Parquet files of one version and split at one commit."""

from __future__ import annotations

from collections.abc import Iterator

from cinetune.data.sources import formats
from cinetune.data.sources.formats import BATCH_ROWS, Row
from cinetune.errors import InputError, reason_of

NAME = "tomg-group-umd/cinepile"
VERSIONS = ("v1", "v2")


def rows(version: str, revision: str, split: str) -> Iterator[Row]:
    import datasets
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    if not revision:
        raise InputError("download.revision is empty: name the commit of the hub's dataset, its rows change.")
    try:
        # Without a name the hub gives whichever version its card calls the default today.
        names = datasets.get_dataset_config_names(NAME, revision=revision)
        name = version if version in names else "default"
        table = datasets.load_dataset(NAME, name, revision=revision, split=split)
    except (datasets.exceptions.DatasetsError, HfHubHTTPError, OfflineModeIsEnabled, OSError, ValueError) as error:
        raise InputError(
            f"questions {version!r} cannot be loaded from {NAME} ({reason_of(error)}): accept its terms and log in "
            "with `hf auth login`, or name local files."
        ) from None
    for batch in table.with_format("arrow").iter(BATCH_ROWS):
        for found in batch.to_batches():
            yield from formats.batch_rows(found)
