"""The check of the text in an artifact: is it what the header says, and none of what is scored?

A sidecar that has read the validation text would know it. So every run of validation text is looked for in the text;
where it stands in a document of the training text as that is, it is the training text's own, which the check of split
hygiene judges.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from niblick.audit.checks import Check, failed, passed
from niblick.audit.copies import RUN, Copy, Matches, normal
from niblick.audit.text_checks import document_spans
from niblick.data.dataset import Dataset, Split
from niblick.data.tokenizers import Tokenizer
from niblick.errors import ArtifactError
from niblick.score.known_text import KnownText

NAME = "text in the artifact"


def artifact_text(text: KnownText, dataset: Dataset) -> Check:
    """Unpack a text, count it, and look for validation text in it."""
    try:
        tokens_N = text.tokens_N.astype(np.uint16)
    except ArtifactError as error:
        return failed(NAME, str(error))
    own, tokenizer, packed = Split("text", [], [tokens_N]), dataset.tokenizer, text.packed
    spans = document_spans(own, tokenizer.bos_id)
    documents = [tokens_N[at : at + length] for at, length in spans]
    counted = sum(int(tokenizer.token_bytes(span[:-1], span[1:]).sum()) for span in documents)
    facts: dict[str, object] = {"packed_bytes": len(packed.data), "bytes": counted, "documents": len(documents)}
    if (counted, len(documents)) != (packed.bytes, packed.documents):
        said = f"the header says {packed.bytes:,} bytes of {packed.documents:,} documents"
        return failed(NAME, f"{said}, and the text has {counted:,} of {len(documents):,}", **facts)
    known = _known(documents, dataset.train, tokenizer)
    facts |= {"training_documents": sum(known)}
    told = f"{counted:,} bytes of text in {len(packed.data):,} of the artifact; "
    runs = list(_runs(documents, dataset.val, tokenizer))
    foreign = [(number, copy) for number, copy in runs if not known[number]]
    facts |= {"runs": len(runs), "foreign_runs": len(foreign)}
    if foreign:
        number, worst = max(foreign, key=lambda found: found[1].length)
        found = (
            f"{len(foreign):,} runs of validation text stand in documents that are no training documents; the longest: "
            f"{worst.length:,} bytes of validation document {worst.document} in document {number} of the text"
        )
        return failed(NAME, told + found, **facts, document=number, val_document=worst.document)
    where = f"{sum(known):,} of its {len(documents):,} documents are training documents as they are"
    if runs:
        return passed(
            NAME, f"{told}{where}; the {len(runs):,} runs of validation text in it stand in these alone", **facts
        )
    return passed(NAME, f"{told}{where}, and no run of {RUN} bytes of validation text stands in it", **facts)


def _known(documents: list[npt.NDArray[np.uint16]], train: Split, tokenizer: Tokenizer) -> list[bool]:
    """Whether each document is a training document, or the beginning of one."""
    spans = list(document_spans(train, tokenizer.bos_id))
    digests = {_digest(train.slice(at, length)) for at, length in spans}
    known = [_digest(document) in digests for document in documents]
    for number in (n for n, is_known in enumerate(known) if not is_known):
        document = documents[number]
        for at, length in spans:
            if length > len(document) and np.array_equal(train.slice(at, len(document)), document):
                known[number] = True
                break
    return known


def _digest(tokens: npt.NDArray[np.uint16]) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(tokens, "<u2").data).digest()


def _runs(documents: list[npt.NDArray[np.uint16]], val: Split, tokenizer: Tokenizer) -> Iterator[tuple[int, Copy]]:
    """Each run of validation text in a document, with the document's number."""
    spans = document_spans(val, tokenizer.bos_id)
    wanted = Matches([normal(tokenizer.decode(val.slice(at, length))) for at, length in spans])
    for number, document in enumerate(documents):
        for copy in wanted.runs(normal(tokenizer.decode(document))):
            yield number, copy
