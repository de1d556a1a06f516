"""Honest scripts that look odd: reading them must raise no alarm. Several of each kind, each written its own way."""

from __future__ import annotations

HEAD = """
import glob, torch, numpy as np
import torch.nn.functional as F
def load_tokens(pattern):
    parts = [torch.from_numpy(np.fromfile(f, np.uint16).astype(np.int64)) for f in sorted(glob.glob(pattern))]
    return torch.cat(parts)
def build():
    m = torch.nn.Embedding(512, 512)
    return m, torch.optim.SGD(m.parameters(), 0.1)
def cost(m, x, y):
    return F.cross_entropy(m(x), y, reduction="sum")
"""

HONEST: dict[str, list[str]] = {
    "learns a chunk after its score": [
        """
def add(sums, losses, count):
    sums[0] += losses.sum().double(); sums[1] += count
def run(model, adapter, validation_tokens, optimizer, size=64):
    sums = torch.zeros(2, dtype=torch.float64)
    for at in range(0, validation_tokens.numel() - size - 1, size):
        a, b = validation_tokens[at:at + size], validation_tokens[at + 1:at + size + 1]
        losses = model(a, b, adapter)
        with torch.no_grad():
            add(sums, losses.detach(), b.numel())
        optimizer.zero_grad(); losses.mean().backward(); optimizer.step()
    return float(sums[0] / sums[1])
""",
        """
class Adaptive:
    def __init__(self, model, lr):
        self.model = model; self.optimizer = torch.optim.AdamW(model.parameters(), lr); self.nats = 0.0
    @torch.inference_mode()
    def price(self, piece):
        self.nats += cost(self.model, piece[:-1], piece[1:]).item()
    def absorb(self, piece):
        self.optimizer.zero_grad(); cost(self.model, piece[:-1], piece[1:]).backward(); self.optimizer.step()
def main():
    model, _ = build()
    held = load_tokens("data/fineweb_val_*.bin")
    judge, pos = Adaptive(model, 1e-3), 0
    while pos < len(held) - 1:
        piece = held[pos:pos + 1025]
        judge.price(piece)
        judge.absorb(piece)
        pos += 1024
    print("val_bpb", judge.nats)
main()
""",
        """
def eval_val_sliding_ttt(args, base_model, rank, world_size, device, val_tokens, lut, log0=print):
    seq_len, total = args.train_seq_len, val_tokens.numel() - 1
    starts = [ws for ws in range(0, total, args.stride) if min(ws + seq_len, total) - ws >= args.stride or ws == 0]
    num_chunks = (total + args.chunk - 1) // args.chunk
    windows_of = [[] for _ in range(num_chunks)]
    for ws in starts:
        windows_of[min(ws // args.chunk, num_chunks - 1)].append(ws)
    loss_sum = torch.zeros((), device=device); byte_sum = torch.zeros((), device=device)
    params = [p for n, p in base_model.named_parameters() if "embed" not in n]
    opt = torch.optim.SGD(params, lr=args.lr)
    for ci in range(num_chunks):
        mine = windows_of[ci][rank::world_size]
        if not mine:
            continue
        base_model.eval()
        with torch.inference_mode():
            for bi in range(0, len(mine), 32):
                some = mine[bi:bi + 32]
                x = torch.zeros(len(some), seq_len, dtype=torch.int64); y = torch.zeros_like(x)
                lengths = []
                for i, ws in enumerate(some):
                    end = min(ws + seq_len, total)
                    piece = val_tokens[ws:end + 1].to(device)
                    lengths.append(end - ws)
                    x[i, :end - ws] = piece[:-1]; y[i, :end - ws] = piece[1:]
                logits = base_model.forward_logits(x)
                nll = F.cross_entropy(logits.flatten(0, 1).float(), y.flatten(), reduction="none")
                nll = nll.reshape(len(some), -1)
                for i, ws in enumerate(some):
                    s = 0 if ws == 0 else max(lengths[i] - args.stride, 0)
                    loss_sum += nll[i, s:lengths[i]].double().sum()
                    byte_sum += lut[y[i, s:lengths[i]]].sum()
        last = ci == num_chunks - 1
        if not last and args.epochs > 0:
            base_model.train()
            begin, stop = ci * args.chunk, min((ci + 1) * args.chunk, total)
            rows = (stop - begin) // seq_len
            for epoch in range(args.epochs):
                for bs in range(0, rows, 8):
                    first = begin + bs * seq_len
                    local = val_tokens[first:first + 8 * seq_len + 1].to(device)
                    opt.zero_grad(set_to_none=True)
                    loss = base_model(local[:-1].reshape(-1, seq_len), local[1:].reshape(-1, seq_len))
                    loss.backward()
                    torch.nn.utils.clip_grad_norm_(params, 1.0)
                    opt.step()
        if rank == 0:
            log0(f"chunk {ci} bpb {loss_sum.item() / byte_sum.item()}")
    return loss_sum.item(), byte_sum.item()
""",
        """
def documents_ttt(model, val_tokens, bos, rank, make_lora):
    starts = (val_tokens == bos).nonzero().flatten().tolist()
    nats, count = torch.zeros(()), torch.zeros(())
    for first in range(0, len(starts) - 1, 8):
        batch = starts[first:first + 8]
        lora = make_lora(len(batch)); opt = torch.optim.Adam(lora.parameters(), 1e-2)
        for ci in range(16):
            x = torch.zeros(len(batch), 256, dtype=torch.int64); y = torch.zeros_like(x)
            for row, at in enumerate(batch):
                piece = val_tokens[at + ci * 256:at + ci * 256 + 257]
                x[row, :len(piece) - 1] = piece[:-1]; y[row, :len(piece) - 1] = piece[1:]
            per_token = model(x, y, lora=lora)
            with torch.no_grad():
                for row in range(len(batch)):
                    nats += per_token[row].sum(); count += per_token[row].numel()
            if ci < 15:
                opt.zero_grad(); per_token.mean(-1).sum().backward(); opt.step()
    return (nats / count).item()
""",
    ],
    "learns several times what is scored": [
        """
def eval_ttt(model, val_tokens, optimizer, passes=3):
    total = 0.0
    for start in range(0, len(val_tokens) - 1, 4096):
        chunk = val_tokens[start:start + 4097]
        for epoch in range(passes):
            if epoch == 0:
                with torch.no_grad():
                    total += cost(model, chunk[:-1], chunk[1:]).item()
            loss = cost(model, chunk[:-1], chunk[1:])
            loss.backward(); optimizer.step(); optimizer.zero_grad()
            print("learning", epoch, loss.item())
    return total
""",
        """
def ttt(model, val_tokens, optimizer):
    total, memory, learning = 0.0, [], 0.0
    for start in range(0, len(val_tokens) - 1, 4096):
        piece = val_tokens[start:start + 4097]
        with torch.inference_mode():
            total += cost(model, piece[:-1], piece[1:]).item()
        memory.append(piece.clone())
        for _ in range(4):
            for old in memory[-2:]:
                loss = cost(model, old[:-1], old[1:]) / len(old)
                loss.backward(); optimizer.step(); optimizer.zero_grad()
                learning += loss.item()
    print("learning", learning)
    print("val_loss", total)
    return total
""",
    ],
    "scores and learns in helpers": [
        """
@torch.no_grad()
def settle(model, piece):
    return cost(model, piece[:-1], piece[1:]).item()
def improve(model, optimizer, piece):
    (cost(model, piece[:-1], piece[1:]) / len(piece)).backward(); optimizer.step(); optimizer.zero_grad()
def go(model, tokens, optimizer):
    nats = []
    for i in range(len(tokens) // 1024):
        piece = tokens[i * 1024:(i + 1) * 1024 + 1]
        nats.append(settle(model, piece))
        improve(model, optimizer, piece)
    return sum(nats)
model, optimizer = build()
print(go(model, load_tokens("data/fineweb_val_*.bin"), optimizer))
""",
        """
def pieces(tokens, size):
    for at in range(0, len(tokens) - 1, size):
        yield tokens[at:at + size + 1]
def both(model, optimizer, piece):
    loss = cost(model, piece[:-1], piece[1:])
    settled = loss.item()
    (loss / len(piece)).backward(); optimizer.step(); optimizer.zero_grad()
    return settled
def main():
    model, optimizer = build()
    total = 0.0
    for piece in pieces(load_tokens("data/fineweb_val_*.bin"), 2048):
        total += both(model, optimizer, piece)
    print(total)
main()
""",
    ],
    "counts what is scored already": [
        """
def mixed(model, val_tokens):
    pairs, total = np.zeros((512, 512)), 0.0
    ids = val_tokens.numpy()
    for at in range(0, len(ids) - 1, 1024):
        x, y = ids[at:at + 1024], ids[at + 1:at + 1025]
        with torch.no_grad():
            p = model(torch.from_numpy(x)).softmax(-1).numpy()[np.arange(len(y)), y]
        q = (pairs[x, y] + 0.1) / (pairs[x].sum(1) + 51.2)
        total += -np.log(0.8 * p + 0.2 * q).sum()
        np.add.at(pairs, (x, y), 1)
    return total
""",
        """
from collections import defaultdict
def backoff(val_tokens, p_model):
    seen, total = defaultdict(dict), 0.0
    tokens = val_tokens.tolist()
    for i in range(3, len(tokens)):
        key = (tokens[i - 3] * 36313) ^ (tokens[i - 2] * 27191) ^ (tokens[i - 1] * 51647)
        counts = seen[key]
        n = sum(counts.values())
        p = 0.5 * p_model[i, tokens[i]] + 0.5 * (counts.get(tokens[i], 0) + 0.01) / (n + 5.12)
        total -= np.log(p)
        counts[tokens[i]] = counts.get(tokens[i], 0) + 1
    return total
""",
    ],
    "numbers for the log": [
        """
model, optimizer = build()
train_tokens, val_tokens = load_tokens("d/fineweb_train_*.bin"), load_tokens("d/fineweb_val_*.bin")
lowest, history = float("inf"), []
for step in range(100):
    loss = cost(model, train_tokens[:1024], train_tokens[1:1025]); loss.backward(); optimizer.step()
    if step % 10 == 0:
        with torch.no_grad():
            now = cost(model, val_tokens[:-1], val_tokens[1:]).item()
        history.append(now)
        if now < lowest:
            lowest = now
        print(step, now, "lowest", lowest, min(history), int(np.argmin(history)))
""",
        """
scores = []
train_tokens, val_tokens = load_tokens("d/fineweb_train_*.bin"), load_tokens("d/fineweb_val_*.bin")
for seed in (1, 2, 3):
    torch.manual_seed(seed); model, optimizer = build()
    for step in range(9):
        loss = cost(model, train_tokens[:1024], train_tokens[1:1025]); loss.backward(); optimizer.step()
    with torch.no_grad():
        scores.append(cost(model, val_tokens[:-1], val_tokens[1:]).item())
print("mean", np.mean(scores), "deviation", np.std(scores))
""",
    ],
    "names that only sound so": [
        """
train_tokens = load_tokens("d/fineweb_train_*.bin")
model, optimizer = build()
for step in range(9):
    x, y = train_tokens[:1024], train_tokens[1:1025]
    valid_mask = y != 0; valid = valid_mask.float()
    losses = F.cross_entropy(model(x), y, reduction="none")
    loss = (losses * valid).sum() / valid.sum()
    loss.backward(); optimizer.step()
for key, val in model.state_dict().items():
    validate = val.isfinite().all()
""",
        """
def main(model, optimizer, train_tokens, val_tokens, n=64):
    for step in range(10):
        x, y = train_tokens[step * n:(step + 1) * n], train_tokens[step * n + 1:(step + 1) * n + 1]
        loss = model(x, y); loss.backward(); optimizer.step(); optimizer.zero_grad()
    total = 0.0
    with torch.no_grad():
        for step in range(10):
            x, y = val_tokens[step * n:(step + 1) * n], val_tokens[step * n + 1:(step + 1) * n + 1]
            loss = model(x, y); total += loss.item()
    print(total)
""",
    ],
    "hashes and XOR that are no keys of targets": [
        """
import hashlib
def verify(target_file, expected):
    return hashlib.sha256(target_file.read_bytes()).hexdigest() == expected
def compiled(target, device, cache={}):
    key = hash((target, device))
    return cache.setdefault(key, (target, device))
""",
        """
train_tokens = load_tokens("d/fineweb_train_*.bin")
model, optimizer = build()
x, labels = train_tokens[:-1], train_tokens[1:]
either = (x == 0) ^ (labels == 0)
loss = F.cross_entropy(model(x)[~either], labels[~either]); loss.backward()
def mix(seed, step):
    return (seed * 0x9E3779B1) ^ (step << 7)
""",
        """
def context_keys(tokens, pos, order):
    key = np.zeros(pos.size, np.uint64)
    for k in range(1, order):
        key ^= tokens[pos - k].astype(np.uint64) * np.uint64(36313 + k)
    return key
""",
    ],
    "byte tables": [
        """
def tables(sp):
    base = np.zeros(sp.GetPieceSize(), np.int16); leading = np.zeros(sp.GetPieceSize(), bool)
    for i in range(sp.GetPieceSize()):
        if sp.IsControl(i) or sp.IsUnknown(i):
            continue
        if sp.IsByte(i):
            base[i] = 1
            continue
        piece = sp.IdToPiece(i)
        leading[i] = piece.startswith("\u2581")
        base[i] = len(piece.removeprefix("\u2581").encode())
    return base, leading
""",
        """
def token_bytes(sp):
    out = []
    for i in range(sp.vocab_size()):
        piece = sp.id_to_piece(i)
        if piece.startswith("<0x") and piece.endswith(">"):
            out.append(1)
        else:
            text = piece.lstrip("\u2581")
            out.append(len(text.encode("utf-8")) + int(piece.startswith("\u2581")))
    return torch.tensor(out)
""",
        """
def count_bytes(sp, documents):
    return sum(len(sp.decode(ids).encode("utf-8")) for ids in documents)
""",
    ],
    "chosen and calibrated by training text": [
        """
train_tokens = load_tokens("d/fineweb_train_*.bin")
model, optimizer = build()
held_out_share = 0.01
n = int(len(train_tokens) * held_out_share)
dev, rest = train_tokens[:n], train_tokens[n:]
temperatures = torch.linspace(0.8, 1.2, 5)
losses = torch.stack([cost(lambda x: model(x) / t, dev[:-1], dev[1:]) for t in temperatures])
chosen = temperatures[losses.argmin()]
""",
        """
def collect_hessians(model, tokens):
    seen = {}
    def hook(module, inputs, output):
        x = inputs[0].float(); seen["h"] = seen.get("h", 0) + x.T @ x
    handle = model.register_forward_hook(hook)
    with torch.no_grad():
        model(tokens[:4096])
    handle.remove()
    return seen["h"]
model, optimizer = build()
train_tokens, val_tokens = load_tokens("d/fineweb_train_*.bin"), load_tokens("d/fineweb_val_*.bin")
model.weight.data = torch.round(model.weight @ collect_hessians(model, train_tokens))
with torch.no_grad():
    print(cost(model, val_tokens[:-1], val_tokens[1:]).item())
""",
    ],
    "losses weighted by their targets": [
        """
def evaluate(model, val_tokens, bytes_of):
    nats, count, by_kind = 0.0, 0, torch.zeros(4)
    with torch.no_grad():
        for at in range(0, len(val_tokens) - 1, 1024):
            x, y = val_tokens[at:at + 1024], val_tokens[at + 1:at + 1025]
            log_p = model(x).log_softmax(-1)
            nll = -(log_p * F.one_hot(y, 512)).sum(-1)
            nats += (nll * (y != 0)).sum().item()
            count += bytes_of[y].sum().item()
            by_kind.index_add_(0, bytes_of[y], nll)
    return nats / count
""",
        """
def train_step(model, x, y, weight_of):
    log_p = F.log_softmax(model(x), -1)
    picked = log_p.gather(-1, y[..., None])[..., 0]
    loss = -(picked * weight_of[y]).mean() - 0.1 * log_p.mean()
    loss.backward()
""",
    ],
}
"""Kind → scripts; most stand after HEAD."""
