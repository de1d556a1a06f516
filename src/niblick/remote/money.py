"""What machines and runs cost: price × time, budgets, and machines that cost money for nothing."""

from __future__ import annotations

import time

from niblick.errors import ConfigError
from niblick.remote import records as at
from niblick.remote.records import Machine, RemoteRun

RESERVE = 900.0
"""Seconds of a budget kept free, by default, for exporting, scoring and pulling."""
IDLE = 600.0
"""Seconds without a run after which a machine that costs money is named in a warning."""


def cost(item: Machine | RemoteRun, now: float | None = None) -> float:
    """Dollars so far: of a machine since it is up, of a run since its launch."""
    since = item.since if isinstance(item, Machine) else item.launched
    end = item.ended if item.ended is not None else time.time() if now is None else now
    return item.price_per_hour * max(0.0, end - since) / 3600


def seconds_to_train(price_per_hour: float, budget: float | None, reserve: float, spent: float) -> float | None:
    """Seconds after which a run must end so that `budget` dollars also pay for `reserve` seconds after it.

    `spent` are the seconds since the launch. None: there is no budget. Raises ConfigError if it is too small, or if
    nothing is known of the price.
    """
    if budget is None:
        return None
    if price_per_hour <= 0:
        raise ConfigError("a --budget needs a price: give --price in dollars an hour")
    left = budget / price_per_hour * 3600 - reserve - spent
    if left <= 0:
        least = price_per_hour * (reserve + spent) / 3600
        raise ConfigError(
            f"a budget of ${budget:.2f} at ${price_per_hour:.2f} an hour leaves no time to train: ${least:.2f} go to "
            f"starting, exporting and pulling ({reserve:.0f} s are kept for that: --reserve)"
        )
    return left


def fits_budget(max_seconds: float | None, left: float | None) -> None:
    """Raise ConfigError if a run's own clock is longer than its budget: its learning rate would never come down."""
    if left is not None and max_seconds is not None and max_seconds > left:
        raise ConfigError(
            f"schedule.max_seconds={max_seconds:g} is more than the {left:.0f} s that the budget leaves for training: "
            f"set schedule.max_seconds={int(left * 0.9)}, so that the learning rate comes down in time, or a higher "
            "--budget"
        )


def warnings(machines: list[Machine], runs: list[RemoteRun], now: float | None = None) -> list[str]:
    """One sentence for each machine that costs money and does nothing, and each run that is out of touch."""
    now = time.time() if now is None else now
    said = []
    for machine in machines:
        mine = [run for run in runs if run.machine == machine.name]
        if machine.state != at.UP or not machine.price_per_hour or any(_busy(run) for run in mine):
            continue
        idle = now - max([machine.since, *(run.ended or run.launched for run in mine)])
        if idle > IDLE:
            said.append(
                f"machine {machine.name} has been idle for {idle / 60:.0f} minutes "
                f"(${idle * machine.price_per_hour / 3600:.2f}): niblick remote down {machine.name}"
            )
    for run in runs:
        quiet = now - (run.pulled or run.launched)
        if _busy(run) and quiet > IDLE:
            said.append(
                f"{run.run} was last heard of {quiet / 60:.0f} minutes ago: "
                f"niblick remote pull {run.run} --follow goes on where it stopped"
            )
    return said


def _busy(run: RemoteRun) -> bool:
    return run.state in (at.LAUNCHING, at.RUNNING)
