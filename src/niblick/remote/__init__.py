"""Runs on other machines that always come home: ssh and rsync to a machine one has, SkyPilot to find one.

address.py    where a machine is, ssh and rsync to it       clouds.py  where machines come from
launching.py  ship, check, start                            pull.py    bring home, compare digests
far.py        the far side: starts, watches, ends a run     money.py   price × time, budgets, idle machines
work.py       the far side: checks itself, trains           ending.py  stop runs, give machines back
records.py    what home knows of machines and runs          sky.py     SkyPilot, the only file that knows it
"""
