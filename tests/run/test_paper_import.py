"""Runs made of the paper authors' checkpoints: the same logits and boundaries, and every tool works on them."""

from __future__ import annotations

import copy
import json
import zipfile
from pathlib import Path
from typing import Any

import paper
import pytest
import torch
from command import Niblick
from torch import Tensor

from niblick.artifact.foreign.paper_config import read_paper_config
from niblick.data.prepare import prepare
from niblick.errors import ArtifactError, ConfigError, NiblickError
from niblick.run.generate import load
from niblick.run.loading import load_artifact
from niblick.run.paper_import import import_hnet, model_shapes, paper_run_config
from niblick.train.checkpoint import read_tensors

TEXT = "The quick brown fox jumps over the lazy dog; größer?"


def files(folder: Path, config: dict[str, Any], weights: Any) -> tuple[Path, Path]:
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(weights, folder / "hnet.pt")
    (folder / "hnet.json").write_text(json.dumps(config))
    return folder / "hnet.pt", folder / "hnet.json"


def imported(folder: Path, config: dict[str, Any], weights: dict[str, Tensor], **given: Any) -> Path:
    import_hnet(*files(folder, config, weights), folder / "runs", **given)
    return folder / "runs" / "hnet-1"


@pytest.mark.parametrize("name", paper.CONFIGS)
@pytest.mark.parametrize("bias", [True, False])
def test_logits_and_boundaries_are_the_paper_s(name: str, bias: bool, tmp_path: Path) -> None:
    config = paper.CONFIGS[name]
    weights = paper.checkpoint(config, residual_bias=bias)
    run = imported(tmp_path, config, weights)
    model, artifact = load_artifact(run / "artifacts/imported/artifact.nib")
    assert artifact.config["tokenizer"]["bos_id"] == 254 and artifact.config["score"]["dtype"] == "float32"
    model = model.double()
    theirs = paper.Paper(config, weights)
    for text in (TEXT, "aaaa aaaa\n\n\tx = 1"):
        ids = [254, *text.encode()]
        expected = theirs.logits(ids)
        with torch.no_grad():
            hidden_BLD, routings = model.hidden(torch.tensor([ids]))
            logits = model.head(hidden_BLD)[0]
            state = model.new_state(1)
            stepped = torch.cat([model.step(torch.tensor([token]), state) for token in ids])
        found = [torch.nonzero(routing.boundary_BL[0])[:, 0].tolist() for routing in routings]
        assert found == theirs.boundaries
        assert len(found) == len(config["d_model"]) - 1 and all(1 < len(starts) < len(ids) for starts in found)
        # Our rotary angles are float32 in any case.
        assert (logits - expected).abs().max() < 1e-5 * expected.abs().max()
        assert (stepped - expected).abs().max() < 1e-5 * expected.abs().max()


def test_weights_keep_their_dtype_in_the_artifact(tmp_path: Path) -> None:
    weights = paper.checkpoint(paper.ONE_LEVEL, dtype=torch.bfloat16)
    weights["backbone.residual_proj.weight"] = weights["backbone.residual_proj.weight"].float() * 1.01
    run = imported(tmp_path, paper.ONE_LEVEL, weights)
    model, artifact = load_artifact(run / "artifacts/imported/artifact.nib")
    kinds = {name: tensor.scheme for name, tensor in artifact.encoded.items()}
    assert kinds.pop("body.levels.0.residual.weight") == "fp32" and set(kinds.values()) == {"bf16"}
    kept, _ = read_tensors(run / "model.safetensors")
    for name, tensor in model.state_dict().items():
        assert kept[name].dtype == torch.float32
        torch.testing.assert_close(kept[name], tensor, rtol=0, atol=0)
    ours, theirs = model.state_dict(), weights["backbone.encoder.layers.0.mixer.in_proj.weight"]
    torch.testing.assert_close(ours["body.levels.0.encoder.blocks.0.ssm.up.weight"], theirs.float(), rtol=0, atol=0)


