"""The command line, in the process of a test."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from niblick import cli


class Niblick:
    """Runs a command line in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.capsys, self.monkeypatch = capsys, monkeypatch

    def __call__(self, *arguments: object) -> tuple[int, str, str]:
        self.monkeypatch.setattr(sys, "argv", ["niblick", *map(str, arguments)])
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        out, err = self.capsys.readouterr()
        return code, out, err

    def json(self, *arguments: object) -> Any:
        code, out, err = self(*arguments, "--json")
        assert code == 0, err
        return json.loads(out)

    def refused(self, *arguments: object) -> str:
        """The sentence on stderr of a command that exits with 2 and prints nothing on stdout."""
        code, out, err = self(*arguments)
        assert (code, out) == (2, ""), err
        assert err.startswith("niblick: ")
        assert "Traceback" not in err
        assert len(err.strip().splitlines()) == 1
        return err
