"""The command line: parse, call, print. Heavy imports wait until a command needs them, so that --help answers at once.

People read stderr and tables on stdout; with --json stdout is exactly one JSON object.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from niblick.errors import ConfigError, NiblickError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="The laboratory for small language models under a byte cap, and for learned tokenization.\n\n"
    "Try `niblick quickstart`: it trains, packs and scores a small byte-level H-Net in under five minutes.",
)
data_app = typer.Typer(no_args_is_help=True, help="Make and check token shards. Example: `niblick data check DIR`")
app.add_typer(data_app, name="data")
import_app = typer.Typer(
    no_args_is_help=True,
    help="Make runs of what others trained. Example: `niblick import challenge final_model.pt --preset hnet-byte260`",
)
app.add_typer(import_app, name="import")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]
Runs = Annotated[Path, typer.Option("--runs", help="Folder of the runs.")]
Out = Annotated[Path, typer.Option(help="New folder for shards, index and manifest.")]
Normalization = Annotated[
    str, typer.Option(help="Of sp:VOCAB: identity (lossless) or nmt_nfkc (the challenge's, which loses text).")
]
ShardTokens = Annotated[int, typer.Option(help="Tokens per shard.")]
Workers = Annotated[int | None, typer.Option(help="Processes; by default one per core, at most 6.")]
Env = Annotated[
    str, typer.Option("--env", help='Names of the challenge\'s scripts: "ITERATIONS=2000 TRAIN_SEQ_LEN=512 …".')
]
Data = Annotated[str, typer.Option("--data", help="Folder made by `niblick data prepare`.")]
RUNS = Path("runs")
TOKENIZERS = "byte260, FILE.model (SentencePiece), or sp:VOCAB, which trains one on this text."


def main() -> None:
    """Run the command line; a NiblickError becomes one sentence on stderr and its exit code."""
    # OpenMP threads wait for each other in a busy loop; beside any other process that costs ten times the work
    # itself. A short loop loses nothing on an idle machine (docs/performance.md).
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    try:
        app()
    except NiblickError as error:
        print(f"niblick: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("niblick: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))


def _table(columns: list[str], rows: list[list[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for i, column in enumerate(columns):
        numeric = bool(rows) and all(r[i].lstrip("+-").replace(",", "").replace(".", "").isdigit() for r in rows)
        table.add_column(column, justify="right" if numeric else "left", no_wrap=i == 0)
    for row in rows:
        table.add_row(*row)
    Console(highlight=False).print(table)


def _resolve(target: str, overrides: list[str], env: str = "") -> tuple[Any, Path | None]:
    """Return the config of a preset or recipe file, and the recipe's path if it is one.

    The environment names are applied before the overrides.
    """
    from niblick.config import apply_environment, override
    from niblick.presets import get_preset, load_recipe

    recipe = Path(target) if target.endswith(".py") else None
    config = load_recipe(recipe) if recipe else get_preset(target)
    return override(apply_environment(config, env), overrides), recipe


@app.command()
def presets(json_: Json = False) -> None:
    """List the presets. Example: `niblick presets`"""
    from niblick.pipeline import parameter_count
    from niblick.presets import PRESETS

    rows: list[dict[str, Any]] = [
        {"name": name, "parameters": parameter_count(recipe().model), "summary": (recipe.__doc__ or "").splitlines()[0]}
        for name, recipe in PRESETS.items()
    ]
    if json_:
        _print_json({"presets": rows})
    else:
        _table(
            ["preset", "parameters", "what it is"], [[r["name"], f"{r['parameters']:,}", r["summary"]] for r in rows]
        )


@app.command()
def show(
    target: Annotated[str, typer.Argument(help="A preset, a recipe file, a run, RUN:NAME or an artifact.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value …, for a preset or recipe.")] = None,
    env: Env = "",
    runs: Runs = RUNS,
    json_: Json = False,
) -> None:
    """Show a preset's config, a run's result or an artifact's bytes. Example: `niblick show hnet-byte260`"""
    from niblick.config import to_dict
    from niblick.pipeline import config_of, describe_artifact, find_artifact, parameter_count
    from niblick.presets import PRESETS
    from niblick.runs import is_run, open_run

    if target in PRESETS or target.endswith(".py"):
        config, _ = _resolve(target, overrides or [], env)
        facts = {"parameters": parameter_count(config.model), "config": to_dict(config)}
    elif target.endswith(".nib") or ":" in target:
        facts = describe_artifact(find_artifact(target, runs)[0])
    elif is_run(target, runs):
        run = open_run(target, runs)
        facts = {"run": str(run.path), "config": to_dict(config_of(run)), "result": run.result()}
        facts["artifacts"] = {name: describe_artifact(run.artifact(name)) for name in run.artifact_names()}
    else:
        raise unknown_target(target, runs)
    if json_:
        _print_json(facts)
    else:
        _print_facts(facts)


