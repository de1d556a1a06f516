"""Coding with a mixture beside the model: what `coding` needs in place of its own coder where one reads along.

The mixture learns every token once it is coded, in the order of the stream and by the same code as in scoring, so
encoder and decoder know the same before each. It goes on from block to block.

Shapes: R lanes, of which there is one here; V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from niblick.score.known_text import KnownText
from niblick.score.mixing_coder import Reader, Writer
from niblick.score.mixture import SETTINGS, Floats, Mixture
from niblick.score.ngram_mixture import log_softmax
from niblick.score.score_config import SidecarConfig

Tokens = npt.NDArray[np.uint16]


class Along:
    """A mixture on its way through a stream that is coded; it may know a text from before."""

    def __init__(self, config: SidecarConfig, vocab_size: int, bos_id: int, text: KnownText | None) -> None:
        """Raises ConfigError for a text that would be forgotten with the first document."""
        if text is not None:
            text.expect_kept(config)
        self._config, self._vocab_size, self._bos_id, self._text = config, vocab_size, bos_id, text
        self.mixture = self._new()

    def _new(self) -> Mixture:
        known = self._text
        config = self._config
        mixture = known.mixture(config) if known else Mixture(self._vocab_size, SETTINGS[config.mix], config.memory)
        mixture.reveal(self._bos_id)
        return mixture

    def writer(self) -> MixedWriter:
        """Return what takes the targets of the next block."""
        return MixedWriter(Writer(self.mixture), self._done)

    def reader(self, data: bytes) -> MixedReader:
        """Return what gives the targets of the next block."""
        return MixedReader(Reader(self.mixture, data), self._done)

    def _done(self, coder: Writer | Reader, token: int) -> None:
        """Forget all at a document's end, where that is asked for."""
        if self._config.reset == "document" and token == self._bos_id:
            self.mixture = coder.mixture = self._new()


Done = Callable[[Writer | Reader, int], None]


class MixedWriter:
    """Takes the targets of an encoder, one at a time."""

    def __init__(self, coder: Writer, done: Done) -> None:
        self._coder, self._done = coder, done

    def code(self, logits_RV: torch.Tensor, known_R: Tokens) -> Tokens:
        """Write a token under what mixture and model say together, and return it."""
        self._coder.write(known_R.astype(np.int64), _distribution(logits_RV))
        self._done(self._coder, int(known_R[0]))
        return known_R

    def data(self) -> bytes:
        """What was written; a reader adds the zeros at its end by itself."""
        return self._coder.finish().rstrip(b"\0")


class MixedReader:
    """Gives the tokens of a decoder, one at a time."""

    def __init__(self, coder: Reader, done: Done) -> None:
        self._coder, self._done = coder, done

    def code(self, logits_RV: torch.Tensor, known_R: Tokens) -> Tokens:
        """Read a token. What no encoder writes gives some token or other: the block's check will tell."""
        tokens_R = self._coder.read(len(known_R), _distribution(logits_RV))
        self._done(self._coder, int(tokens_R[0]))
        return tokens_R.astype(np.uint16)


def _distribution(logits_RV: torch.Tensor) -> Floats:
    return np.exp(log_softmax(logits_RV.double().numpy()))
