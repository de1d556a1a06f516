"""Scripts over options: whatever a config says, `train_gpt.py` trains, packs and scores what niblick does.

A pairwise cover of the options (every two choices that go together stand in some config), every preset made small, and
recipes with parts of their own. Each trains twenty steps twice: here, and as the script that ships, in a process of its
own where no niblick can be imported. Losses, weights as they come out of the artifact, and scores must be the same.
"""

from __future__ import annotations

import functools
import json
import random
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from allpairspy import AllPairs
from forked import Forked, start
from told import noted

from niblick.artifact.container import read_artifact, write_artifact
from niblick.audit import auditor as auditing
from niblick.audit.function_checks import Effort
from niblick.bundle import make_script
from niblick.config.run_config import DataConfig, EntropyConfig, RunConfig
from niblick.data.prepare import prepare
from niblick.errors import ConfigError
from niblick.model.lm import LM
from niblick.model.model_config import LevelConfig, ModelConfig, NgramConfig, StageConfig
from niblick.pack.export_config import ExportConfig, ResidualConfig
from niblick.pack.schemes import FLOATS, PUBLISHED
from niblick.recipes.presets import PRESETS, get_preset, load_recipe
from niblick.run import packing, pipeline, prepared, scoring
from niblick.run.directory import Run
from niblick.run.entropy import resolve_entropy
from niblick.score.score_config import ScoreConfig, SidecarConfig, TTTConfig
from niblick.submission.folder import submit
from niblick.submission.rerun import handling
from niblick.train.regularizers import PENALTIES
from niblick.train.schedule import ScheduleConfig
from niblick.train.settings import PenaltyConfig, QATConfig, TrainConfig

