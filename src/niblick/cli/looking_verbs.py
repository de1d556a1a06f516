"""Verbs that look at presets, runs and artifacts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from niblick.challenge.tracks import UNWEIGHED
from niblick.cli.app import (
    RUNS,
    Env,
    Json,
    Runs,
    app,
    flat,
    number,
    print_config,
    print_json,
    print_table,
    unknown_target,
)

if TYPE_CHECKING:
    from niblick.facts.result import ImportResult, Result
    from niblick.run.artifacts import ArtifactFacts


@app.command()
def presets(json_: Json = False) -> None:
    """List the presets. Example: `niblick presets`"""
    from niblick.model.counting import parameter_count
    from niblick.recipes.presets import PRESETS

    rows = [
        (name, parameter_count(recipe().model), (recipe.__doc__ or "").splitlines()[0])
        for name, recipe in PRESETS.items()
    ]
    if json_:
        print_json({"presets": [{"name": name, "parameters": n, "summary": summary} for name, n, summary in rows]})
    else:
        shown = [[name, f"{count:,}", summary] for name, count, summary in rows]
        print_table(["preset", "parameters", "what it is"], shown)


All = Annotated[bool, typer.Option("--all", help="Of a run or artifact: every key of its config, and every tensor.")]


@app.command()
def show(
    target: Annotated[str, typer.Argument(help="A preset, a recipe or settings file, a run, RUN:NAME or an artifact.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value …, for a preset or recipe.")] = None,
    env: Env = "",
    all_: All = False,
    runs: Runs = RUNS,
    json_: Json = False,
) -> None:
    """Show a preset's config, a run's result or an artifact's bytes. Example: `niblick show latest`"""
    from niblick.config.run_config import to_dict
    from niblick.model.counting import parameter_count
    from niblick.recipes.presets import PRESETS
    from niblick.recipes.targets import SETTINGS, resolve

    if target not in PRESETS and not target.endswith((".py", *SETTINGS)):
        _show(target, runs, all_, json_)
        return
    config, _ = resolve(target, overrides or [], env)
    count = parameter_count(config.model)
    if json_:
        print_json({"parameters": count, "config": to_dict(config)})
        return
    print(f"parameters  {count:,}\n")
    print_config(to_dict(config))


def _show(target: str, runs: Path, all_: bool, json_: bool) -> None:
    """Show a run or an artifact; only for these torch is imported."""
    from niblick.facts.reading import plain
    from niblick.run.artifacts import HUB_ARTIFACT, describe_artifact, find_artifact
    from niblick.run.directory import is_run, open_run

    if target.endswith(".nib") or ":" in target or (Path(target) / HUB_ARTIFACT).is_file():
        artifact = describe_artifact(find_artifact(target, runs)[0])
        if json_:
            print_json(plain(artifact))
            return
        _print_artifact(artifact.path, artifact, tensors=True)
        _print_settings(artifact.config, all_)
        return
    if not is_run(target, runs):
        raise unknown_target(target, runs)
    run = open_run(target, runs)
    result = run.finished()
    artifacts = {name: describe_artifact(run.artifact(name)) for name in run.artifact_names()}
    if json_:
        said = {"run": str(run.path), "config": run.settings(), "result": result and plain(result)}
        print_json(said | {"artifacts": {name: plain(each) for name, each in artifacts.items()}})
        return
    _print_state(run.path)
    if result:
        _print_result(result)
    for name, each in artifacts.items():
        _print_artifact(name, each, tensors=all_)
    _print_settings(run.settings(), all_)


def _print_state(path: Path) -> None:
    """How far a run is, in a line, and what to do about one that did not come to its end."""
    from niblick.ledger.rows import read_run

    row, _ = read_run(str(path), path.name)
    print(f"run       {path}: {row.status}{f' ({row.message})' if row.message else ''}")
    if row.status in ("stopped", "unfinished", "failed", "running") and row.step is not None:
        print(f"step      {row.step:,} of {row.steps:,}" if row.steps else f"step      {row.step:,}")
    if row.status in ("stopped", "unfinished", "failed"):
        print(f"go on by  niblick train --resume {path}")


_RESULT = ("bpb", "bpb_repaired", "bytes", "artifact", "artifact_bytes", "code_bytes", "total_bytes", "step")
"""What is shown of a result, and its train clock."""


def _print_result(result: Result | ImportResult) -> None:
    shown = {key: getattr(result, key, None) for key in (*_RESULT, "train_seconds")}
    if result.code_bytes is None:
        shown["code_bytes"] = UNWEIGHED
    print()
    print_table(["result", ""], [[key, number(value)] for key, value in shown.items() if value is not None])


def _print_artifact(name: str, artifact: ArtifactFacts, tensors: bool) -> None:
    parts, text = artifact.bytes, artifact.text
    packed = f", text {parts.text:,}" if text else ""
    print(f"\nartifact {name}")
    print(
        f"{parts.total:,} bytes: header {parts.header:,}, payload {parts.payload:,}{packed}; "
        f"{len(artifact.tensors)} tensors, {parts.before_coding:,} bytes before {artifact.codec}"
    )
    if text:
        print(
            f"text: {text.bytes:,} bytes of {text.documents:,} training documents, packed by the mixture "
            f"({text.mix}, {text.memory} MiB); its sidecar reads them before it scores"
        )
    if tensors:
        print_table(
            ["tensor", "shape", "scheme", "bytes before coding"],
            [[t.name, "×".join(map(str, t.shape)), t.scheme, f"{t.raw_bytes:,}"] for t in artifact.tensors],
        )


def _print_settings(settings: Mapping[str, object], all_: bool) -> None:
    """All keys of a config, or those that differ from its preset; from niblick's defaults if a recipe gave it."""
    from niblick.config.run_config import RunConfig, dotted, to_dict
    from niblick.recipes.presets import PRESETS, get_preset

    print()
    if all_:
        print_config(settings)
        return
    preset = str(settings.get("preset", ""))
    usual = dotted(to_dict(get_preset(preset) if preset in PRESETS else RunConfig(preset)))
    absent = object()
    changed = {key: value for key, value in dotted(settings).items() if usual.get(key, absent) != value}
    there = dict(flat({key: usual[key] for key in changed if key in usual}))
    rows = [[key, value, there.get(key, "")] for key, value in flat(changed)]
    name = f"preset {preset}" if preset in PRESETS else "niblick's defaults"
    print(f"config: {name}" + (f", and {len(rows)} keys that differ; --all shows every key" if rows else ""))
    if rows:
        print_table(["key", "value", "there"], rows)
