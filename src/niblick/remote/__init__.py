"""Runs on other machines that always come home: ssh and rsync to a machine one has, SkyPilot to find one.

address.py  where a machine is, ssh and rsync to it       launch.py  ship, check, start
far.py      the far side: starts, watches, ends a run     pull.py    bring home, compare digests
work.py     the far side: checks itself, trains           money.py   price × time, budgets, idle machines
records.py  what home knows of machines and runs          sky.py     SkyPilot, the only file that knows it
"""
