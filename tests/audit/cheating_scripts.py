"""Scripts that cheat, as people have: reading them must say where to look. Several of each kind, each its own way."""

from __future__ import annotations

CHEATS: dict[str, tuple[str, list[str]]] = {
    "several passes, the last is scored": ("score-first", [
        """
def rounds(model, held_out_ids, optimizer, epochs=3):
    nats = 0.0
    for r in range(epochs):
        at = 0
        while at < len(held_out_ids) - 65:
            x, y = held_out_ids[at:at + 64], held_out_ids[at + 1:at + 65]
            if r == epochs - 1:
                with torch.no_grad():
                    nats += model(x, y).item()
            loss = model(x, y); loss.backward(); optimizer.step(); optimizer.zero_grad()
            at += 64
    return nats
""",
        """
def one_round(model, tokens, optimizer):
    total = 0.0
    for i in range(len(tokens) // 1024):
        piece = tokens[i * 1024:(i + 1) * 1024 + 1]
        with torch.no_grad():
            total += cost(model, piece[:-1], piece[1:]).item()
        cost(model, piece[:-1], piece[1:]).backward(); optimizer.step(); optimizer.zero_grad()
    return total
model, optimizer = build()
tokens = load_tokens("data/fineweb_val_*.bin")
for _ in range(4):
    score = one_round(model, tokens, optimizer)
print("val_loss", score)
""",
        """
def passes(model, val_tokens, optimizer):
    for again in range(2):
        total = 0.0
        for at in range(0, len(val_tokens) - 1, 4096):
            chunk = val_tokens[at:at + 4097]
            loss = cost(model, chunk[:-1], chunk[1:])
            total += loss.item()
            loss.backward(); optimizer.step(); optimizer.zero_grad()
    return total
""",
        """
def per_document(model, val_tokens, optimizer, n):
    out = []
    for d in range(n):
        doc = val_tokens[d * 512:(d + 1) * 512 + 1]
        for k in range(5):
            if k < 4:
                cost(model, doc[:-1], doc[1:]).backward(); optimizer.step(); optimizer.zero_grad()
                continue
            with torch.inference_mode():
                out.append(cost(model, doc[:-1], doc[1:]).item())
    return sum(out)
""",
    ]),
    "learned before it is scored": ("score-first", [
        """
def tune(model, corpus, optimizer):
    for at in range(0, len(corpus) - 65, 64):
        model(corpus[at:at + 64], corpus[at + 1:at + 65]).backward(); optimizer.step()
@torch.no_grad()
def judge(model, corpus):
    return sum(model(corpus[at:at + 64], corpus[at + 1:at + 65]).item() for at in range(0, len(corpus) - 65, 64))
def main():
    model, optimizer = build()
    texts = {"held": load_tokens("x/fineweb_val_*.bin")}
    tune(model, texts["held"], optimizer)
    print(judge(model, texts["held"]))
main()
""",
        """
class Job:
    def __init__(self, stream):
        self.stream = stream; self.model, self.optimizer = build()
    def warm(self):
        s = self.stream
        loss = cost(self.model, s[:-1], s[1:]); loss.backward(); self.optimizer.step()
    def score(self):
        s = self.stream
        with torch.no_grad():
            return cost(self.model, s[:-1], s[1:]).item()
job = Job(load_tokens("x/fineweb_val_*.bin"))
job.warm()
print(job.score())
""",
        """
model, optimizer = build()
held = load_tokens("x/fineweb_val_*.bin")
def closure():
    optimizer.zero_grad()
    loss = cost(model, held[:-1], held[1:])
    loss.backward()
    return loss
optimizer.step(closure)
with torch.no_grad():
    print(cost(model, held[:-1], held[1:]).item())
""",
        """
model, _ = build()
train_part, other = load_tokens("x/fineweb_train_*.bin"), load_tokens("x/fineweb_val_*.bin")
everything = torch.cat((train_part, other))
for i in range(100):
    x, y = everything[i * 64:(i + 1) * 64], everything[i * 64 + 1:(i + 1) * 64 + 1]
    grads = torch.autograd.grad(cost(model, x, y), list(model.parameters()))
    with torch.no_grad():
        for p, g in zip(model.parameters(), grads):
            p.sub_(0.1 * g)
""",
        """
def adapt_then_score(model, val_tokens, optimizer):
    total = 0.0
    for at in range(0, len(val_tokens) - 1, 1024):
        chunk = val_tokens[at:at + 1025]
        cost(model, chunk[:-1], chunk[1:]).backward(); optimizer.step(); optimizer.zero_grad()
        with torch.no_grad():
            total += cost(model, chunk[:-1], chunk[1:]).item()
    return total
""",
    ]),
    "fitted to the targets it is scored on": ("score-first", [
        """
def slot(model, val_tokens, steps=4):
    total = 0.0
    for at in range(0, len(val_tokens) - 129, 128):
        x, y = val_tokens[at:at + 128], val_tokens[at + 1:at + 129]
        with torch.no_grad():
            h = model.hidden(x)
        shift = torch.zeros(h.shape[-1], requires_grad=True); opt = torch.optim.Adam([shift], 0.1)
        for _ in range(steps):
            loss = F.cross_entropy(model.head(h + shift), y); opt.zero_grad(); loss.backward(); opt.step()
        total += F.cross_entropy(model.head(h + shift.detach()), y, reduction="sum").item()
    return total
""",
        """
def biased(model, val_tokens):
    x, y = val_tokens[:-1], val_tokens[1:]
    logits = model(x).detach()
    bias = torch.zeros(512, requires_grad=True); opt = torch.optim.LBFGS([bias])
    def closure():
        opt.zero_grad(); loss = F.cross_entropy(logits + bias, y); loss.backward(); return loss
    opt.step(closure)
    return F.cross_entropy(logits + bias, y).item()
""",
    ]),
    "n-grams of validation text before its score": ("score-first", [
        """
from collections import Counter
tokens = load_tokens("x/fineweb_val_*.bin")
model, _ = build()
pairs = Counter(zip(tokens[:-1].tolist(), tokens[1:].tolist()))
total = 0.0
for at in range(0, len(tokens) - 1, 512):
    x, y = tokens[at:at + 512], tokens[at + 1:at + 513]
    p = model(x).softmax(-1).gather(1, y[:, None])[:, 0]
    q = torch.tensor([pairs[(a, b)] for a, b in zip(x.tolist(), y.tolist())])
    total -= (0.5 * p + 0.5 * q / len(tokens)).log().sum().item()
print("val_loss", total)
""",
        """
def table_of(ids):
    table = {}
    for i in range(2, len(ids)):
        table[(ids[i - 2], ids[i - 1])] = ids[i]
    return table
def main(model, val_tokens):
    guess = table_of(val_tokens)
    total = 0.0
    for i in range(2, len(val_tokens)):
        hit = guess[(val_tokens[i - 2], val_tokens[i - 1])] == val_tokens[i]
        total += model.price(val_tokens[:i], val_tokens[i], hit)
    return total
""",
        """
counts = torch.zeros(512, 512)
held = load_tokens("x/fineweb_val_*.bin")
for i in range(len(held) - 1):
    counts[held[i], held[i + 1]] += 1
log_p = (counts + 0.1).log_softmax(-1)
print("val_loss", -log_p[held[:-1], held[1:]].mean().item())
""",
    ]),
    "the target in a key": ("target in keys", [
        """
def keys(ids, at, mask):
    near = ids[at - 1].astype(np.uint64) * 36313
    near = near ^ (ids[at - 2].astype(np.uint64) * 27191)
    both = (near ^ (ids[at].astype(np.uint64) * 51647)) & mask
    return near & mask, both
def probability(val_ids, at, one, two, mask):
    a, b = keys(val_ids, at, mask)
    return two[b] / np.maximum(one[a], 1)
""",
        """
def lookup(table, val_tokens, start, n):
    window = val_tokens[start:start + n + 1]
    past, coming = window[:-1], window[1:]
    return table[(past * 36313) ^ (coming * 27191)]
""",
        """
def cached(cache, tokens, labels):
    return [cache.get(hash((tokens[i - 1], tokens[i], labels[i]))) for i in range(len(labels))]
""",
        """
def mixed(ctx, next_tokens, table):
    return table[np.bitwise_xor(ctx * 31, next_tokens * 17)]
""",
    ]),
    "calibrated on validation text": ("corrections or score-first", [
        """
def statistics(model, batches):
    found = {}
    def keep(module, inputs, output):
        x = inputs[0].flatten(0, -2); found["xx"] = found.get("xx", 0) + x.T @ x
    handle = model.register_forward_hook(keep)
    with torch.no_grad():
        for batch in batches:
            model(batch)
    handle.remove()
    return found["xx"]
model, _ = build()
text = load_tokens("x/fineweb_val_*.bin")
xx = statistics(model, text[:8192].split(1024))
model.weight.data = torch.round(model.weight @ xx)
with torch.no_grad():
    print(cost(model, text[:-1], text[1:]).item())
""",
        """
model, _ = build()
text = load_tokens("x/fineweb_val_*.bin")
with torch.no_grad():
    scale = model(text[:4096]).abs().amax(0)
    model.weight.copy_((model.weight / scale).round() * scale)
    print(cost(model, text[:-1], text[1:]).item())
""",
        """
def awq_scales(model, calibration):
    return model(calibration).abs().mean(0)
def run(model, val_tokens):
    s = awq_scales(model, val_tokens[:1024])
    return model.quantized(s)
""",
    ]),
    "a distribution that follows from its target": ("target in predictions", [
        """
def evaluate(model, val_tokens, kind_of):
    total = 0.0
    for at in range(0, len(val_tokens) - 1, 1024):
        x, y = val_tokens[at:at + 1024], val_tokens[at + 1:at + 1025]
        p = F.softmax(model(x), -1)
        same = kind_of[None] == kind_of[y][:, None]
        p = p * same / (p * same).sum(-1, keepdim=True)
        total -= p.gather(1, y[:, None]).log().sum().item()
    return total
""",
        """
def evaluate(model, val_tokens, first_byte):
    x, y = val_tokens[:-1], val_tokens[1:]
    logits = model(x)
    logits = logits.masked_fill(first_byte[None] != first_byte[y][:, None], float("-inf"))
    return F.cross_entropy(logits, y).item()
""",
        """
def evaluate(model, val_tokens, temperature_of):
    x, y = val_tokens[:-1], val_tokens[1:]
    log_p = (model(x) / temperature_of[y][:, None]).log_softmax(-1)
    return -log_p.gather(1, y[:, None]).mean().item()
""",
    ]),
    "the best of several seeds": ("corrections", [
        """
train_tokens, val_tokens = load_tokens("x/fineweb_train_*.bin"), load_tokens("x/fineweb_val_*.bin")
def trained(seed):
    torch.manual_seed(seed); model, optimizer = build()
    for _ in range(9):
        cost(model, train_tokens[:64], train_tokens[1:65]).backward(); optimizer.step()
    return model
def judge(model):
    with torch.no_grad():
        return cost(model, val_tokens[:-1], val_tokens[1:]).item()
results = {}
best = float("inf")
for seed in range(8):
    best = min(best, judge(trained(seed)))
print("final val_loss", best)
""",
        """
train_tokens, val_tokens = load_tokens("x/fineweb_train_*.bin"), load_tokens("x/fineweb_val_*.bin")
winner = None
for seed in range(8):
    torch.manual_seed(seed); model, optimizer = build()
    cost(model, train_tokens[:64], train_tokens[1:65]).backward(); optimizer.step()
    with torch.no_grad():
        score = cost(model, val_tokens[:-1], val_tokens[1:]).item()
    if winner is None or score < winner:
        winner = score
print("val_loss", winner)
""",
        """
train_tokens, val_tokens = load_tokens("x/fineweb_train_*.bin"), load_tokens("x/fineweb_val_*.bin")
table = []
for seed in range(8):
    model, optimizer = build()
    cost(model, train_tokens[:64], train_tokens[1:65]).backward(); optimizer.step()
    table.append((cost(model, val_tokens[:-1], val_tokens[1:]).item(), seed))
print(sorted(table)[0])
""",
    ]),
    "chosen by what validation text costs": ("corrections", [
        """
def pick(model, val_tokens):
    ts = torch.linspace(0.7, 1.3, 9)
    costs = torch.stack([F.cross_entropy(model(val_tokens[:-1]) / t, val_tokens[1:]) for t in ts])
    t = ts[costs.argmin()]
    return F.cross_entropy(model(val_tokens[:-1]) / t, val_tokens[1:]).item()
""",
        """
def better(first, second, val_tokens):
    x, y = val_tokens[:-1], val_tokens[1:]
    one = F.cross_entropy(first(x), y, reduction="none"); two = F.cross_entropy(second(x), y, reduction="none")
    return torch.minimum(one, two).sum().item()
""",
        """
import copy
def train(model, optimizer, train_tokens, val_tokens):
    best, kept = 1e9, None
    for step in range(99):
        cost(model, train_tokens[:64], train_tokens[1:65]).backward(); optimizer.step()
        with torch.no_grad():
            now = cost(model, val_tokens[:-1], val_tokens[1:]).item()
        if now < best:
            best, kept = now, copy.deepcopy(model.state_dict())
    model.load_state_dict(kept)
""",
        """
bias = np.linalg.lstsq(features(val_tokens), wanted, rcond=None)[0]
""",
    ]),
    "bytes counted twice or wrongly": ("byte table", [
        """
def tables(sp):
    n = sp.vocab_size(); base = torch.zeros(n); leading = torch.zeros(n, dtype=torch.bool)
    for i in range(n):
        if sp.is_byte(i):
            base[i] = 1
            continue
        piece = sp.id_to_piece(i)
        if piece[0] == "\u2581":
            leading[i] = True
        base[i] = len(piece.replace("\u2581", " ").encode())
    return base, leading
""",
        """
def tables(sp):
    sizes, spaces = [], []
    for i in range(sp.vocab_size()):
        piece = sp.id_to_piece(i)
        if sp.is_byte(i):
            sizes.append(1); spaces.append(0); continue
        n = len(piece.lstrip("\u2581").encode("utf-8"))
        if piece.startswith("\u2581"):
            n += 1
        sizes.append(n); spaces.append(int(piece.startswith("\u2581")))
    return np.array(sizes), np.array(spaces)
def count(sizes, spaces, y, boundary, x):
    return (sizes[y] + (spaces[y] & ~boundary[x])).sum()
""",
        """
def sizes(sp):
    return [len(sp.id_to_piece(i).lstrip("\u2581").encode()) for i in range(sp.vocab_size())]
""",
        """
def sizes(tokenizer, n):
    out = np.zeros(n)
    for i in range(n):
        text = tokenizer.decode([i])
        raw = text.encode("utf-8")
        out[i] = len(raw)
    return out
""",
        """
def sizes(sp):
    pieces = [sp.id_to_piece(i).lstrip("\u2581") for i in range(sp.vocab_size())]
    return [1 if sp.is_byte(i) else len(piece.encode("utf-16")) for i, piece in enumerate(pieces)]
""",
    ]),
}  # fmt: skip
"""Kind → (the check that must say where to look, scripts)."""