def test_the_paper_s_own_sizes(tmp_path: Path) -> None:
    """Their published config of two levels: what its numbers mean, and as many weights as their names add up to."""
    config = {
        "arch_layout": ["m3", ["T1m3", ["T16"], "m3T1"], "m3"],
        "d_model": [512, 768, 1024],
        "d_intermediate": [0, 2048, 2688],
        "vocab_size": 256,
        "ssm_cfg": {"chunk_size": 256, "d_conv": 4, "d_state": 128, "expand": 2},
        "attn_cfg": {"num_heads": [8, 12, 16], "rotary_emb_dim": [32] * 3, "window_size": [1023, 1023, -1]},
        "tie_embeddings": False,
    }
    (tmp_path / "hnet.json").write_text(json.dumps(config))
    model = paper_run_config(read_paper_config(tmp_path / "hnet.json")).model
    main, outer = model.main.block_config(model), model.levels[1].encoder
    assert outer and (main.rotary_width, main.window, main.hidden) == (32, 0, 2688)
    assert (outer.window, model.levels[1].width, len(model.levels)) == (1024, 768, 2)
    ours = sum(torch.Size(shape).numel() for shape in model_shapes(model).values())
    assert ours == sum(torch.Size(shape).numel() for shape in paper.shapes(config).values())


class Call:
    """Pickled, it is a call."""

    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("never run",)


def without(name: str) -> Any:
    return lambda weights: {key: value for key, value in weights.items() if key != name}


def changed(name: str, value: Any) -> Any:
    return lambda weights: {**weights, name: value(weights.get(name)) if callable(value) else value}


WRONG_WEIGHTS: dict[str, tuple[Any, str]] = {
    "missing": (
        without("backbone.encoder.layers.1.mixer.A_log"),
        "has no tensor backbone.encoder.layers.1.mixer.A_log",
    ),
    "extra": (changed("backbone.decoder.layers.2.norm1.weight", torch.ones(32)), "layers.2.norm1.weight has no place"),
    "of another shape": (
        changed("backbone.main_network.main_network.layers.0.mixer.Wqkv.weight", torch.ones(96, 48)),
        r"mixer.Wqkv.weight has shape \(96, 48\), the model of this config expects \(144, 48\)",
    ),
    "integers": (changed("embeddings.weight", lambda t: t.int()), "embeddings.weight is torch.int32, expected one of"),
    "no tensor": (changed("embeddings.weight", "text"), "embeddings.weight is a str, expected the weights of a model"),
    "not finite": (
        changed("backbone.residual_proj.bias", torch.full((32,), float("nan"))),
        "tensor backbone.residual_proj.bias has values that are infinite or NaN",
    ),
    "code": (lambda weights: weights | {"call": Call()}, "holds more than tensors and plain data .*print.*code of"),
    "a list": (lambda weights: [weights], "holds a list, expected a dictionary of tensors"),
    "nothing": (lambda weights: {}, "holds a dict, expected a dictionary of tensors"),
    "stretched": (
        changed("embeddings.weight", lambda t: t[:1].clone().expand(256, 32)),
        r"embeddings.weight of shape \(256, 32\) lies over too little storage",
    ),
}


@pytest.mark.parametrize("name", WRONG_WEIGHTS)
def test_wrong_weights_are_refused(name: str, tmp_path: Path) -> None:
    change, message = WRONG_WEIGHTS[name]
    given = files(tmp_path, paper.ONE_LEVEL, change(paper.checkpoint(paper.ONE_LEVEL)))
    with pytest.raises(ArtifactError, match=message):
        import_hnet(*given, tmp_path / "runs")
    assert not list((tmp_path / "runs").glob("*"))


def test_a_tied_head_must_be_the_embeddings(tmp_path: Path) -> None:
    weights = paper.checkpoint(paper.TWO_LEVELS)
    weights["lm_head.weight"] = weights["lm_head.weight"] + 1
    with pytest.raises(ArtifactError, match=r"lm_head.weight has no place: the config ties it .* it differs"):
        imported(tmp_path, paper.TWO_LEVELS, weights)


