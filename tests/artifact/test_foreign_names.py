"""Published names map onto ours and back, one to one, and nothing else passes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from niblick.artifact.foreign.names import from_published, to_published
from niblick.errors import ArtifactError

REFERENCE = Path(__file__).parents[1] / "reference"


def published_state(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return {name.removeprefix("param/"): file[name] for name in file.files if name.startswith("param/")}


@pytest.mark.parametrize(
    "name", ["hnet_byte260.npz", "hnet_sp1024.npz", "baseline_gpt.npz", "tinyhnet.npz", "soft_chunker_gpt.npz"]
)
def test_there_and_back(name: str) -> None:
    state = published_state(REFERENCE / name)
    ours = from_published(state)
    assert len(ours) == len(state)
    assert [id(tensor) for tensor in ours.values()] == [id(tensor) for tensor in state.values()]
    assert all(new.startswith(("embed.", "body.")) for new in ours)
    assert list(to_published(ours)) == list(state)


def test_hnet_names() -> None:
    published = [
        "tok_emb.weight",
        "encoder_stage.skip_weights",
        "main_stage.blocks.10.attn.c_q.weight",
        "decoder_stage.blocks.0.mlp.proj.weight",
        "routing0.k_proj.weight",
        "residual_proj0.weight",
        "lm_head.weight",
    ]
    assert list(from_published(dict.fromkeys(published))) == [
        "embed.weight",
        "body.levels.0.encoder.skip_weights",
        "body.main.blocks.10.attn.q.weight",
        "body.levels.0.decoder.blocks.0.mlp.down.weight",
        "body.levels.0.router.k.weight",
        "body.levels.0.residual.weight",
        "unembed.weight",
    ]


def test_dense_names() -> None:
    published = ["tok_emb.weight", "skip_weights", "blocks.3.attn.proj.weight", "blocks.3.resid_mix", "lm_head.weight"]
    ours = ["embed.weight", "body.main.skip_weights", "body.main.blocks.3.attn.out.weight"]
    ours += ["body.main.blocks.3.resid_mix", "unembed.weight"]
    assert list(from_published(dict.fromkeys(published))) == ours
    assert list(to_published(dict.fromkeys(ours))) == published


@pytest.mark.parametrize(
    ("convert", "names", "unknown"),
    [
        (from_published, ["tok_emb.weight", "blocks.0.mlp.gate.weight"], "blocks.0.mlp.gate.weight"),
        (from_published, ["main_stage.skip_weights", "blocks.0.resid_mix"], "blocks.0.resid_mix"),
        (from_published, ["chunker.layers.0.gate.weight"], "chunker.layers.0.gate.weight"),
        (from_published, ["embed.weight"], "embed.weight"),
        (to_published, ["body.levels.1.router.q.weight"], "body.levels.1.router.q.weight"),
        (to_published, ["body.main.blocks.x.resid_mix"], "body.main.blocks.x.resid_mix"),
    ],
)
def test_unknown_names_are_named(convert, names: list[str], unknown: str) -> None:
    with pytest.raises(ArtifactError, match=f"'{unknown}' has no place among"):
        convert(dict.fromkeys(names))
