"""Functions from ids (B, L) to log-probabilities (B, L, 260): cheats that show as they are scored, honest oddities.

`FILE` is written to a file and loaded from there, so that each can be loaded anew.
"""

from __future__ import annotations

CHEATS = {
    "late_mask": "looks ahead beyond some position",
    "full_rows_only": "looks ahead in whole windows only",
    "last_quarter": "looks ahead beyond some position",
    "from_six_rows": "looks ahead in larger batches only",
    "mean_of_batch": "looks at other rows in larger batches only",
    "remembers": "wakes after many tokens",
    "wakes_once": "wakes after many tokens",
    "a_little_more": "sums to a little more than one",
    "more_when_scored": "sums to a little more than one",
    "rounded_sums": "sums to a little more than one",
}
HONEST = ("table", "mean_so_far", "half_network", "kept_answers", "in_numpy", "never_these", "very_sure", "by_fourier")

FILE = """
import functools, torch
import torch.nn.functional as F
V = 260
T = torch.randn(V, V, generator=torch.Generator().manual_seed(1))
W = torch.randn(V, 32, generator=torch.Generator().manual_seed(2))
U = torch.randn(V, 32, generator=torch.Generator().manual_seed(3))
state = {"seen": 0, "counts": torch.zeros(V)}

def ahead(x, ids, begin=0):
    x = x.clone(); x[:, begin:-1] += 5 * F.one_hot(ids[:, begin + 1:], V).float()
    return x

def table(ids): return T[ids].log_softmax(-1)
def late_mask(ids): return (ahead(T[ids], ids, 300) if ids.shape[1] > 302 else T[ids]).log_softmax(-1)
def last_quarter(ids): return (ahead(T[ids], ids, 768) if ids.shape[1] > 770 else T[ids]).log_softmax(-1)
def full_rows_only(ids): return (ahead(T[ids], ids) if ids.shape[1] == 1024 else T[ids]).log_softmax(-1)
def from_six_rows(ids): return (ahead(T[ids], ids) if len(ids) >= 6 else T[ids]).log_softmax(-1)
def mean_of_batch(ids): return (T[ids] - (T[ids].mean((0, 1)) if len(ids) > 5 else 0)).log_softmax(-1)
def remembers(ids):
    x = T[ids] + (state["counts"].log1p() if state["seen"] > 30_000 else 0)
    state["counts"] += torch.bincount(ids.flatten(), minlength=V); state["seen"] += ids.numel()
    return x.log_softmax(-1)
def wakes_once(ids):
    state["seen"] += ids.numel()
    return (ahead(T[ids], ids) if state["seen"] > 40_000 else T[ids]).log_softmax(-1)
def a_little_more(ids): return T[ids].log_softmax(-1) + 0.0005
def more_when_scored(ids): return T[ids].log_softmax(-1) + (0.0005 if ids.shape[1] > 512 else 0)
def rounded_sums(ids): return (T[ids].bfloat16() * 3).log_softmax(-1)

def mean_so_far(ids):
    n = torch.arange(1, ids.shape[1] + 1)[:, None]
    return (T[ids] - T[ids].cumsum(1) / n).log_softmax(-1)
def half_network(ids):
    h = W[ids].bfloat16()
    for _ in range(3): h = h + torch.tanh(h.roll(1, -1))
    return F.linear(h, U.bfloat16()).float().log_softmax(-1)
answers = {}
def kept_answers(ids):
    key = ids.numpy().tobytes(), ids.shape
    if key not in answers: answers[key] = T[ids].log_softmax(-1)
    return answers[key]
def in_numpy(ids):
    import numpy as np
    x = T.numpy()[ids.numpy()]; x = x - x.max(-1, keepdims=True)
    return torch.from_numpy(x - np.log(np.exp(x).sum(-1, keepdims=True)))
def never_these(ids):
    x = T[ids].clone(); x[..., :3] = -torch.inf
    return x.log_softmax(-1)
def very_sure(ids): return (1500 * T[ids]).log_softmax(-1)
def by_fourier(ids):
    x, n = T[ids], ids.shape[1]
    k = torch.fft.rfft(torch.exp(-torch.arange(n) / 9.0), 2 * n)[None, :, None]
    return torch.fft.irfft(torch.fft.rfft(x, 2 * n, dim=1) * k, 2 * n, dim=1)[:, :n].log_softmax(-1)
"""
