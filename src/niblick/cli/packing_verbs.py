"""Verbs that make artifacts of runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from niblick.challenge.tracks import UNWEIGHED
from niblick.cli.app import RUNS, Json, Runs, app, print_json, print_table
from niblick.errors import ConfigError
from niblick.facts.result import Result


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
    from niblick.run.directory import open_run
    from niblick.run.exports import export_run

    with RunConsole() as console:
        record = export_run(open_run(target, runs), assignments or [], console, name)
    if json_:
        print_json(record)
    else:
        _print_export(record)


def _print_export(result: Result) -> None:
    size = f"{result.artifact_bytes:,} bytes"
    size += {True: "", False: ", over the cap", None: f", {UNWEIGHED}"}[result.legality.under_cap]
    print(f"\n{result.artifact}: {size}, {result.bpb:.4f} BPB from the file")
    for name, note in (result.gptq_notes or {}).items():
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
    from niblick.files import json_bytes, write_together
    from niblick.run.directory import open_run
    from niblick.run.exports import sensitivity_run

    if out and out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out} is a file: give a folder")
    with RunConsole() as console:
        console.say(f"packing, then scoring {tokens:,} tokens of training text twice for each tensor")
        found = sensitivity_run(
            open_run(target, runs),
            assignments or [],
            tokens=tokens,
            progress=console.counting("tensor"),
        )
    facts = asdict(found) | {
        "tensors": [asdict(row) | {"per_kb": row.per_kb} for row in found.tensors],
        "tokens": tokens,
    }
    if out:
        from niblick.drawing.figures import sensitivity_bars

        out.mkdir(parents=True, exist_ok=True)
        gains = [(row.name, row.gained) for row in found.tensors]
        drawn = {out / f"sensitivity.{kind}": sensitivity_bars(gains, kind) for kind in ("svg", "png")}
        write_together(drawn | {out / "sensitivity.json": json_bytes(facts)})
    if json_:
        print_json(facts)
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
    print_table(columns, rows)
    print("\nthousandths of BPB: lost if only this tensor is quantized, gained if only this one is kept in fp16")
    print(f"{found.float_bpb:.4f} BPB with float weights, {found.packed_bpb:.4f} quantized ({tokens:,} tokens)")


@app.command("fit")
def fit_(
    target: Annotated[str, typer.Argument(help="A finished run: path, id or `latest`.")],
    assignments: Annotated[
        list[str] | None, typer.Argument(help="Keys of the export and of its score, such as text=1000000.")
    ] = None,
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
    from niblick.facts.reading import plain
    from niblick.pack.fit import Telling
    from niblick.run.directory import open_run
    from niblick.run.exports import fit_run

    if cap is not None and artifact_bytes is not None:
        raise ConfigError("--cap counts code and artifact, --artifact-bytes the artifact alone: give one of them")
    with RunConsole() as console:
        fitted = fit_run(
            open_run(target, runs),
            console,
            assignments or [],
            cap=cap,
            artifact=artifact_bytes,
            codec=codec,
            gptq=gptq,
            tokens=tokens,
            telling=Telling(console.say, console.counting("tensor")),
        )
    if json_:
        print_json(plain(fitted.result) | plain(fitted.details))
        return
    columns = ["cap", "artifact", "BPB (training text)", "residuals"]
    points = fitted.details.frontier
    print_table(
        columns,
        [[f"{p['cap']:,}", f"{p['bytes']:,}", f"{p['bpb']:.4f}", f"{p['residual_bytes']:,}"] for p in points],
    )
    if divisions := fitted.details.divisions:
        told = [
            [f"{d['text_bytes']:,}", f"{d['packed_text']:,}", f"{d['weights']:,}", f"{d['bpb']:.4f}"] for d in divisions
        ]
        print()
        print_table(["text", "packed", "all else", "BPB (text held back)"], told)
    _print_export(fitted.result)


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

    from niblick.recipes.targets import resolve
    from niblick.run.exports import fill_cap, predict_size, with_export

    given = assignments or []
    config, recipe = resolve(target, [a for a in given if "." in a.partition("=")[0]])
    config = with_export(config, [a for a in given if "." not in a.partition("=")[0]])
    estimate = predict_size(config, recipe)
    proposals = fill_cap(config, cap, recipe) if fill else []
    if json_:
        facts = asdict(estimate) | {"artifact": config.export.name, "cap": cap}
        print_json(facts | ({"proposals": [asdict(row) for row in proposals]} if fill else {}))
        return
    print(f"{estimate.parameters:,} parameters as {config.export.name}: {estimate.low:,} to {estimate.high:,} bytes")
    if estimate.code is None:
        print(f"{UNWEIGHED}: the cap of both is {cap:,}")
    else:
        total = f"{estimate.low + estimate.code:,} to {estimate.high + estimate.code:,}"
        print(f"with {estimate.code:,} bytes of code: {total} of {cap:,}")
    for row in proposals:
        print(f"\nby {row.grow}: {row.parameters:,} parameters, {row.low:,} to {row.high:,} bytes")
        print("  " + " ".join(row.overrides))
    if fill and not proposals:
        print(f"\nnothing of this kind surely fits {cap:,} bytes")
