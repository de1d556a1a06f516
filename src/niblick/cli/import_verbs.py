"""The verb that makes runs of the H-Net paper's checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from niblick.cli.app import RUNS, Data, Json, Runs, import_app, print_json


@import_app.command("hnet")
def import_hnet(
    checkpoint: Annotated[Path, typer.Argument(help="The authors' weights: a state dict that torch.save wrote.")],
    config: Annotated[Path, typer.Argument(help="Their JSON config of the same model.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value …: score.seq_len, say.")] = None,
    data: Data = "",
    runs: Runs = RUNS,
    json_: Json = False,
) -> None:
    """Make a run of the H-Net paper's weights. Example: `niblick import hnet hnet_1stage_L.pt hnet_1stage_L.json`"""
    from niblick.run import paper_import as importing

    result = importing.import_hnet(checkpoint, config, runs, overrides=overrides or [], data=data)
    if json_:
        print_json(result)
    else:
        print(f"artifact  {result.artifact}, {result.artifact_bytes:,} bytes")
        print(f"run       {result.run}: niblick generate {result.run} --prompt 'Once upon'")
