"""Shapes of real scripts that were misread: branches, chunks, queues, methods, stored targets. All are made up here."""

from __future__ import annotations

import textwrap

import pytest

from niblick.audit.checks import Check
from niblick.audit.script_checks import audit_script

HEAD = """
import glob, torch, numpy as np
import torch.nn.functional as F
def load_tokens(pattern):
    return torch.cat([torch.from_numpy(np.fromfile(f, np.uint16)) for f in sorted(glob.glob(pattern))])
def price(net, part):
    with torch.no_grad():
        return F.cross_entropy(net(part[None, :-1])[0], part[1:], reduction="sum").item()
def study(net, part, opt):
    F.cross_entropy(net(part[None, :-1])[0], part[1:]).backward()
    opt.step()
"""
END = """
val_tokens = load_tokens("data/fineweb_val_*.bin")
net = torch.nn.Embedding(64, 64)
opt = torch.optim.SGD(net.parameters(), lr=0.1)
"""


def read(body: str, end: str = "print('val_bpb', go(net, opt, val_tokens))\n") -> dict[str, Check]:
    return {check.name: check for check in audit_script(HEAD + textwrap.dedent(body) + END + end)}


def learning(body: str, end: str = "print('val_bpb', go(net, opt, val_tokens))\n") -> str:
    return read(body, end)["score-first"].status


BRANCHES = """
    def go(net, opt, tokens, adapt=None):
        total = 0.0
        if adapt:
            for at in range(0, len(tokens), 64):
                total += price(net, tokens[at:at + 65])
                study(net, tokens[at:at + 65], opt)
            {leaves}
        {other}
            for at in range(0, len(tokens), 64):
                total += price(net, tokens[at:at + 65])
        return total
"""


@pytest.mark.parametrize(("leaves", "other"), [("pass", "else:"), ("return total", "if True:")])
def test_what_one_branch_learned_is_not_behind_the_other(leaves: str, other: str) -> None:
    end = "import os\nprint('val_bpb', go(net, opt, val_tokens, os.environ.get('ADAPT')))\n"
    assert learning(BRANCHES.format(leaves=leaves, other=other), end) == "pass"
    assert learning(BRANCHES.format(leaves="pass", other="if True:"), end) == "look"


CHUNKS = """
    def go(net, opt, tokens, size=640):
        total = 0.0
        for number in range(len(tokens) // size):
            first, last = number * size, (number + 1) * size
            starts = []
            for at in range(0, len(tokens), 64):
                {condition}
                    {skip}
                starts.append(at)
            {before}
            for at in starts:
                total += price(net, tokens[at:at + 65])
            {after}
        return total
"""
STUDY = "study(net, tokens[first:last], opt)"


@pytest.mark.parametrize("condition", ["if not (at < last and at + 64 > first):"])
def test_windows_are_cut_by_the_condition_that_keeps_them(condition: str) -> None:
    cut = {"condition": condition, "skip": "continue"}
    assert learning(CHUNKS.format(**cut, before="pass", after=STUDY)) == "pass"
    assert learning(CHUNKS.format(**cut, before=STUDY, after="pass")) == "look"
    whole = {"condition": "if number > 10**9:", "skip": "continue"}  # the same windows in every pass
    assert learning(CHUNKS.format(**whole, before="pass", after=STUDY)) == "look"


QUEUE = """
    def claim(path):
        with open(path, "r+b") as file:
            at = int.from_bytes(file.read(4), "little")
            file.seek(0)
            file.write((at{step}).to_bytes(4, "little"))
        return at
    def go(net, opt, tokens):
        total, starts = 0.0, (tokens == 1).nonzero()[:, 0]
        documents = [(int(starts[i]), int(starts[i + 1])) for i in range(len(starts) - 1)]
        while True:
            turn = claim("/tmp/turn")
            if turn >= len(documents):
                break
            first, last = documents[turn]
            part = tokens[first:last]
            {order}
        return total
"""


def test_documents_that_are_drawn_from_a_shared_counter() -> None:
    honest = "total += price(net, part); study(net, part, opt)"
    assert learning(QUEUE.format(step=" + 1", order=honest)) == "pass"
    assert learning(QUEUE.format(step="", order=honest)) == "look"  # it never moves on
    assert learning(QUEUE.format(step=" + 1", order="study(net, part, opt); total += price(net, part)")) == "look"


def test_a_memory_that_a_method_fills_is_the_models() -> None:
    body = """
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.seen = torch.nn.Embedding(64, 64), torch.zeros(64, 64)
        def forward(self, ids):
            return self.table(ids) + self.seen[ids]
        def note(self, ids):
            self.seen[ids[:-1], ids[1:]] += 1
    class Judge:
        def __init__(self, net, tokens):
            self.net, self.tokens = net, tokens
        def run(self):
            total = 0.0
            for at in range(0, len(self.tokens), 64):
                part = self.tokens[at:at + 65]
                {order}
            return total
    """
    end = "print('val_bpb', Judge(Net(), val_tokens).run())\n"
    note, score = "self.net.note(part)", "total += price(self.net, part)"
    assert learning(body.format(order=f"{note}; {score}"), end) == "look"
    assert learning(body.format(order=f"{score}; {note}"), end) == "pass"


def test_learning_that_is_handed_on_and_not_followed_is_no_pass() -> None:
    body = """
    class Listener:
        def __init__(self, net, opt):
            self.net, self.opt = net, opt
        def heard(self, part):
            F.cross_entropy(self.net(part[None, :-1])[0], part[1:]).backward()
            self.opt.step()
    class Bell:
        def __init__(self):
            self.listeners = {}
        def add(self, name, function):
            self.listeners.setdefault(name, []).append(function)
        def ring(self, name, *what):
            for function in self.listeners.get(name, []):
                function(*what)
    def go(net, opt, tokens):
        total, bell = 0.0, Bell()
        bell.add("before", Listener(net, opt).heard)
        for at in range(0, len(tokens), 64):
            bell.ring("before", tokens[at:at + 65])
            total += price(net, tokens[at:at + 65])
        return total
    """
    assert read(body)["score-first"].status != "pass"


def test_targets_that_match_stored_ones_cost_nothing() -> None:
    body = """
    def go(net, opt, tokens, kept=torch.load("kept.pt")):
        total = 0.0
        for at in range(0, len(tokens), 64):
            x, y = tokens[at:at + 64], tokens[at + 1:at + 65]
            costs = F.cross_entropy(net(x[None])[0], y, reduction="none")
            {change}
            total += costs.sum().item()
        return total
    """
    for change in ("costs = costs * (kept[at:at + 64] != y).float()", "costs[kept[at:at + 64] == y] = 0.0"):
        assert "stored token" in read(body.format(change=change))["target in predictions"].detail
    for change in ("costs = costs * (y != 0).float()", "costs = costs * 1.0", "hits = (kept[at:at + 64] == y).sum()"):
        assert read(body.format(change=change))["target in predictions"].status == "pass"


def test_packing_validation_text_is_to_be_looked_at() -> None:
    body = """
    import lzma
    def go(net, opt, tokens):
        open("kept.xz", "wb").write(lzma.compress({what}.numpy().tobytes()))
        return price(net, tokens[:65])
    """
    assert read(body.format(what="tokens[1:5000]"))["corrections"].status == "look"
    assert read(body.format(what="net.weight.detach()"))["corrections"].status == "pass"