STEPS = 20
TEXT = "the quick brown fox jumps over a lazy dog while seven wizards boxed Ångström and vexed Zoë's jocks 42"


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Scores are made in this process (other tests have them from a fresh one), on one thread as in the scripts."""

    def score(run: Run, name: str) -> dict[str, Any]:
        return scoring.score_artifact(run.artifact(name), run.config().data.path, run=run)

    monkeypatch.setattr(pipeline, "official_score", score)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def texts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The same little text as bytes and as subwords."""
    folder = tmp_path_factory.mktemp("texts")
    draw = random.Random(0)
    documents = [" ".join(draw.choices(TEXT.split(), k=60 + 5 * (i % 7))) + "." for i in range(120)]
    (folder / "text.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in documents))
    prepare(str(folder / "text.jsonl"), "byte260", folder / "bytes", val_docs=3)
    prepare(str(folder / "text.jsonl"), "sp:300", folder / "subwords", val_docs=3)
    return {name: str(folder / name) for name in VOCABULARY}


@pytest.fixture(scope="session")
def small_models(texts: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An artifact of a small model for each kind of tokens, which the router `entropy` asks."""
    from niblick.pack.quantize import pack
    from niblick.run.loading import build_model

    found = {}
    for tokens, path in texts.items():
        config = replace(built({"tokens": tokens}), data=DataConfig(path))
        config = replace(config, model=replace(config.model, width=16, main=StageConfig("T1"), levels=()))
        state = build_model(config.model, seed=5).state_dict()
        state["embed.weight"].normal_(std=0.5)  # or all tokens were as likely
        found[tokens] = tmp_path_factory.mktemp("small") / f"{tokens}.nib"
        header = packing.artifact_header(config, prepared.open_data(config).tokenizer.spec())
        write_artifact(found[tokens], header, pack(state), "zlib")
    return found


# The options

VOCABULARY = {"bytes": 260, "subwords": 300}
ROUTERS = ("cosine", "cosine-threshold", "cosine-bias", "soft", "fixed", "whitespace", "entropy")
TABLES = (NgramConfig(2, 64, 8), NgramConfig(3, 64, 8))
EMBEDDINGS: dict[str, dict[str, Any]] = {
    "tied": {},
    "untied": {"tie_embeddings": False},
    "factorized": {"embed_width": 16},
    "ngrams": {"ngrams": TABLES},
    "words": {"ngrams": (NgramConfig(2, 64, 8), NgramConfig(1, 64, 8, words=True), NgramConfig(2, 64, 8, words=True))},
}
DECHUNKS: dict[str, dict[str, Any]] = {
    "smooth": {},
    "decay": {"dechunk": "decay", "ratio": "square", "entropy_weight": 0.01, "confidence": False, "lr_mult": 0.5},
}
SCHEMES: dict[str, dict[str, Any]] = {
    "published": {"scheme": PUBLISHED},
    "int6": {"scheme": "int6:auto", "rules": ("embed*=int8:g16",)},
    "ternary": {"scheme": "ternary:g16:log"},
    "ecsq4": {"scheme": "ecsq4:column"},
    "bf16": {"scheme": "bf16"},
}
SPARSE: dict[str, dict[str, Any]] = {
    "": {},
    "prune": {"prune": 0.1},
    "permute": {"permute": True},
    "both": {"prune": 0.1, "permute": True},
}
RESIDUALS: dict[str, ResidualConfig] = {
    "": ResidualConfig(),
    "residual8": ResidualConfig(512),
    "residual16": ResidualConfig(256, "fp16", "mlp-out"),
}
SCORERS: dict[str, dict[str, Any]] = {
    "contiguous": {},
    "sliding": {"scorer": "sliding", "stride": 32},
    "document": {"scorer": "document", "stride": 48},
    "first2": {"documents": 2, "capacity": "divisor:2"},
}
LEARNERS: dict[str, dict[str, Any]] = {
    "": {},
    "ttt": {"ttt": TTTConfig("sgd", chunk_tokens=256, step_tokens=64, epochs=1)},
    "lora": {"ttt": TTTConfig("adamw", lora=2, weights="body.*", chunk_tokens=128, step_tokens=64, reset="document")},
    "cache": {"sidecar": SidecarConfig("cache")},
    "bigram": {"sidecar": SidecarConfig("bigram", reset="document")},
    "ngram": {"sidecar": SidecarConfig("ngram", order=4)},
}
AWARE: dict[str, dict[str, Any]] = {
    "": {},
    "qat": {"qat": QATConfig(share=0.5, refresh=5)},
    "qat3": {"qat": QATConfig(lr_scale=0.9, scheme="int3")},
    "penalties": {"penalties": tuple(PenaltyConfig(kind, 1e-3, interval=4) for kind in PENALTIES)},
}
OPTIONS: dict[str, Sequence[str]] = {
    "outer": ("dense", "T", "c", "m", "two", "bare"),
    "router": ROUTERS,
    "learner": tuple(LEARNERS),
    "main": ("T1", "t1C1", "m1", "M1", "c2"),
    "embedding": tuple(EMBEDDINGS),
    "scheme": tuple(SCHEMES),
    "gptq": ("off", "float", "quantized"),
    "codec": ("zlib", "zstd", "brotli", "range"),
    "scorer": tuple(SCORERS),
    "average": ("raw", "ema", "swa", "best"),
    "aware": tuple(AWARE),
    "sparse": tuple(SPARSE),
    "residual": tuple(RESIDUALS),
    "capacity": ("bucketed", "packed", "divisor:4"),
    "data": ("stream", "shuffle", "documents"),
    "init_from": ("", "whitespace"),
    "dechunk": tuple(DECHUNKS),
    "tokens": tuple(VOCABULARY),
}


def stage(layout: str, **settings: Any) -> StageConfig:
    return StageConfig(layout, ssm_state=8, ssm_head_width=16, **settings)


def levels(row: dict[str, str]) -> tuple[LevelConfig, ...]:
    outer, router, capacity = row["outer"], row["router"], row["capacity"]
    more = DECHUNKS[row["dechunk"]] | {"target_length": 4.0, "bucket": 4}
    layouts = {"T": ("T1", "T1"), "c": ("c1", "C1"), "m": ("m1", "M1"), "two": ("c1", "c1"), "bare": (None, None)}
    if outer == "dense":
        return ()
    around = [stage(layout) if layout else None for layout in layouts[outer]]
    if outer != "two":
        return (LevelConfig(*around, router, capacity=capacity, **more),)
    inside = LevelConfig(stage("T1"), stage("T1"), target_length=2.0, capacity=capacity)
    return LevelConfig(*around, router, capacity="bucketed" if capacity == "packed" else capacity, **more), inside


def built(choices: dict[str, str]) -> RunConfig:
    """The config of these choices, the first where none is made. Raises ConfigError for what does not go together."""
    row = {name: values[0] for name, values in OPTIONS.items()} | choices
    aware = dict(AWARE[row["aware"]])
    return RunConfig(
        preset="cover",
        tokenizer="byte260" if row["tokens"] == "bytes" else "sp1024",
        model=ModelConfig(
            width=32,
            heads=2,
            kv_heads=1,
            mlp_mult=3.0,  # matrices large enough to be rounded
            vocab_size=VOCABULARY[row["tokens"]],
            levels=levels(row),
            main=stage(row["main"], norm_in=row["outer"] != "bare"),
            **EMBEDDINGS[row["embedding"]],
        ),
        data=DataConfig(
            order="shuffle" if row["data"] == "shuffle" else "stream",
            packing="documents" if row["data"] == "documents" else "stream",
        ),
        train=TrainConfig(
            seq_len=64,
            batch_tokens=512,
            micro_batch_tokens=256,
            warmup_steps=1,
            val_every=10,
            log_every=1,
            dtype="float32",
            average=row["average"],  # type: ignore[arg-type]
            init_from=row["init_from"],
            init_steps=10,
            penalties=aware.pop("penalties", ()),
        ),
        schedule=ScheduleConfig(steps=STEPS, warmdown_steps=10),
        export=ExportConfig(
            **SCHEMES[row["scheme"]],
            **SPARSE[row["sparse"]],
            codec=row["codec"],
            gptq=row["gptq"],
            calibration_tokens=512,
            residual=RESIDUALS[row["residual"]],
        ),
        score=ScoreConfig(seq_len=64, batch_tokens=1024, **SCORERS[row["scorer"]], **LEARNERS[row["learner"]]),
        **aware,
    )


@functools.cache
def tensors_fit(model: ModelConfig, export: ExportConfig, aware: str) -> bool:
    """Whether there is a tensor for what corrects, rounds or penalizes them."""
    if model.levels and model.levels[0].router == "entropy":
        model = replace(model, levels=(replace(model.levels[0], router="fixed"), *model.levels[1:]))
    config = replace(built({"aware": aware}), model=model, export=export)
    try:
        with torch.device("meta"):
            prepared.compression_aware(LM(model), config)
    except ConfigError:
        return False
    has_mlp = any(letter in model.main.layout for letter in "TMC")
    return not export.residual.bytes or (
        export.scheme not in (PUBLISHED, *FLOATS) and (has_mlp or export.residual.group == "all")
    )


def goes_together(values: Sequence[str]) -> bool:
    """Whether the first choices of a row can be those of a run that has a script."""
    row = {name: options[0] for name, options in OPTIONS.items()} | dict(zip(OPTIONS, values, strict=False))
    if row["outer"] == "dense" and any(row[name] != OPTIONS[name][0] for name in ("router", "capacity", "dechunk")):
        return False  # another name for the same
    learns_nothing = row["outer"] == "dense" or row["router"] in ("fixed", "whitespace", "entropy")
    if row["init_from"] and (learns_nothing or row["tokens"] != "bytes"):
        return False
    if row["scorer"] == "first2" and (row["outer"] == "dense" or row["router"] == "soft"):
        return False  # no room for chunks can be chosen where none are cut
    if row["learner"] == "lora" and len(values) > list(OPTIONS).index("scorer") and row["scorer"] != "document":
        return False
    row |= {"scorer": "document"} if row["learner"] == "lora" else {}
    try:
        config = built(row)
    except ConfigError:
        return False
    return tensors_fit(config.model, config.export, row["aware"])


def cover() -> dict[str, dict[str, str]]:
    """Rows in which every two choices that go together stand side by side, by names short enough for pytest."""
    rows = AllPairs([list(values) for values in OPTIONS.values()], filter_func=goes_together)
    found = [dict(zip(OPTIONS, values, strict=True)) for values in rows]
    told = [[row[name] for name in list(OPTIONS)[:9] if row[name] != OPTIONS[name][0]] for row in found]
    return {"-".join([f"{i:02}", *names]): row for i, (names, row) in enumerate(zip(told, found, strict=True))}


COVER = cover()


# Both ways of training


@dataclass(frozen=True)
class Pair:
    """A run of niblick, and the folder in which the script of the same config has trained."""

    run: Run
    losses: list[float]
    """Of every step of the run."""
    folder: Path
    log: str
    recipe: Path | None

    @property
    def artifact(self) -> Path:
        return self.folder / "final_model.nib"


def program(folder: Path, config: RunConfig, text: str, *options: str, ranks: int = 1) -> Forked:
    """Start a script in a folder where niblick cannot be imported."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train_gpt.py").write_text(text)
    (folder / "niblick.py").write_text("raise ImportError('the script of a submission asks for niblick')\n")
    several = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"] if ranks > 1 else []
    environment = {"DATA_PATH": config.data.path, "PATH": "", "OMP_NUM_THREADS": "1"}
    return start([*several, "train_gpt.py", *options], folder, environment)


def said(process: Forked) -> str:
    """What a script printed; fails with its last words if it failed."""
    ended = process.ended()
    assert ended.returncode == 0, ended.stderr[-3000:]
    return ended.stdout


def both(config: RunConfig, folder: Path, recipe: Path | None = None, ranks: int = 1) -> Pair:
    """Train as niblick does and by the script, at the same time."""
    config = resolve_entropy(config, prepared.open_data(config))
    (folder / "script").mkdir()
    if config.entropy.artifact:
        (folder / "script" / "entropy.nib").write_bytes(Path(config.entropy.artifact).read_bytes())
    process = program(folder / "script", config, make_script(config, recipe).packed, ranks=ranks)
    events: list[dict[str, Any]] = []
    try:
        result = pipeline.run(config, folder / "runs", noted(events), recipe=recipe)
    except BaseException:
        process.kill()
        raise
    losses = [event["loss"] for event in events if event["event"] == "step"]
    return Pair(Run(Path(result.run)), losses, folder / "script", said(process), recipe)


def exact(log: str) -> tuple[float, float]:
    """Loss and bits per byte of the artifact, as a script says them."""
    (found,) = re.findall(r"^final_\S+_exact val_loss:(\S+) val_bpb:(\S+)$", log, re.MULTILINE)
    return float(found[0]), float(found[1])


def expect_the_same(pair: Pair) -> None:
    """Losses of all steps, weights as they come out of the artifacts, and all scores."""
    told = dict(re.findall(r"^step:(\d+)/\d+ train_loss:(\S+) ", pair.log, re.MULTILINE))
    assert told == {str(i + 1): f"{loss:.4f}" for i, loss in enumerate(pair.losses)}
    assert len(told) == STEPS
    result = pair.run.result()
    assert result
    mine = read_artifact(pair.run.artifact(result.artifact)).state_dict()
    theirs = read_artifact(pair.artifact).state_dict()
    assert theirs.keys() == mine.keys()
    for name, tensor in mine.items():
        torch.testing.assert_close(
            theirs[name], tensor, rtol=0, atol=1e-5, msg=lambda said, name=name: f"{name}: {said}"
        )
    loss, bpb = exact(pair.log)
    assert abs(loss - result.loss) < 1e-5 and abs(bpb - result.bpb) < 1e-5
    run = pair.run if pair.recipe else None  # whose recipe registers what the artifact is made of
    again = scoring.score_artifact(pair.artifact, pair.run.config().data.path, run=run, keep=False)
    assert abs(again.bpb - bpb) < 1e-5


def placed(config: RunConfig, texts: dict[str, str], small: dict[str, Path]) -> RunConfig:
    """The config with its text, and the small model that it asks if it does."""
    tokens = next(name for name, size in VOCABULARY.items() if size == config.model.vocab_size)
    asks = bool(config.model.levels) and config.model.levels[0].router == "entropy"
    entropy = EntropyConfig(str(small[tokens])) if asks else EntropyConfig()
    return replace(config, data=replace(config.data, path=texts[tokens]), entropy=entropy)


@pytest.mark.slow
@pytest.mark.parametrize("name", COVER)
def test_every_two_options(name: str, texts: dict[str, str], small_models: dict[str, Path], tmp_path: Path) -> None:
    expect_the_same(both(placed(built(COVER[name]), texts, small_models), tmp_path))


def test_every_option_stands_in_the_cover() -> None:
    for name, values in OPTIONS.items():
        assert {row[name] for row in COVER.values()} == set(values), name


LEARNING = [("score-function", "coding-rate"), ("gumbel", "delayed"), ("sombrero", "fixed")]


@pytest.mark.slow
@pytest.mark.parametrize("routers", LEARNING)
def test_routers_that_learn_otherwise(routers: tuple[str, str], texts: dict[str, str], tmp_path: Path) -> None:
    """Two levels each, with the smoothing and the prior that go with the outer one, and a curriculum."""
    config = built({"outer": "two"})
    levels = [
        replace(level, router=router, target_start=1.5, dechunk="input" if router == "sombrero" else "plain")
        for level, router in zip(config.model.levels, routers, strict=True)
    ]
    levels[0] = replace(levels[0], ratio="binomial" if routers[0] == "gumbel" else "paper")
    config = replace(config, model=replace(config.model, levels=tuple(levels)), data=DataConfig(texts["bytes"]))
    expect_the_same(both(config, tmp_path))
    script = (make_script(config).readable.split("# module niblick.model.taught_routers")[1:] or [""])[0]
    for name in ("ScoreRouter", "GumbelRouter", "SombreroRouter", "RateRouter", "DelayedRouter"):
        kinds = {"score-function": "ScoreRouter", "coding-rate": "RateRouter"}
        wanted = {kinds.get(router, f"{router.title()}Router") for router in routers}
        assert (f"class {name}(" in script.partition("# module")[0]) == (name in wanted), name


@pytest.mark.slow
def test_range_coding_of_matrices_that_it_has_models_for(texts: dict[str, str], tmp_path: Path) -> None:
    config = built({"scheme": "ecsq4", "codec": "range"})
    config = replace(config, model=replace(config.model, width=128), data=DataConfig(texts["bytes"]))
    expect_the_same(both(config, tmp_path))


# Presets


def toy(name: str, texts: dict[str, str]) -> RunConfig:
    """A preset made small: its parts are all there."""
    config = get_preset(name)
    tokens = "bytes" if config.tokenizer == "byte260" else "subwords"
    model, plain = config.model, built({})
    tables = tuple(replace(table, rows=512, width=8) for table in model.ngrams)
    sizes = {"width": 32, "heads": 2, "kv_heads": 1, "vocab_size": VOCABULARY[tokens], "ngrams": tables}
    return replace(
        config,
        model=replace(model, **sizes),  # type: ignore[arg-type]
        data=replace(config.data, path=texts[tokens]),
        train=replace(plain.train, average=config.train.average),
        schedule=replace(config.schedule, steps=STEPS, max_seconds=None),
        export=replace(config.export, calibration_tokens=512),
        score=replace(config.score, seq_len=64, batch_tokens=1024),
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_every_preset(name: str, texts: dict[str, str], tmp_path: Path) -> None:
    expect_the_same(both(toy(name, texts), tmp_path))


# Recipes

GATE = """

class {name}(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.gate = nn.Linear(config.width, config.width)

    def forward(self, x_BLD, x0_BLD, context):
        return x_BLD + torch.sigmoid(self.gate(x_BLD)) * {norm}(x_BLD)

"""
RECIPE = """

def recipe():
    model = ModelConfig(width=32, heads=2, kv_heads=1, main=StageConfig("T1{letter}1"))
    return RunConfig(preset="own", model=model{more})
"""
IMPORTS = """import torch
from torch import nn

from niblick.config.run_config import RunConfig
from niblick.model.model_config import ModelConfig
from niblick.model.model_config import StageConfig
"""
SIGNS = """

class Signs(torch.optim.Optimizer):
    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.add_(p.grad.sign(), alpha=-0.01 * group["lr"])


def signs(model, config):
    return [Signs([group for kind in optim.rated_groups(model, config).values() for group in kind], {})]


optim.register_optimizer("signs", signs)
"""
RECIPES = {
    "from-a-module": IMPORTS
    + "from niblick.model.layers import register_block, rms_norm\n"
    + GATE.format(name="Plain", norm="rms_norm")
    + "\nregister_block('G', Plain)\n"
    + RECIPE.format(letter="G", more=""),
    "whole-module": IMPORTS
    + "import niblick.model.layers\n"
    + GATE.format(name="Dotted", norm="niblick.model.layers.rms_norm")
    + "\nniblick.model.layers.register_block('H', Dotted)\n"
    + RECIPE.format(letter="H", more=""),
    "module-of-a-package": IMPORTS
    + "from niblick.model import layers as L\n"
    + GATE.format(name="Short", norm="L.rms_norm")
    + "\nL.register_block('I', Short)\n"
    + RECIPE.format(letter="I", more=""),
    "module-as": IMPORTS
    + "import niblick.train.optim as optim\n"
    + "import niblick.train.settings as settings\n"
    + SIGNS
    + RECIPE.format(letter="c", more=", optim=settings.OptimConfig(name='signs')"),
    "beside-it": IMPORTS
    + "import helper_of_scripts\n"
    + "from helper_of_scripts import Gate\n"
    + "from niblick.model.layers import register_block\n\n\n"
    + "class Own(Gate):\n    strength = helper_of_scripts.STRENGTH\n\n\nregister_block('J', Own)\n"
    + RECIPE.format(letter="J", more=""),
}
RECIPES["odd"] = (
    IMPORTS
    + """import typing

import odd_parts
import odd_parts.deeper
from niblick.model.layers import BLOCKS, register_block

if typing.TYPE_CHECKING:
    HALF = None
else:
    HALF = 0.5
FACTOR = 1.0
LINES = '''a



b'''


class Odd(BLOCKS["c"]):
    def forward(self, x_BLD, x0_BLD, context):
        return super().forward(x_BLD, x0_BLD, context) * FACTOR * HALF * odd_parts.strength(len(LINES))


register_block("K", Odd)


def recipe():
    global FACTOR
    FACTOR = 1.5
    model = ModelConfig(width=32, heads=2, kv_heads=1, main=StageConfig("T1K1"))
    return RunConfig(preset="own", model=model)
"""
)
ODD = {
    "__init__.py": "from .things import *\nfrom . import registered\n",
    "things.py": """from functools import singledispatch

A = 1.0; B = 0.25
TABLE = {}


class Registry:
    def add(self, thing):
        TABLE[thing.__name__] = thing
        return thing


REGISTRY = Registry()


@singledispatch
def scale(value):
    return 0.1


@scale.register
def _(value: int):
    return 1.0 + value / 100


def make_soft():
    return 0.9


def strength(count):
    import odd_parts

    named = globals()["make_" + "soft"]() * getattr(odd_parts, f"make_{'soft'}")()
    return scale(count) * named * TABLE["Late"].value * odd_parts.deeper.missing_name * B * 4
""",
    "registered.py": "from .things import REGISTRY\n\n\n@REGISTRY.add\nclass Late:\n    value = 0.8\n",
    "deeper.py": """def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return 0.7
""",
}
"""Everything of this would be lost where only what names reach is kept: all of it changes the numbers."""
HELPER = """import torch
from torch import nn

STRENGTH = 0.5


class Gate(nn.Module):
    strength = 1.0

    def __init__(self, config):
        super().__init__()
        self.gate = nn.Linear(config.width, config.width)

    def forward(self, x_BLD, x0_BLD, context):
        return x_BLD + self.strength * torch.sigmoid(self.gate(x_BLD))
"""


def small(config: RunConfig, texts: dict[str, str]) -> RunConfig:
    """A config of a recipe, at the size of the others."""
    plain = built({})
    placed = replace(config, data=DataConfig(texts["bytes"]), train=plain.train, score=plain.score)
    return replace(placed, schedule=plain.schedule)


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_recipes(name: str, texts: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    recipe = tmp_path / "mine" / "recipe.py"
    recipe.write_text(RECIPES[name])
    if name == "beside-it":
        (recipe.parent / "helper_of_scripts.py").write_text(HELPER)
    if name == "odd":
        (recipe.parent / "odd_parts").mkdir()
        for file, text in ODD.items():
            (recipe.parent / "odd_parts" / file).write_text(text)
    expect_the_same(both(small(load_recipe(recipe), texts), tmp_path, recipe))


# Several ranks, the other form, and the folder

FLOATS_OF = {
    "documents-mamba": {"outer": "c", "main": "m1", "data": "documents", "average": "ema", "scheme": "bf16"},
    "qat-tables": {"aware": "qat3", "embedding": "words", "data": "shuffle", "scheme": "bf16"},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FLOATS_OF)
def test_two_ranks(name: str, texts: dict[str, str], tmp_path: Path) -> None:
    config = replace(built(FLOATS_OF[name]), export=ExportConfig(scheme="fp32"))
    expect_the_same(both(placed(config, texts, {}), tmp_path, ranks=2))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["niblick-byte", "tinyhnet"])
def test_the_readable_form_and_scoring_alone(name: str, texts: dict[str, str], tmp_path: Path) -> None:
    config = toy(name, texts)
    script = make_script(config)
    logs = [said(program(tmp_path / form, config, getattr(script, form))) for form in ("packed", "readable")]
    steps = [re.findall(r"^step:\d+/\d+ \S+", log, re.MULTILINE) for log in logs]
    assert steps[0] == steps[1] and len(steps[0]) > STEPS
    assert exact(logs[0]) == exact(logs[1])
    mine, theirs = (read_artifact(tmp_path / form / "final_model.nib").state_dict() for form in ("packed", "readable"))
    assert all(torch.equal(theirs[key], tensor) for key, tensor in mine.items())
    alone = said(program(tmp_path / "packed", config, script.packed, "--eval"))
    assert exact(alone) == exact(logs[0]) and "step:" not in alone


@pytest.mark.slow
def test_a_mixture_that_knows_text(texts: dict[str, str], tmp_path: Path) -> None:
    """The script packs the same training text, and its sidecar reads it before it scores."""
    pytest.importorskip("numba")
    config = placed(built({}), texts, {})
    learner = SidecarConfig("mixture", mix="fast", memory=1)
    config = replace(config, export=replace(config.export, text=5000), score=replace(config.score, sidecar=learner))
    pair = both(config, tmp_path)
    expect_the_same(pair)
    mine = read_artifact(pair.run.artifact(pair.run.artifact_names()[0]))
    theirs = read_artifact(pair.artifact)
    assert mine.text == theirs.text and mine.text is not None and mine.text.bytes == 5000
    assert make_script(config).requires.count("numba") == 1


SUBMITTED = {
    "range-gptq": {"scheme": "ecsq4", "codec": "range", "gptq": "quantized"},
    "document-lora": {"learner": "lora", "scorer": "document", "scheme": "int6", "outer": "T"},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SUBMITTED)
def test_the_folder_passes_its_audit(name: str, texts: dict[str, str], tmp_path: Path) -> None:
    config = placed(built(SUBMITTED[name]), texts, {})
    run = Run(Path(pipeline.run(config, tmp_path / "runs", lambda event: None).run))
    held = handling(trust=True, environment=Path(sys.executable))
    options = auditing.Options(Effort(tokens=1 << 10), handling=held)
    auditing.audit(str(run.path), run.path.parent, options=options)
    facts = submit([run], tmp_path / "folder")
    assert not facts.reasons
    found = auditing.audit(str(tmp_path / "folder"), run.path.parent, config.data.path, options)
    assert not [name for name in found.named("fail") if not name.startswith("train_seed")]
    assert {"rerun", "causality", "artifact"} <= set(found.named("pass"))
