"""The text of an artifact as a sidecar knows it: unpacked once, read before the first target.

The mixture that unpacks a text has learned it on the way: it is the one that has read it. So a sidecar with the
setting that the text was packed with pays for one reading, any other for two.

Shapes: N tokens.
"""

from __future__ import annotations

import copy
from functools import cached_property

from niblick.artifact.packed_text import PackedText
from niblick.errors import ArtifactError, ConfigError
from niblick.score.mixing_coder import pack, unpack
from niblick.score.mixture import SETTINGS, Integers, Mixture
from niblick.score.score_config import MEMORY, SidecarConfig


class KnownText:
    """A packed text and its tokens; nothing is unpacked before it is asked for."""

    def __init__(self, packed: PackedText, vocab_size: int) -> None:
        """Raises ArtifactError if no mixture of this niblick can have packed it."""
        if packed.mix not in SETTINGS or packed.memory not in MEMORY:
            raise ArtifactError(
                f"the artifact's text was packed with mix={packed.mix!r} and memory={packed.memory}, which this "
                "niblick does not have: export it again"
            )
        self.packed, self.vocab_size = packed, vocab_size

    @classmethod
    def packing(
        cls, tokens_N: Integers, vocab_size: int, config: SidecarConfig, count: int, documents: int
    ) -> KnownText:
        """Pack tokens, which stand for `count` bytes of text in so many documents: what packed them has read them."""
        mixture = Mixture(vocab_size, SETTINGS[config.mix], config.memory)
        data = pack(tokens_N, mixture)
        known = cls(PackedText(data, len(tokens_N), count, documents, config.mix, config.memory), vocab_size)
        known.__dict__["_unpacked"] = tokens_N, mixture
        return known

    @cached_property
    def _unpacked(self) -> tuple[Integers, Mixture]:
        mixture = Mixture(self.vocab_size, SETTINGS[self.packed.mix], self.packed.memory)
        try:
            tokens_N = unpack(self.packed.data, mixture, most=self.packed.tokens)
        except ArtifactError as error:
            raise ArtifactError(f"the artifact's text cannot be read: {error}") from None
        if len(tokens_N) != self.packed.tokens:
            raise ArtifactError(
                f"the artifact's text has {len(tokens_N):,} tokens and its header says {self.packed.tokens:,}: export "
                "it again"
            )
        return tokens_N, mixture

    @property
    def tokens_N(self) -> Integers:
        """Its tokens. Raises ArtifactError if it does not decode."""
        return self._unpacked[0]

    @staticmethod
    def expect_kept(config: SidecarConfig) -> None:
        """Raise ConfigError for a sidecar that would forget the text with the first document."""
        if config.reset == "document":
            raise ConfigError(
                "score.sidecar.reset=document forgets the artifact's text with the first document: set "
                "score.sidecar.reset=carry, or export without text"
            )

    def mixture(self, config: SidecarConfig) -> Mixture:
        """Return a mixture of these settings that has read the text, to go on with."""
        tokens_N, reader = self._unpacked
        if (config.mix, config.memory) == (self.packed.mix, self.packed.memory):
            return copy.deepcopy(reader)
        mixture = Mixture(self.vocab_size, SETTINGS[config.mix], config.memory)
        mixture.read(tokens_N)
        return mixture

    def beginning(self, tokens: int, config: SidecarConfig) -> KnownText:
        """Return the first tokens as a text of their own, for checks that cannot wait for all of it."""
        part_N = self.tokens_N[:tokens]
        return KnownText.packing(part_N, self.vocab_size, config, 0, 0)
