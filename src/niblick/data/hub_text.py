"""Datasets of the hub as rows of text, streamed by the `datasets` library at one commit.

Nothing that comes with a dataset is run: scripts are refused by the library from version 4 on, which is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from niblick.data.columns import BATCH_ROWS, arrow_rows
from niblick.data.hub import HubAddress, in_sentences, pinned
from niblick.data.row_sources import Rows
from niblick.errors import DataError, listed

SHUFFLED = 10_000
"""Rows among which one is drawn where a stream is shuffled; its files are shuffled too."""


def hub_rows(source: str, key: str, seed: int | None) -> Rows:
    """The rows of `hf:REPO[@REVISION][:CONFIG][:SPLIT][#COLUMN]`; `key` is the column where the address names none.

    `seed` shuffles them. Raises DataError for what the hub does not have or does not give.
    """
    address = HubAddress.parse(source)
    library = _library()
    revision = pinned(address, "dataset")
    column = address.column or key
    with in_sentences(address, "dataset"):
        config, split = _chosen(address, library, revision)
        stream = library.load_dataset(address.repo, name=config, split=split, revision=revision or None, streaming=True)
    name = address.name if address.folder else address.repo
    whole = f"hf:{name}:{config}:{split}#{column}"

    def rows() -> Iterator[tuple[object, object]]:
        ordered = stream if seed is None else stream.shuffle(seed=seed, buffer_size=SHUFFLED)
        with in_sentences(address, "dataset"):
            yield from arrow_rows(ordered.with_format("arrow").iter(BATCH_ROWS), column, whole)

    facts = {"repository": name, "revision": revision or None, "config": config, "split": split, "column": column}
    return Rows(address.name, whole, rows, revision, address.folder, {"hub": facts | {"shuffle_seed": seed}})


def _library() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise DataError("datasets of the hub need its library; run `pip install niblick[hub]`") from error
    if int(datasets.__version__.partition(".")[0]) < 4:
        raise DataError(
            f"datasets {datasets.__version__} may run scripts that come with a dataset; run `pip install 'datasets>=4'`"
        )
    return datasets


def _chosen(address: HubAddress, library: Any, revision: str) -> tuple[str, str]:
    """The config and the split that an address names, or the ones there are."""
    pin = {"revision": revision or None}
    configs = [str(each) for each in library.get_dataset_config_names(address.repo, **pin)]
    parts = address.parts
    if len(parts) == 1 and parts[0] and parts[0] not in configs:
        parts = ("", parts[0])  # the name of a split
    config, split = (*parts, "", "")[:2]
    config = config or (configs[0] if len(configs) == 1 else "default")
    if config not in configs:
        wanted = f"neither a config nor a split {split!r}" if split else "several configs"
        wanted = f"no config {parts[0]!r}" if parts[:1] != ("",) and any(parts) else wanted
        raise DataError(f"{address.repo} has {wanted}; name one of {listed(configs)}, as in hf:{address.repo}:CONFIG")
    splits = [str(each) for each in library.get_dataset_split_names(address.repo, config, **pin)]
    split = split or (splits[0] if len(splits) == 1 else "train")
    if split not in splits:
        raise DataError(
            f"{address.repo} has no split {split!r}; name one of {listed(splits)}, as in "
            f"{_with_split(address, config)}:SPLIT"
        )
    return config, split


def _with_split(address: HubAddress, config: str) -> str:
    named = replace(address, parts=())
    return f"hf:{named.repo}:{config}"
