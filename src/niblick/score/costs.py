"""What each document costs, kept beside a score: a small NumPy file that comparisons read instead of scoring again."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from niblick.data.index import map_array
from niblick.errors import DataError
from niblick.files import write_bytes

COST = np.dtype([("nats", "<f8"), ("bytes", "<u4"), ("tokens", "<u4")])
"""A record per document of the split's index: cost of its tokens, UTF-8 bytes of its text, tokens (BOS included)."""


def document_costs(index: npt.NDArray[Any], nats_D: npt.NDArray[np.float64]) -> npt.NDArray[Any]:
    """Put the costs of documents, in nats, beside what the document index says of them: (D,) of dtype COST."""
    costs = np.empty(len(index), COST)
    costs["nats"], costs["bytes"], costs["tokens"] = nats_D, index["bytes"], index["tokens"]
    return costs


def write_costs(folder: Path, costs: npt.NDArray[Any]) -> str:
    """Write the next `documents-<n>.npy` of `folder`; return its name, for the score record.

    n is the line of scores.jsonl that is written next: a file of that name is what a killed scoring left.
    """
    scores = folder / "scores.jsonl"
    number = 1 + (scores.read_bytes().count(b"\n") if scores.is_file() else 0)
    path = folder / f"documents-{number}.npy"
    held = io.BytesIO()
    np.save(held, costs, allow_pickle=False)
    write_bytes(path, held.getvalue())
    return path.name


def read_costs(folder: Path, name: str | None) -> npt.NDArray[Any] | None:
    """Read the file that a score record names; None if it names none. Raises DataError if it is missing or damaged."""
    if name is None:
        return None
    path = folder / Path(name).name
    try:
        costs = map_array(path)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            f"The document costs {path} cannot be read ({error}); score again by `niblick eval`."
        ) from error
    if costs.dtype != COST or costs.ndim != 1:
        raise DataError(f"{path} holds no document costs (its records are {costs.dtype}); score again.")
    return costs
