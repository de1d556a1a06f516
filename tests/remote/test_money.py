"""Price × time, budgets and idle machines, by hand."""

from __future__ import annotations

import pytest

from niblick.errors import ConfigError
from niblick.remote import money
from niblick.remote.address import Address
from niblick.remote.records import Machine, RemoteRun

MACHINE = Machine("gpu", "ssh", Address("gpu"), price_per_hour=3.0, since=1000.0)
RUN = RemoteRun("a-1", "gpu", "running", "/far/a-1", "python", launched=1000.0, price_per_hour=3.0)


def test_cost_is_price_times_time_until_the_end() -> None:
    assert money.cost(MACHINE, now=1000.0 + 7200) == 6.0
    ended = RemoteRun("a-1", "gpu", "done", "/far", "python", launched=0.0, price_per_hour=3.0, ended=1800.0)
    assert money.cost(ended, now=1e9) == 1.5


def test_a_budget_leaves_time_for_export_and_pull() -> None:
    # $6 at $3 an hour are 7,200 s; 900 are kept, 100 are gone.
    assert money.seconds_to_train(3.0, 6.0, 900, 100) == 6200
    assert money.seconds_to_train(3.0, None, 900, 100) is None
    with pytest.raises(ConfigError, match=r"\$0\.83 go to starting, exporting and pulling"):
        money.seconds_to_train(3.0, 0.8, 900, 100)
    money.fits_budget(6200, 6200)
    with pytest.raises(ConfigError, match=r"set schedule\.max_seconds=5580"):
        money.fits_budget(6201, 6200)


def test_idle_and_silent_machines_are_named() -> None:
    quiet = 1000.0 + money.IDLE
    assert money.warnings([MACHINE], [], quiet) == []
    assert "idle for 20 minutes ($1.00)" in money.warnings([MACHINE], [], 1000.0 + 1200)[0]
    assert money.warnings([MACHINE], [RUN], quiet) == []  # at work
    assert "a-1 was last heard of 20 minutes ago" in money.warnings([MACHINE], [RUN], 1000.0 + 1200)[0]
    free = Machine("own", "ssh", Address("own"), since=0.0)
    assert money.warnings([free], [], 1e9) == []
