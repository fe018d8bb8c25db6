"""Trains pebble and its assistant from scratch on one GPU.

  python3 train.py --out DIR --minutes 7 --drafter-minutes 1.5 [--resume DIR --resume-rate 0.5] [--length 2048]

Writes DIR/pebble and DIR/pebble-assistant in the published format, and prints the held-out skills and the acceptance of
drafts. Worker processes write the training rows while the GPU trains; every chat is drawn anew.
"""
import argparse
import json
import math
import os
import pathlib
import random
import threading
import time

import numpy as np
import torch
import torch.nn.functional as F

import checkpoint
import chats
import data
import generate
import model as m

KEPT_ROWS = 100000  # on the device, for when the workers fall behind
PLAIN_WEIGHT = 0.03  # of tokens that are not the model's


class Feed:
    """Rows from the workers' shards, kept on the device; each row is new until the workers fall behind."""

    def __init__(self, folder, device, kind="short"):
        self.folder, self.device, self.kind = pathlib.Path(folder), device, kind
        self.rows, self.at, self.lock, self.fresh, self.reused = None, 0, threading.Lock(), 0, 0
        threading.Thread(target=self.collect, daemon=True).start()

    def collect(self):
        while True:
            found = sorted(self.folder.glob(f"{self.kind}.*.npy"))
            for path in found:
                rows = torch.from_numpy(np.load(path)).to(self.device)
                os.unlink(path)
                with self.lock:
                    old = rows[:0] if self.rows is None else self.rows
                    self.at = max(0, self.at - max(0, len(old) - KEPT_ROWS))
                    self.rows = torch.cat([old[-KEPT_ROWS:], rows])
            if not found:
                time.sleep(0.05)

    def next(self, n):
        while self.rows is None or len(self.rows) < n:
            time.sleep(0.05)
        with self.lock:
            new = min(n, len(self.rows) - self.at)
            batch = self.rows[self.at:self.at + new]
            self.at += new
            if new < n:
                batch = torch.cat([batch, self.rows[torch.randint(len(self.rows), (n - new,), device=self.device)]])
        self.fresh, self.reused = self.fresh + new, self.reused + n - new
        return batch


def unpack(rows, bos):
    """ids, docs, labels, weights: the weight of a position is that of the token it predicts."""
    ids = (rows & data.ID_BITS).long()
    said = (rows >> 12).float()
    labels = torch.cat([ids[:, 1:], torch.zeros_like(ids[:, :1])], 1)
    said = torch.cat([said[:, 1:], torch.zeros_like(said[:, :1])], 1)
    plain = (labels != 0) & (labels != bos)
    return ids, m.docs_of(ids, bos), labels, torch.where(said > 0, 1.0, PLAIN_WEIGHT * plain.float())


def orthogonal(g):
    """Newton-Schulz steps on a stack of matrices (the Muon update)."""
    x = g.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        a = x @ x.mT
        b = -4.7750 * a + 2.0315 * a @ a
        x = 3.4445 * x + b @ x
    x = x.mT if tall else x
    return x.float() * max(1.0, x.shape[-2] / x.shape[-1]) ** 0.5


def muon_step(p, grad, momentum, lr, decay):
    momentum.lerp_(grad, 0.05)
    update = orthogonal(grad.lerp(momentum, 0.95))
    p.mul_(1 - lr * decay).add_(update * -lr)


class Optimiser:
    """Muon on the stacks of matrices, Adam on tables, norms and scalars."""

    def __init__(self, stacks, rate, compiled):
        names = [n for n, p in stacks.p.items() if p.dim() == 3]
        self.matrices = [stacks.p[n] for n in names]
        self.momentum = [torch.zeros_like(p) for p in self.matrices]
        tables = [p for n, p in stacks.p.items() if n in ("embed", "ple_table", "pre", "post")]
        rest = [p for n, p in stacks.p.items() if n not in names and n not in ("embed", "ple_table", "pre", "post")]
        self.adam = torch.optim.AdamW([{"params": tables, "peak": 0.004 * rate}, {"params": rest, "peak": 0.004 * rate}], lr=0.0,
                                      betas=(0.9, 0.98), weight_decay=0.0, fused=stacks.p["embed"].is_cuda)
        self.peak = 0.02 * rate
        self.step_fn = torch.compile(muon_step, dynamic=False) if compiled else muon_step

    @torch.no_grad()
    def step(self, scale):
        for group in self.adam.param_groups:
            group["lr"] = group["peak"] * scale
        self.adam.step()
        lr = torch.tensor(self.peak * scale, device=self.matrices[0].device)
        for p, b in zip(self.matrices, self.momentum):
            self.step_fn(p.data, p.grad, b, lr, 0.05)
        for p in self.matrices:
            p.grad = None
        self.adam.zero_grad(set_to_none=True)