def unknown_target(target: str, runs: Path) -> ConfigError:
    """The error for a name that is neither preset nor run nor artifact."""
    from niblick.errors import nearest
    from niblick.presets import PRESETS

    known = [*PRESETS, *(p.parent.name for p in runs.glob("*/config.json"))]
    return ConfigError(f"there is no preset, run or artifact {target!r}{nearest(target, known)}")


def _print_facts(facts: dict[str, Any]) -> None:
    if "parameters" in facts:
        print(f"parameters  {facts['parameters']:,}\n")
    if "config" in facts:
        _table(["key", "value"], [[k, v] for k, v in _flat(facts["config"])])
    if facts.get("result"):
        wanted = (
            "artifact",
            "bpb",
            "bpb_repaired",
            "bytes",
            "artifact_bytes",
            "code_bytes",
            "total_bytes",
            "step",
            "train_seconds",
        )
        print()
        _table(["result", ""], [[k, _number(facts["result"][k])] for k in wanted if facts["result"].get(k) is not None])
    elif "result" in facts:
        print("\nnot finished")
    for name, artifact in (facts.get("artifacts") or ({"": facts} if "tensors" in facts else {})).items():
        print(f"\nartifact {name or artifact['path']}")
        _table(
            ["tensor", "shape", "scheme", "bytes before coding"],
            [
                [t["name"], "×".join(map(str, t["shape"])), t["scheme"], f"{t['raw_bytes']:,}"]
                for t in artifact["tensors"]
            ],
        )
        parts = artifact["bytes"]
        print(f"\n{parts['total']:,} bytes: header {parts['header']:,}, payload {parts['payload']:,}")


def _flat(value: Any) -> list[tuple[str, str]]:
    """Nested config as dotted keys: what overrides are written with."""
    from niblick.config import dotted

    return [(key, v if isinstance(v, str) else json.dumps(v)) for key, v in dotted(value).items()]


def _number(value: Any) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


@data_app.command("prepare")
def data_prepare(
    source: Annotated[
        str,
        typer.Option(
            help="pydocs, pysource, FILE.jsonl[.zst|.gz], FILE.parquet, FILE.txt, a folder of such, "
            "challenge:docs or challenge:sp1024."
        ),
    ],
    out: Out,
    tokenizer: Annotated[
        str | None, typer.Option(help=f"{TOKENIZERS} By default byte260, or what challenge shards have.")
    ] = None,
    normalization: Normalization = "identity",
    val_docs: Annotated[int | None, typer.Option(help="The first N documents are the validation split.")] = None,
    max_docs: Annotated[int | None, typer.Option(help="Read no more than N documents.")] = None,
    train_shards: Annotated[
        int | None, typer.Option(help="Fetch the first N training shards of challenge:sp1024 (80 by default).")
    ] = None,
    shard_tokens: ShardTokens = 100_000_000,
    workers: Workers = None,
    json_: Json = False,
) -> None:
    """Turn text into token shards. Example: `niblick data prepare --source pydocs --out data/pydocs`"""
    from niblick.console import RunConsole
    from niblick.data.prepare import prepare

    what = "files" if source.startswith("challenge:") and source != "challenge:docs" else "documents"
    with RunConsole() as console:
        manifest = prepare(
            source,
            tokenizer,
            out,
            val_docs=val_docs,
            max_docs=max_docs,
            shard_tokens=shard_tokens,
            workers=workers,
            normalization=_normalization(normalization),
            train_shards=train_shards,
            progress=lambda count, size: console.preparing(what, count, size),
        )
    _show_data(manifest, out, json_)


