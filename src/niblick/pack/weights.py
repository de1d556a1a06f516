"""Anyone's weights under a cap: what `niblick.pack(state_dict, scheme, cap)` calls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from niblick.arguments import Count, PathLike
from niblick.arguments import checked as careful
from niblick.artifact.container import artifact_bytes, parse_artifact
from niblick.artifact.dequantize import EncodedTensor
from niblick.errors import ArtifactError
from niblick.files import write_bytes
from niblick.pack.export_config import ExportConfig
from niblick.pack.fit import fit
from niblick.pack.quantize import checked, pack, schemes_of
from niblick.pack.sensitivity import Evaluate


@dataclass(frozen=True)
class Packed:
    """Weights in the form of an artifact file."""

    data: bytes
    """The whole file."""

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return len(self.data)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the float32 tensors that the file gives back, by name."""
        return parse_artifact(self.data).state_dict()

    @careful
    def save(self, path: PathLike) -> None:
        """Write the file; `niblick.artifact.container.read_artifact` reads it."""
        write_bytes(Path(path), self.data)


def pack_weights(
    state: Mapping[str, Tensor],
    scheme: str | None = None,
    cap: Count | None = None,
    *,
    codec: str = "range",
    evaluate: Evaluate | None = None,
) -> Packed:
    """Pack float tensors by `scheme` (`int6`, `ecsq4.5`, …; see `pack.schemes`), or as well as `cap` bytes allow.

    With a cap and no scheme, bits go to tensors where `evaluate(state) -> loss` says that they save most, and the file
    takes at least 99.5% of the cap unless float32 fits; without `evaluate` the loss is the sum over tensors of the
    squared error relative to the tensor's own size. Neither given: int8. Raises ArtifactError if the cap is too small,
    for the scheme or for anything, or if a tensor cannot be packed; ConfigError for an unknown scheme or codec.
    """

    def measure(encoded: Mapping[str, EncodedTensor]) -> int:
        return len(artifact_bytes({}, encoded, codec))

    config = ExportConfig(scheme or "int8", codec=codec)
    if scheme is None and cap is not None:
        kept = {name: checked(name, state[name]) for name in schemes_of(state, ExportConfig("fp32"))}
        found = fit(kept, cap, evaluate or _relative_error(kept), measure, ladder=()).encoded
    else:
        found = pack(state, config)
    packed = Packed(artifact_bytes({}, found, codec))
    if cap is not None and packed.size > cap:
        raise ArtifactError(
            f"as {scheme} the weights take {packed.size:,} bytes, over the cap of {cap:,}; "
            "name a smaller scheme, or none to have one fitted"
        )
    return packed


def _relative_error(original: Mapping[str, Tensor]) -> Evaluate:
    sizes = {name: float(tensor.square().sum()) or 1.0 for name, tensor in original.items()}

    def error(state: Mapping[str, Tensor]) -> float:
        return sum(float((state[n] - original[n]).square().sum()) / size for n, size in sizes.items())

    return error