def schedule(done, step):
    """Share of the peak rate: short warm-up, flat, then down to zero with the time that is left."""
    return min(1.0, (step + 1) / 60) * min(1.0, max(0.0, (1 - done) / 0.6))


def batches(feed, long_feed, rows, long_share):
    """Rows per step: mostly short chats, some long ones."""
    n = round(rows * long_share)
    batch = feed.next(rows - n)
    return torch.cat([batch, long_feed.next(n)]) if n else batch


def train_target(decoder, feeds, args, bos, dtype, seconds):
    optimiser = Optimiser(decoder, args.resume_rate if args.resume else 1.0, args.compiled)
    begin, step = time.time(), 0
    shown = begin
    while (done := (time.time() - begin) / seconds) < 1 and step < args.max_steps:
        ids, docs, labels, weights = unpack(batches(*feeds, args.rows, args.long_share), bos)
        loss, right = decoder.loss(ids, docs, labels, weights, dtype)
        loss.backward()
        optimiser.step(schedule(done, step))
        if step in (0, 1, 2) or time.time() - shown > 15:
            print(f"step {step:5} {time.time() - begin:6.1f} s loss {loss.item():.4f} right {right.item():.2%} "
                  f"rows fresh {feeds[0].fresh} reused {feeds[0].reused}", flush=True)
            shown = time.time()
        step += 1
        if step % 4 == 0 and ids.is_cuda:
            torch.cuda.synchronize()  # so that the clock read above is the device's
    print(f"target: {step} steps of {args.rows * args.length} tokens in {time.time() - begin:.0f} s", flush=True)


def draft_loss(y, embed, target_logits, weights):
    """Half against the target's choice, half against its distribution; and the share of choices met."""
    logits = F.linear(y, embed).float().flatten(0, 1)
    target = target_logits.float().flatten(0, 1)
    choice = target.argmax(-1)
    w = weights.flatten()
    hard = F.cross_entropy(logits, choice, reduction="none")
    soft = -(target.softmax(-1) * logits.log_softmax(-1)).sum(-1)
    met = ((logits.argmax(-1) == choice) * w).sum() / w.sum()
    return ((0.6 * hard + 0.4 * soft) * w).sum() / w.sum(), met