@data_app.command("convert")
def data_convert(
    folder: Annotated[Path, typer.Argument(help="Shards: a dataset, or the challenge's own with its manifest.")],
    out: Out,
    tokenizer: Annotated[str, typer.Option(help=f"{TOKENIZERS}")] = "byte260",
    given: Annotated[
        str | None, typer.Option(help="Tokenizer of the shards, where no manifest names it: byte260 or FILE.model.")
    ] = None,
    normalization: Normalization = "identity",
    shard_tokens: ShardTokens = 100_000_000,
    workers: Workers = None,
    json_: Json = False,
) -> None:
    """Decode shards and encode their documents anew. Example: `niblick data convert data/sp --out data/bytes`"""
    from niblick.console import RunConsole
    from niblick.data.prepare import convert
    from niblick.data.tokenizers import make_tokenizer

    with RunConsole() as console:
        manifest = convert(
            folder,
            tokenizer,
            out,
            given=make_tokenizer(given) if given else None,
            shard_tokens=shard_tokens,
            workers=workers,
            normalization=_normalization(normalization),
            progress=lambda count, size: console.preparing("documents", count, size),
        )
    _show_data(manifest, out, json_)


def _normalization(name: str) -> Any:
    if name not in ("identity", "nmt_nfkc"):
        raise ConfigError(f"unknown normalization {name!r}: choose identity (lossless) or nmt_nfkc (the challenge's)")
    return name


def _show_data(manifest: dict[str, Any], out: Path, json_: bool) -> None:
    """What prepare and convert say at their end."""
    if json_:
        _print_json(manifest)
        return
    _print_data(manifest)
    entry = manifest["datasets"][0]
    vocabulary = "" if entry["vocab_size"] == 260 else f" model.vocab_size={entry['vocab_size']}"
    print(f"\n{out} is ready: niblick train quickstart --data {out}{vocabulary}")


@data_app.command("check")
def data_check(
    folder: Annotated[Path, typer.Argument(help="What `niblick data prepare` made.")],
    json_: Json = False,
) -> None:
    """Check headers, sizes, tokens, hashes and index of a dataset. Example: `niblick data check data/pydocs`"""
    from niblick.data.check import check

    report = check(folder)
    if json_:
        _print_json(report)
    else:
        _table(["checked", ""], [[k, v] for k, v in _flat(report)])


@app.command()
def train(
    target: Annotated[str | None, typer.Argument(help="A preset, or a recipe file such as my_recipe.py.")] = None,
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value …, such as model.width=128.")] = None,
    data: Data = "",
    env: Env = "",
    seeds: Annotated[int, typer.Option(help="Runs with the seeds s, s+1, …, one after another.")] = 1,
    resume: Annotated[str | None, typer.Option(help="Go on with this run (path, id or `latest`).")] = None,
    devices: Annotated[int, typer.Option(help="Processes that share the training, one for each GPU.")] = 1,
    runs: Runs = RUNS,
    json_: Json = False,
) -> None:
    """Train, pack and score. Example: `niblick train hnet-byte260 --data data/web train.batch_tokens=65536`"""
    if devices != 1:
        from niblick.launch import launch

        sys.exit(launch(devices, sys.argv[1:], runs))
    from niblick import pipeline
    from niblick.config import override
    from niblick.console import RunConsole
    from niblick.runs import open_run
    from niblick.train.distributed import joined

    if seeds < 1:
        raise ConfigError(f"--seeds {seeds} is no number of runs: give at least 1")
    with joined() as ranks, RunConsole() as console:
        if resume:
            if target or overrides or env or seeds > 1:
                raise ConfigError("--resume takes the config of the run: leave preset, overrides, --env, --seeds away")
            results = [pipeline.resume(open_run(resume, runs), console, ranks)]
        elif not target:
            raise ConfigError("name a preset or a recipe file: `niblick presets` lists the presets")
        else:
            config, recipe = _resolve(target, overrides or [], env)
            if data:
                config = override(config, [f"data.path={json.dumps(data)}"])
            results = pipeline.run_seeds(config, seeds, runs, console, recipe=recipe, ranks=ranks)
    if not ranks.main:
        return
    if json_:
        _print_json(results[0] if seeds == 1 else {"runs": results} | pipeline.spread(results))
        return
    for result in results:
        _print_score(result)
        print(f"run       {result['run']}")
    if seeds > 1:
        spread = pipeline.spread(results)
        print(f"seeds     {spread['bpb_mean']:.4f} ± {spread['bpb_deviation']:.4f} BPB over {seeds} runs")


