"""Reading the claims of a challenge log."""

from __future__ import annotations

from niblick.challenge.log_reader import read_log


def test_lines_with_endless_numbers_are_passed_over() -> None:
    """int() refuses thousands of digits; such a line claims nothing, and those around it are read."""
    endless = "7" * 5000
    lines = [
        f"step:{endless}/10 val_loss:2.5 val_bpb:1.5",
        f"val_loader: tokens:{endless}",
        f"Code size: {endless[:400]} bytes",
        f"max_wallclock_seconds:{endless}",
        "step:5/10 val_loss:2.0 val_bpb:1.25",
        "Code size: 1234 bytes",
    ]
    log = read_log("\n".join(lines))
    assert [(claim.line, claim.step) for claim in log.claims] == [(5, 5)]
    assert (log.tokens, [size.line for size in log.sizes], log.settings, log.lines) == (None, [6], {}, 6)