def train_drafter(decoder, drafter, feeds, args, bos, dtype, seconds, steps=4):
    """Bursts from every position, tokens given, states its own; keys and states are the frozen target's."""
    optimiser = Optimiser(drafter, 1.0, args.compiled)
    loss_fn = torch.compile(draft_loss, dynamic=False) if args.compiled else draft_loss
    begin, step = time.time(), 0
    shown = begin
    shift = lambda t, n: torch.cat([t[:, n:], torch.zeros_like(t[:, :n])], 1)
    with torch.no_grad():
        target = decoder.cast(dtype)
    while (done := (time.time() - begin) / seconds) < 1 and step < args.max_steps:
        ids, docs, labels, weights = unpack(batches(*feeds, args.rows // 2, args.long_share), bos)
        with torch.no_grad():
            h, kv, _ = decoder.rows(ids, docs, dtype, target)
            logits = m.cap(F.linear(h, target["embed"]).float()).to(dtype)
        positions = torch.arange(ids.shape[1], device=ids.device)[None] + torch.randint(2, (ids.shape[0], 1), device=ids.device)
        w = drafter.cast(dtype)
        total, met, same = 0.0, [], torch.ones_like(docs, dtype=torch.bool)
        for j in range(steps):
            e = target["embed"][shift(ids, j + 1)] * m.embed_scale(decoder.config.hidden)
            y, h = drafter.step(e, h, kv, docs, positions, w)
            same = same & (shift(docs, j + 1) == docs)
            loss, share = loss_fn(y, w["embed"], shift(logits, j + 1), shift(weights, j + 1) * same)
            total = total + loss * (1.0, 0.8, 0.6, 0.3)[j]
            met.append(share.detach())
        total.backward()
        optimiser.step(schedule(done, step))
        if step in (0, 1, 2) or time.time() - shown > 15:
            print(f"draft {step:5} {time.time() - begin:6.1f} s loss {total.item():.4f} met {' '.join(f'{x.item():.1%}' for x in met)}", flush=True)
            shown = time.time()
        step += 1
        if step % 4 == 0 and ids.is_cuda:
            torch.cuda.synchronize()
    print(f"drafter: {step} steps in {time.time() - begin:.0f} s", flush=True)


@torch.no_grad()
def drafter_states(decoder, drafter, rows, bos, dtype):
    """States y before the head over three steps, with the token each should choose; only where the model speaks."""
    ids, docs, labels, weights = unpack(rows, bos)
    target, w = decoder.cast(dtype), drafter.cast(dtype)
    h, kv, _ = decoder.rows(ids, docs, dtype, target)
    choice = F.linear(h, target["embed"]).argmax(-1)
    positions = torch.arange(ids.shape[1], device=ids.device)[None] + 1
    shift = lambda t, n: torch.cat([t[:, n:], torch.zeros_like(t[:, :n])], 1)
    states, tokens = [], []
    for j in range(3):
        y, h = drafter.step(target["embed"][shift(ids, j + 1)] * m.embed_scale(decoder.config.hidden), h, kv, docs, positions, w)
        keep = shift(weights, j + 1) == 1
        states.append(y[keep].float())
        tokens.append(shift(choice, j + 1)[keep])
    return torch.cat(states), torch.cat(tokens)


@torch.no_grad()
def balanced_clusters(x, clusters, rounds=30):
    """Equal-sized clusters of unit rows: greedy assignment by margin, then means, repeated."""
    n, size = len(x), len(x) // clusters
    centres = x[torch.randperm(n, generator=torch.Generator().manual_seed(4))[:clusters]].clone()
    for _ in range(rounds):
        score = x @ centres.T
        order = (score.topk(2).values[:, 0] - score.topk(2).values[:, 1]).argsort(descending=True).tolist()
        ranks, room, assigned = score.argsort(descending=True).tolist(), [size] * clusters, [0] * n
        for i in order:
            c = next(c for c in ranks[i] if room[c])
            room[c] -= 1
            assigned[i] = c
        a = torch.tensor(assigned)
        centres = torch.stack([F.normalize(x[a == c].mean(0), dim=0) for c in range(clusters)])
    return a


def add_centroids(decoder, drafter, rows, bos, dtype):
    """Clusters of the drafter's table, and centroids trained so that the right token's cluster ranks first."""
    c = drafter.config
    table = drafter.p["embed"].detach().float().cpu()
    assigned = balanced_clusters(F.normalize(table - table.mean(0), dim=1), c.centroids)
    ordering = assigned.argsort(stable=True)
    states, tokens = drafter_states(decoder, drafter, rows, bos, dtype)
    assigned = assigned.to(states.device)
    centroids = torch.nn.Parameter(torch.stack([drafter.p["embed"].detach()[assigned == i].mean(0) for i in range(c.centroids)]).float())
    adam = torch.optim.Adam([centroids], lr=0.02)
    for i in range(300):
        pick = torch.randint(len(states), (min(16384, len(states)),), device=states.device)
        loss = F.cross_entropy(states[pick] @ centroids.T, assigned[tokens[pick]])
        loss.backward()
        adam.step()
        adam.zero_grad()
        adam.param_groups[0]["lr"] = 0.02 * (1 - i / 300)
    drafter.centroids = centroids.detach().to(torch.bfloat16).float()
    drafter.token_ordering = ordering.to(states.device)
    ranks = (states @ drafter.centroids.T).argsort(descending=True)
    place = (ranks == assigned[tokens][:, None]).float().argmax(1)
    recall = {k: round((place < k).float().mean().item(), 4) for k in (1, 2, 4, 8, 12, 16)}
    print(f"centroids: the right cluster is among the top {recall}", flush=True)


def report(decoder, drafter, encoder, args, dtype):
    begin = time.time()
    records = [json.loads(line) for line in (chats.MODEL / "skills.jsonl").read_text().splitlines()][::args.eval_every]
    _, _, prompts, answers, failures = generate.evaluate(decoder, encoder, records, dtype, max_new=args.max_new)
    random.Random(1).shuffle(failures)
    (pathlib.Path(args.out) / "failures.json").write_text(json.dumps(failures, indent=1))
    for skill, question, expected, text in failures[:25]:
        print(f"  wrong [{skill}] {question!r} expected {expected!r} got {text[:160]!r}")
    print(f"  evaluated in {time.time() - begin:.1f} s", flush=True)
    for lines in (int(n) for n in args.finding.split(",")):
        share, tokens = generate.finding(decoder, encoder, lines, 12, dtype)
        print(f"  one line of {lines} ({tokens} tokens) found: {share:.0%}", flush=True)
    if drafter is not None:
        quiet = [i for i, r in enumerate(records) if not r.get("thinking")]
        for offset, name in ((1, "L-1"), (0, "L-2")):
            a, d, by = generate.acceptance(decoder, drafter, [prompts[i] for i in quiet], [answers[i] for i in quiet], dtype, offset=offset)
            print(f"  acceptance, position {name}: {a}/{d} = {a / max(1, d):.1%}, by place {' '.join(f'{x:.1%}' for x in by)}", flush=True)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--out", required=True)
    ap.add_argument("--minutes", type=float, default=7.0, help="of target training, compilation included")
    ap.add_argument("--drafter-minutes", type=float, default=1.5)
    ap.add_argument("--resume", help="folder with pebble and pebble-assistant to go on from")
    ap.add_argument("--resume-rate", type=float, default=0.5, help="share of the peak rate when resuming")
    ap.add_argument("--fresh-drafter", action="store_true", help="train the assistant from nothing even when resuming")
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--rows", type=int, default=32)
    ap.add_argument("--length", type=int, default=2048)
    ap.add_argument("--long-share", type=float, default=0.12)
    ap.add_argument("--workers", type=int, default=14)
    ap.add_argument("--max-steps", type=int, default=10 ** 9)
    ap.add_argument("--max-new", type=int, default=320)
    ap.add_argument("--eval-every", type=int, default=1, help="evaluate every n-th item only")
    ap.add_argument("--finding", default="75,150,300,600,1200", help="numbers of lines to search through")
    ap.add_argument("--scratch", default="/tmp/pebble-rows")
    args = ap.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    args.compiled, dtype = device == "cuda", torch.bfloat16
    torch.set_float32_matmul_precision("high")
    torch._dynamo.config.recompile_limit = 64
    torch.manual_seed(args.seed)
    out = pathlib.Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    seconds = (args.minutes + args.drafter_minutes) * 60
    workers = data.start_workers(args.scratch, args.seed, seconds + 30, max(1, args.workers - 2), 2 if args.workers > 2 else 1, args.length,
                                 args.rows * 2)
    feeds = Feed(args.scratch, device), Feed(args.scratch, device, "long")
    encoder = data.Encoder()
    bos = encoder.tokenizer.token_to_id("<bos>")
    config = m.Config(vocab=encoder.tokenizer.get_vocab_size())
    decoder = m.Decoder(config, args.seed, args.compiled).to(device)
    drafter = m.Drafter(m.drafter_config(config), args.seed + 1, args.compiled).to(device)
    print(f"{sum(p.numel() for p in decoder.parameters()):,} + {sum(p.numel() for p in drafter.parameters()):,} parameters", flush=True)
    if args.resume:
        checkpoint.load(decoder, pathlib.Path(args.resume) / "pebble")
        if not args.fresh_drafter:
            checkpoint.load(drafter, pathlib.Path(args.resume) / "pebble-assistant")
            del drafter.centroids, drafter.token_ordering
    if args.minutes > 0:
        train_target(decoder, feeds, args, bos, dtype, args.minutes * 60)
        checkpoint.write(decoder, out / "pebble", encoder.tokenizer.token_to_id)
    decoder.requires_grad_(False)
    for p in decoder.p.values():  # what follows works on the weights as stored
        p.data = p.data.to(torch.bfloat16).float()
    if args.drafter_minutes > 0:
        train_drafter(decoder, drafter, feeds, args, bos, dtype, args.drafter_minutes * 60)
        for p in drafter.p.values():
            p.data = p.data.to(torch.bfloat16).float()
        add_centroids(decoder, drafter, feeds[0].next(8), bos, dtype)
        checkpoint.write(drafter, out / "pebble-assistant", encoder.tokenizer.token_to_id)
    for p in workers:
        p.terminate()
    decoder.block, decoder.inputs, decoder.norm_fn = m.block, m.inputs, m.rms  # eager: shapes vary from here on
    drafter.block, drafter.norm_fn = m.block, m.rms
    with torch.no_grad():
        report(decoder, drafter if args.drafter_minutes > 0 else None, encoder, args, dtype)


if __name__ == "__main__":
    main()
