"""Hidden units and heads in another order: the same function, but quantized rows that compress better side by side.

The hidden units of an MLP may stand in any order, if the rows of its first map and the columns of its second move
together; so may key-value heads with their queries, queries inside such a group, and the channels of values. Here they
are sorted by size, so that codes of like spread lie together. (The channels of queries and keys stay: rotary positions
tell them apart.) Source: the sprint's MLP permutation.

Shapes: U hidden units, D width, G key-value heads, Q queries of each, K head width.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


def permuted(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state dict of the same function with sorted hidden units and heads; other tensors as they are.

    MLPs and attentions are told by the names that `model.layers` gives their weights.
    """
    found = dict(state)
    for name in state:
        prefix, dot, last = name.rpartition("mlp.up.weight")
        if dot and not last:
            _sort_units(found, prefix + "mlp.")
        prefix, dot, last = name.rpartition("attn.q_gain")
        if dot and not last:
            _sort_heads(found, prefix + "attn.")
    return found


def _sort_units(state: dict[str, Tensor], prefix: str) -> None:
    up, down_DU = state[f"{prefix}up.weight"], state[f"{prefix}down.weight"]
    units = down_DU.shape[1]
    up_JUD = up.view(-1, units, up.shape[1])  # J is 2 for SwiGLU: gate and value belong together
    order_U = (up_JUD.float().square().sum((0, 2)) * down_DU.float().square().sum(0)).argsort(
        descending=True, stable=True
    )
    state[f"{prefix}up.weight"] = up_JUD[:, order_U].reshape_as(up)
    state[f"{prefix}down.weight"] = down_DU[:, order_U]


def _sort_heads(state: dict[str, Tensor], prefix: str) -> None:
    q, k, v, out = (state[f"{prefix}{name}.weight"] for name in ("q", "k", "v", "out"))
    gain_H = state[f"{prefix}q_gain"]
    width, heads = q.shape[0] // len(gain_H), len(gain_H)
    groups = k.shape[0] // width
    shape = (groups, heads // groups, width, q.shape[1])
    q_GQKD, out_DGQK = q.view(shape), out.view(-1, *shape[:3])
    k_GKD, v_GKD = (x.view(groups, width, -1) for x in (k, v))
    gain_GQ = gain_H.view(groups, -1)

    size_GQ = out_DGQK.float().square().sum((0, 3))
    order_G = size_GQ.sum(1).argsort(descending=True, stable=True)
    size_GQ, q_GQKD, out_DGQK, gain_GQ = size_GQ[order_G], q_GQKD[order_G], out_DGQK[:, order_G], gain_GQ[order_G]
    k_GKD, v_GKD = k_GKD[order_G], v_GKD[order_G]
    for g in range(groups):
        order_Q = size_GQ[g].argsort(descending=True, stable=True)
        order_K = v_GKD[g].float().square().sum(1).argsort(descending=True, stable=True)
        q_GQKD[g], gain_GQ[g] = q_GQKD[g, order_Q], gain_GQ[g, order_Q]
        v_GKD[g] = v_GKD[g, order_K]
        out_DGQK[:, g] = out_DGQK[:, g, order_Q][:, :, order_K]
    new = {"q.weight": q_GQKD, "k.weight": k_GKD, "v.weight": v_GKD, "out.weight": out_DGQK, "q_gain": gain_GQ}
    for name, tensor in new.items():
        state[prefix + name] = tensor.reshape(state[prefix + name].shape)