@app.command("eval")
def evaluate(
    target: Annotated[str, typer.Argument(help="RUN, RUN:NAME or the path of an artifact.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="score.key=value …, such as score.scorer=sliding score.stride=64.")
    ] = None,
    breakdown: Annotated[
        bool, typer.Option("--breakdown", help="Take the score apart: tables, pictures and JSON in --out.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the breakdown; by default `breakdown` beside the run's artifact.")
    ] = None,
    data: Data = "",
    devices: Annotated[int, typer.Option(help="Processes that share the scoring, one for each GPU.")] = 1,
    runs: Runs = RUNS,
    json_: Json = False,
) -> None:
    """Score an artifact. Example: `niblick eval latest score.scorer=sliding score.seq_len=512 score.stride=64`"""
    if devices != 1:
        from niblick.launch import launch

        if breakdown:
            raise ConfigError(f"--breakdown is made by one process: leave --devices {devices} away")
        sys.exit(launch(devices, sys.argv[1:], runs))
    from niblick.console import RunConsole
    from niblick.pipeline import config_of, find_artifact, score_artifact
    from niblick.train.distributed import joined

    path, run = find_artifact(target, runs)
    if not data:
        if run is None:
            raise ConfigError(f"{path} belongs to no run, so its text is unknown: pass --data DIR")
        data = config_of(run).data.path
    if not data:
        raise ConfigError(f"{target} names no text: pass --data DIR")
    if out and not breakdown:
        raise ConfigError("--out is the folder of a breakdown: add --breakdown")
    collector = None
    if breakdown:
        from niblick.lab.breakdown import Collector, breakdown_folder

        collector, folder = Collector(), breakdown_folder(path, run, out)
    with joined() as ranks, RunConsole() as console:
        record = score_artifact(
            path,
            data,
            run=run,
            overrides=overrides or [],
            inspect=collector,
            keep=ranks.main,
            progress=(lambda p: console.progress("scoring", p.done / p.total, p.bpb, p.eta_seconds))
            if ranks.main
            else None,
        )
    if not ranks.main:
        return
    if collector:
        record["breakdown"] = collector.write(folder)
    if json_:
        _print_json(record)
        return
    if collector:
        from rich.console import Console

        from niblick.lab.tables import print_breakdown

        print_breakdown(record["breakdown"], Console(highlight=False))
        print(f"pictures  {folder}\n")
    _print_score(record)


@app.command()
def compare(
    targets: Annotated[list[str], typer.Argument(help="RUN, RUN:NAME or the artifact of a run, two or more.")],
    scorer: Annotated[
        str, typer.Option(help="Take the newest scores by this scorer, such as sliding; by default the official ones.")
    ] = "",
    runs: Runs = RUNS,
    json_: Json = False,
) -> None:
    """Which is better, and is it luck? Runs that differ in their seeds alone are one group, and groups are compared.

    Example: `niblick compare base-1 base-2 base-3 wide-1 wide-2 wide-3`
    """
    from rich.console import Console

    from niblick.lab.compare import compare as compare_runs
    from niblick.lab.tables import print_comparison

    facts = compare_runs(targets, runs, scorer)
    if json_:
        _print_json(facts)
    else:
        print_comparison(facts, Console(highlight=False))


@app.command("export")
def export_(
    target: Annotated[str, typer.Argument(help="A finished run: path, id or `latest`.")],
    assignments: Annotated[list[str] | None, typer.Argument(help="scheme=… codec=… gptq=… and so on.")] = None,
    name: Annotated[str, typer.Option(help="Of the artifact; by default what it is made of.")] = "",
    runs: Runs = RUNS,
    json_: Json = False,
) -> None:
    """Pack a finished run anew and score it. Example: `niblick export latest scheme=int6 gptq=float codec=range`"""
    from niblick.console import RunConsole
    from niblick.exports import export_run
    from niblick.runs import open_run

    with RunConsole() as console:
        record = export_run(open_run(target, runs), assignments or [], console, name)
    if json_:
        _print_json(record)
    else:
        _print_export(record)


def _print_export(record: dict[str, Any]) -> None:
    legal = record["legality"]
    over = "" if legal["under_cap"] else ", over the cap"
    print(f"\n{record['artifact']}: {record['artifact_bytes']:,} bytes{over}, {record['bpb']:.4f} BPB from the file")
    for name, note in record.get("gptq_notes", {}).items():
        print(f"{name}: {note}")


@app.command()
def sensitivity(
    target: Annotated[str, typer.Argument(help="A finished run: path, id or `latest`.")],
    assignments: Annotated[list[str] | None, typer.Argument(help="scheme=… codec=… gptq=… and so on.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for sensitivity.json and pictures.")] = None,
    tokens: Annotated[int, typer.Option(help="Tokens of training text that are scored each time.")] = 65_536,
    runs: Runs = RUNS,
    json_: Json = False,
) -> None:
    """What does quantizing each tensor cost? Example: `niblick sensitivity latest scheme=int4`"""
    from dataclasses import asdict

    from niblick.console import RunConsole
    from niblick.exports import sensitivity_run
    from niblick.runs import open_run, write_json

    if out and out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out} is a file: give a folder")
    with RunConsole() as console:
        found = sensitivity_run(
            open_run(target, runs),
            assignments or [],
            tokens=tokens,
            progress=lambda done, total: console.preparing("tensors", done, total),
        )
    facts = asdict(found) | {
        "tensors": [asdict(row) | {"per_kb": row.per_kb} for row in found.tensors],
        "tokens": tokens,
    }
    if out:
        from niblick.lab.figures import sensitivity_bars

        out.mkdir(parents=True, exist_ok=True)
        write_json(out / "sensitivity.json", facts)
        for kind in ("svg", "png"):
            (out / f"sensitivity.{kind}").write_bytes(sensitivity_bars(facts["tensors"], kind))
    if json_:
        _print_json(facts)
        return
    columns = ["tensor", "bytes", "lost", "gained", "per KB"]
    rows = [
        [
            r.name.removeprefix("body.").removesuffix(".weight"),
            f"{r.bytes:,}",
            *(f"{1000 * x:+.2f}" for x in (r.lost, r.gained)),
            f"{1000 * r.per_kb:+.3f}",
        ]
        for r in found.tensors
    ]
    _table(columns, rows)
    print("\nthousandths of BPB: lost if only this tensor is quantized, gained if only this one is kept in fp16")
    print(f"{found.float_bpb:.4f} BPB with float weights, {found.packed_bpb:.4f} quantized ({tokens:,} tokens)")


