"""Verbs that look at presets, runs and artifacts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from niblick.cli.app import RUNS, Env, Json, Runs, app, print_facts, print_json, print_table, resolve, unknown_target


@app.command()
def presets(json_: Json = False) -> None:
    """List the presets. Example: `niblick presets`"""
    from niblick.model.counting import parameter_count
    from niblick.recipes.presets import PRESETS

    rows: list[dict[str, Any]] = [
        {"name": name, "parameters": parameter_count(recipe().model), "summary": (recipe.__doc__ or "").splitlines()[0]}
        for name, recipe in PRESETS.items()
    ]
    if json_:
        print_json({"presets": rows})
    else:
        print_table(
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
    from niblick.config.run_config import to_dict
    from niblick.model.counting import parameter_count
    from niblick.recipes.presets import PRESETS

    if target in PRESETS or target.endswith(".py"):
        config, _ = resolve(target, overrides or [], env)
        facts = {"parameters": parameter_count(config.model), "config": to_dict(config)}
    else:
        facts = _facts(target, runs)
    if json_:
        print_json(facts)
    else:
        print_facts(facts)


def _facts(target: str, runs: Path) -> dict[str, Any]:
    """What is said of a run or an artifact; only for these torch is imported."""
    from niblick.facts.reading import plain
    from niblick.run.artifacts import describe_artifact, find_artifact
    from niblick.run.directory import is_run, open_run

    if target.endswith(".nib") or ":" in target:
        return describe_artifact(find_artifact(target, runs)[0])
    if not is_run(target, runs):
        raise unknown_target(target, runs)
    run = open_run(target, runs)
    facts = {
        "run": str(run.path),
        "config": run.settings(),
        "result": (found := run.finished()) and plain(found),
    }
    return facts | {"artifacts": {name: describe_artifact(run.artifact(name)) for name in run.artifact_names()}}