@pytest.mark.parametrize("form", ["text", "legacy", "cut", "compressed", "absent", "folder"])
def test_other_files_are_refused(form: str, tmp_path: Path) -> None:
    path, config = files(tmp_path, paper.ONE_LEVEL, paper.checkpoint(paper.ONE_LEVEL))
    data = path.read_bytes()
    if form == "text":
        path.write_text("not weights")
    elif form == "legacy":
        torch.save({"a": torch.ones(3)}, path, _use_new_zipfile_serialization=False)
    elif form == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif form == "compressed":
        with zipfile.ZipFile(path) as old:
            entries = {name: old.read(name) for name in old.namelist()}
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
            for name, entry in entries.items():
                new.writestr(name, entry)
    else:
        path.unlink()
        if form == "folder":
            path.mkdir()
    with pytest.raises(ArtifactError, match=r"hnet\.pt"):
        import_hnet(path, config, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def edited(**changes: Any) -> dict[str, Any]:
    config = copy.deepcopy(paper.ONE_LEVEL)
    for path, value in changes.items():
        *parts, last = path.split("__")
        node = config
        for part in parts:
            node = node[part]
        node[last] = value
    return config


WRONG_CONFIGS: dict[str, tuple[Any, str]] = {
    "no JSON": ("{", "it is no JSON"),
    "no object": ([1], "it has no arch_layout and d_model"),
    "of another model": ({"hidden_size": 4, "num_layers": 2}, "it has no arch_layout and d_model"),
    "an unknown key": (edited(moe=2), "a key 'moe' that theirs have not"),
    "an unknown key inside": (edited(attn_cfg__num_head=[2, 4]), r"attn_cfg has a key 'num_head' .*nearest: num_heads"),
    "an unknown letter": (edited(arch_layout=["c2", ["T2"], "m2"]), "layout 'c2' has the unknown letter 'c'"),
    "no count": (edited(arch_layout=["m", ["T2"], "m2"]), "layout 'm' cannot be read at 'm'"),
    "a huge count": (edited(arch_layout=["m2", ["T99999999"], "m2"]), "cannot be read at 'T99999999'"),
    "four parts": (edited(arch_layout=["m2", ["T2"], "m2", "m2"]), r"where \[encoder, \[inside\], decoder\]"),
    "too few widths": (edited(d_model=[32]), r"d_model=\[32\] is no list of 2 whole numbers"),
    "widths that shrink": (edited(d_model=[96, 48]), "widths may only grow inward"),
    "a fraction": (edited(d_model=[32, 48.0]), "is no list of 2 whole numbers"),
    "no hidden units": (edited(d_intermediate=[0, 0]), "d_intermediate=0 leaves the MLPs of 'T2' without hidden units"),
    "huge hidden units": (edited(d_intermediate=[0, 10**400]), "a number of 401 digits, and at most 20 are read"),
    "heads": (edited(attn_cfg__num_heads=[2, 5]), "num_heads=5 do not divide d_model=48"),
    "rotary": (edited(attn_cfg__rotary_emb_dim=[8, 14]), "rotary_emb_dim=14 is no even part of heads of 12"),
    "inner heads": (edited(d_model=[48, 48]), "ssm_head_width=64 does not divide the inner width 96"),
    "another vocabulary": (edited(vocab_size=300), "vocab_size=300, and the paper's models read bytes"),
    "tied to what": (edited(tie_embeddings=1), "tie_embeddings=1 is neither true nor false"),
}


@pytest.mark.parametrize("name", WRONG_CONFIGS)
def test_wrong_configs_are_refused(name: str, tmp_path: Path) -> None:
    config, message = WRONG_CONFIGS[name]
    weights, path = files(tmp_path, paper.ONE_LEVEL, paper.checkpoint(paper.ONE_LEVEL))
    path.write_text(config if isinstance(config, str) else json.dumps(config))
    with pytest.raises(ConfigError, match=message):
        import_hnet(weights, path, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_the_model_is_settled_by_its_config(tmp_path: Path) -> None:
    given = files(tmp_path, paper.ONE_LEVEL, paper.checkpoint(paper.ONE_LEVEL))
    with pytest.raises(ConfigError, match=r"model.… is settled by .*hnet.json"):
        import_hnet(*given, tmp_path / "runs", overrides=["model.softcap=30"])
    with pytest.raises(NiblickError, match=r"score\.seq_le"):
        import_hnet(*given, tmp_path / "runs", overrides=["score.seq_le=30"])
    assert not (tmp_path / "runs").exists()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("byte256")
    texts = [f"Document {i}: " + "the quick brown fox, " * (3 + i) for i in range(8)]
    (folder / "text.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    prepare(str(folder / "text.jsonl"), "byte256", folder / "data", val_docs=2)
    return folder / "data"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["one level", "two levels"])
def test_every_tool_works(name: str, data: Path, tmp_path: Path, niblick: Niblick) -> None:
    config = paper.CONFIGS[name]
    weights, path = files(tmp_path, config, paper.checkpoint(config))
    settings = ["score.seq_len=64", "score.batch_tokens=128"]
    result = niblick.json("import", "hnet", weights, path, *settings, "--data", data, "--runs", tmp_path / "runs")
    run = Path(result["run"])
    assert result["artifact"] == "imported" and result["imported"]["file"] == "hnet.pt"

    generated = niblick.json("generate", run, "--prompt", "The ", "--max-bytes", "20")
    assert generated["prompt"] == "The " and generated["text"].encode().decode() == generated["text"]
    cut = niblick.json("boundaries", run, "--text", TEXT)
    edges = [(chunk["start"], chunk["end"]) for chunk in cut["chunks"] if chunk["level"] == 0]
    assert [0, *(end for _, end in edges)] == [*(start for start, _ in edges), len(TEXT.encode())]
    assert {chunk["level"] for chunk in cut["chunks"]} == set(range(len(config["d_model"]) - 1))

    score = niblick.json("eval", run)
    assert score["lossless"] is True and score["bytes"] == sum(len(t) for t in documents(data))
    packed = niblick.json("export", run, "scheme=int6", "codec=range")
    assert packed["artifact_bytes"] < result["artifact_bytes"] / 3
    assert packed["bpb"] == pytest.approx(score["bpb"], rel=0.2)

    (tmp_path / "text.txt").write_bytes(TEXT.encode() * 2)
    coded, back = tmp_path / "text.nbz", tmp_path / "back.txt"
    niblick.json("compress", tmp_path / "text.txt", "--model", run, "--out", coded)
    niblick.json("decompress", coded, "--model", run, "--out", back)
    assert back.read_bytes() == TEXT.encode() * 2
    (tmp_path / "any.bin").write_bytes(bytes(range(256)))
    niblick.json("compress", tmp_path / "any.bin", "--model", run, "--out", coded)
    niblick.json("decompress", coded, "--model", run, "--out", tmp_path / "any.back")
    assert (tmp_path / "any.back").read_bytes() == bytes(range(256))


def documents(data: Path) -> list[str]:
    rows = [json.loads(line)["text"] for line in (data.parent / "text.jsonl").read_text().splitlines()]
    return rows[:2]


def test_refusals_are_one_sentence(tmp_path: Path, niblick: Niblick) -> None:
    weights, path = files(tmp_path, paper.ONE_LEVEL, {"call": Call()})
    err = niblick.refused("import", "hnet", weights, path, "--runs", tmp_path / "r")
    assert "code of strangers is not run" in err and "never run" not in err
    assert not (tmp_path / "r").exists()


def test_generation_ends_at_both_ends_of_documents(tmp_path: Path) -> None:
    """EOS ends a text as BOS of the next does; other control tokens there are none."""
    weights = paper.checkpoint(paper.ONE_LEVEL)
    weights["lm_head.weight"][255] = 0
    run = imported(tmp_path, paper.ONE_LEVEL, weights, overrides=["score.seq_len=64"])
    loaded = load(run / "artifacts/imported/artifact.nib")
    assert len(loaded.generate("a", max_bytes=8, seed=1)) > 0
    head = loaded.model.unembed
    assert head is not None
    head.weight.data[:] = 0
    head.weight.data[255] = 100 * loaded.model.hidden(torch.tensor([[254, 97]]))[0][0, -1].detach()
    assert loaded.generate("a", max_bytes=8, seed=1) == ""