@app.command("fit")
def fit_(
    target: Annotated[str, typer.Argument(help="A finished run: path, id or `latest`.")],
    cap: Annotated[int | None, typer.Option(help="Bytes for code and artifact: by default 16,000,000.")] = None,
    artifact_bytes: Annotated[int | None, typer.Option(help="Bytes for the artifact alone, instead.")] = None,
    codec: Annotated[str, typer.Option(help="Codec of the artifact.")] = "range",
    gptq: Annotated[bool, typer.Option(help="Round by what layers see of training text.")] = True,
    tokens: Annotated[int, typer.Option(help="Tokens of training text that candidates are scored on.")] = 65_536,
    runs: Runs = RUNS,
    json_: Json = False,
) -> None:
    """Find the best weights that fill a cap. Example: `niblick fit latest --cap 16000000`"""
    from niblick.console import RunConsole
    from niblick.exports import fit_run
    from niblick.runs import open_run

    if cap is not None and artifact_bytes is not None:
        raise ConfigError("--cap counts code and artifact, --artifact-bytes the artifact alone: give one of them")
    with RunConsole() as console:
        record = fit_run(
            open_run(target, runs),
            console,
            cap=cap,
            artifact=artifact_bytes,
            codec=codec,
            gptq=gptq,
            tokens=tokens,
            report=console.say,
        )
    if json_:
        _print_json(record)
        return
    columns = ["cap", "artifact", "BPB (training text)", "residuals"]
    points = record["frontier"]
    _table(
        columns,
        [[f"{p['cap']:,}", f"{p['bytes']:,}", f"{p['bpb']:.4f}", f"{p['residual_bytes']:,}"] for p in points],
    )
    _print_export(record)


@app.command()
def size(
    target: Annotated[str, typer.Argument(help="A preset, or a recipe file such as my_recipe.py.")],
    assignments: Annotated[
        list[str] | None, typer.Argument(help="scheme=… codec=… of the export, or any key=value of the config.")
    ] = None,
    fill: Annotated[bool, typer.Option(help="Propose a width and a depth that fill the cap.")] = False,
    cap: Annotated[int, typer.Option(help="Bytes for code and artifact.")] = 16_000_000,
    json_: Json = False,
) -> None:
    """Predict an artifact's bytes before training. Example: `niblick size hnet-byte260 scheme=int6 codec=range`"""
    from dataclasses import asdict

    from niblick.exports import fill_cap, predict_size, with_export

    given = assignments or []
    config, recipe = _resolve(target, [a for a in given if "." in a.partition("=")[0]])
    config = with_export(config, [a for a in given if "." not in a.partition("=")[0]])
    estimate = predict_size(config, recipe)
    facts: dict[str, Any] = asdict(estimate) | {"artifact": config.export.name, "cap": cap}
    if fill:
        facts["proposals"] = fill_cap(config, cap, recipe)
    if json_:
        _print_json(facts)
        return
    print(f"{estimate.parameters:,} parameters as {config.export.name}: {estimate.low:,} to {estimate.high:,} bytes")
    total = f"{estimate.low + estimate.code:,} to {estimate.high + estimate.code:,}"
    print(f"with {estimate.code:,} bytes of code: {total} of {cap:,}")
    for row in facts.get("proposals", []):
        print(f"\nby {row['grow']}: {row['parameters']:,} parameters, {row['low']:,} to {row['high']:,} bytes")
        print("  " + " ".join(row["overrides"]))
    if fill and not facts["proposals"]:
        print(f"\nnothing of this kind surely fits {cap:,} bytes")


@import_app.command("challenge")
def import_challenge(
    file: Annotated[Path, typer.Argument(help="final_model.pt or final_model.int8.ptz of a published script.")],
    preset: Annotated[str, typer.Option(help="The preset, or recipe file, of the same model.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value …, where it differs.")] = None,
    data: Data = "",
    env: Env = "",
    runs: Runs = RUNS,
    json_: Json = False,
) -> None:
    """Make a run of a published checkpoint. Example: `niblick import challenge final_model.pt --preset hnet-byte260`"""
    from niblick.config import override
    from niblick.pipeline import import_published

    config, recipe = _resolve(preset, overrides or [], env)
    if data:
        config = override(config, [f"data.path={json.dumps(data)}"])
    result = import_published(file, config, runs, recipe=recipe)
    if json_:
        _print_json(result)
    else:
        print(f"artifact  {result['artifact']}, {result['artifact_bytes']:,} bytes")
        print(f"run       {result['run']}: niblick eval {result['run']}{'' if data else ' --data DIR'}")


@app.command()
def generate(
    target: Annotated[str, typer.Argument(help="RUN, RUN:NAME or the path of an artifact.")],
    prompt: Annotated[str, typer.Option(help="Text to continue.")] = "",
    max_bytes: Annotated[int, typer.Option(help="Bytes to generate at most.")] = 400,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token each time.")] = 0.8,
    top_k: Annotated[int, typer.Option(help="Draw among so many likeliest tokens; 0: all.")] = 0,
    top_p: Annotated[float, typer.Option(help="Draw among tokens that hold this much probability.")] = 1.0,
    seed: Annotated[int, typer.Option(help="The same seed gives the same text.")] = 0,
    show_chunks: Annotated[bool, typer.Option("--show-chunks", help="Colour the chunks in turns.")] = False,
    data: Data = "",
    runs: Runs = RUNS,
    json_: Json = False,
) -> None:
    """Continue a text. Example: `niblick generate latest --prompt "The quick " --show-chunks`"""
    from niblick.generate import GenerateConfig, load
    from niblick.pipeline import config_of, find_artifact

    path, run = find_artifact(target, runs)
    if run:
        trained_on = config_of(run).data.path
        # Text of a byte model needs no data, which may be gone by now.
        data = data or (trained_on if Path(trained_on).is_dir() else "")
    config = GenerateConfig(max_bytes, temperature, top_k, top_p, seed)
    pieces, number = [], 0
    colours = ("\033[7m", "\033[0m") if show_chunks and not json_ else ("", "")
    loaded = load(path, data or None)
    stream = loaded.stream(prompt, config)
    if not json_:
        print(loaded.read_back(prompt), end="")
    for piece in stream:
        pieces.append(piece)
        number += piece.starts_chunk
        if not json_:
            print(f"{colours[number % 2]}{piece.text}", end="", flush=True)
    if json_:
        text = "".join(piece.text for piece in pieces)
        starts = [i for i, piece in enumerate(pieces) if piece.starts_chunk]
        _print_json({"prompt": prompt, "text": text, "pieces": [p.text for p in pieces], "chunk_starts": starts})
    else:
        print(colours[1])


@app.command()
def quickstart(
    folder: Annotated[Path, typer.Option(help="Where data and runs go.")] = Path(),
    seconds: Annotated[float, typer.Option(help="Seconds of training.")] = 150,
    json_: Json = False,
) -> None:
    """Train, pack and score a small byte-level H-Net on this machine's own text. Example: `niblick quickstart`"""
    from niblick.quickstart import quickstart, render

    facts = quickstart(folder, seconds)
    if json_:
        _print_json(facts)
    else:
        print(render(facts))


def _print_data(manifest: dict[str, Any]) -> None:
    if "niblick" not in manifest:  # shards as the challenge made them
        _print_facts({"config": {"stats": manifest["datasets"][0].get("stats", {})}})
        print("\nwithout document index: what a lossy tokenizer lost is unknown (`niblick data check` says more)")
        return
    splits = manifest["niblick"]["splits"]
    _table(
        ["split", "documents", "bytes", "tokens", "text hash"],
        [
            [n, f"{s['documents']:,}", f"{s['bytes']:,}", f"{s['tokens']:,}", str(s["text_hash"])[:16]]
            for n, s in splits.items()
        ],
    )
    for name, split in splits.items():
        if split["lost"]:
            lost, example = split["lost"], split["lost"]["example"] or {"original": "", "decoded": ""}
            print(
                f"\n{name}: {lost['documents']:,} of {split['documents']:,} documents do not come back "
                f"({lost['bytes']:,} bytes became {lost['decoded_bytes']:,}), such as "
                f"{example['original']!r} → {example['decoded']!r}"
            )


def _print_score(record: dict[str, Any]) -> None:
    legal = record["legality"]
    print(f"BPB       {record['bpb']:.4f}   {record['bytes']:,} bytes of text, {record['seconds']:.1f} s")
    _print_losses(record)
    print(
        f"bytes     {legal['total_bytes']:,} of 16,000,000: artifact {legal['artifact_bytes']:,}, "
        f"code {legal['code_bytes']:,}" + ("" if legal["under_cap"] else "  OVER THE CAP")
    )
    if legal["reasons"]:
        print(f"track     not the record track: {'; '.join(legal['reasons'])}")


def _print_losses(record: dict[str, Any]) -> None:
    """What the score leaves out, where the tokenizer does not give all of the text back."""
    if record["lossless"] is False:
        lost = record["lost"]
        print(
            f"lossy     {lost['documents']:,} of {record['documents']:,} documents do not come back "
            f"({lost['bytes']:,} bytes became {lost['decoded_bytes']:,})"
        )
        if record["bpb_repaired"] is not None:
            print(
                f"repaired  {record['bpb_repaired']:.4f} BPB with {record['repair_bits']:,} bits of patch, over "
                f"{record['original_bytes']:,} original bytes: compare this one with lossless tokenizers"
            )
    for sentence in record["unavailable"]:
        print(f"unknown   {sentence}")
