"""Greedy decoding with a KV cache, answer matching, and the acceptance of drafts."""
import collections
import json
import random

import torch
import torch.nn.functional as F

import chats
import model as m
import skills_text


class Engine:
    """Batched decoding with the stored weights, all sequences in one cache; eager, in the dtype given."""

    def __init__(self, decoder, batch, room, dtype):
        self.c, self.dtype = decoder.config, dtype
        self.w = {k: v.detach().to(torch.bfloat16).to(dtype) for k, v in decoder.p.items()}
        self.layers = decoder.layer_weights(self.w)
        self.device = self.w["embed"].device
        own = self.c.layers - self.c.shared
        self.cache = [torch.zeros(2, batch, room, self.c.dim(self.c.types[i]), device=self.device, dtype=dtype) for i in range(own)]
        self.room = room

    def attend(self, q, k, v, positions, window):
        scores = torch.einsum("btnd,bsd->btns", q, k).float()
        s = torch.arange(k.shape[1], device=q.device)
        seen = s <= positions[..., None]
        if window:
            seen &= s > positions[..., None] - window
        p = torch.softmax(scores.masked_fill(~seen[:, :, None], -1e9), -1).to(q.dtype)
        return torch.einsum("btns,bsd->btnd", p, v).flatten(2)

    @torch.no_grad()
    def forward(self, ids, start, used):
        """ids [B,T] at positions start [B] + 0..T-1; keys up to `used` are looked at. Returns y [B,T,H]."""
        c, w = self.c, self.w
        positions = start[:, None] + torch.arange(ids.shape[1], device=self.device)
        x, ple = m.inputs(ids, w["embed"], w["ple_table"], w["ple_projection"].flatten(0, 1), w["ple_norm"], c.layers, c.ple, m.embed_scale(c.hidden))
        tables = {k: m.rope_tables(positions, c, k, self.dtype) for k in "SF"}
        rows = torch.arange(ids.shape[0], device=self.device)[:, None]
        for i, layer in enumerate(self.layers):
            kind = c.types[i]
            cos, sin = tables[kind]
            h = m.rms(x, layer["input"])
            q = F.linear(h, layer["q"])
            q = m.rotate(m.rms(q.view(*q.shape[:-1], c.heads, -1), layer["q_norm"]), cos[:, :, None], sin[:, :, None])
            if i < c.layers - c.shared:
                source = self.cache[i]
                k, v = m.project_kv(h, layer, cos, sin)
                source[0][rows, positions], source[1][rows, positions] = k, v
            else:
                source = self.cache[c.donor(kind)]
            a = self.attend(q, source[0][:, :used], source[1][:, :used], positions, c.window if kind == "S" else 0)
            x = m.finish_block(x, a, layer, ple[:, :, i])
        return m.rms(x, w["norm"])

    def pick(self, y):
        return F.linear(y, self.w["embed"]).argmax(-1)


@torch.no_grad()
def greedy(decoder, prompts, stop, max_new, dtype, batch=400):
    """Token lists of the answers, stop token included."""
    device = decoder.p["embed"].device
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    out = [None] * len(prompts)
    for at in range(0, len(order), batch):
        part = order[at:at + batch]
        longest = max(len(prompts[i]) for i in part)
        ids = torch.zeros(len(part), longest, dtype=torch.long)
        for r, i in enumerate(part):
            ids[r, :len(prompts[i])] = torch.tensor(prompts[i])
        lengths = torch.tensor([len(prompts[i]) for i in part], device=device)
        engine = Engine(decoder, len(part), longest + max_new, dtype)
        y = engine.forward(ids.to(device), torch.zeros(len(part), dtype=torch.long, device=device), longest)
        token = engine.pick(y[torch.arange(len(part), device=device), lengths - 1])
        answers, done = [token], torch.isin(token, stop)
        for n in range(max_new - 1):
            if n % 8 == 7 and bool(done.all()):
                break
            token = engine.pick(engine.forward(token[:, None], lengths + n, longest + n + 1)[:, 0])
            done |= torch.isin(token, stop)
            answers.append(token)
        grid = torch.stack(answers, 1).tolist()
        stops = set(stop.tolist())
        for r, i in enumerate(part):
            end = next((k for k, t in enumerate(grid[r]) if t in stops), len(grid[r]) - 1)
            out[i] = grid[r][:end + 1]
    return out


def parse_call(text):
    """(name, arguments) of the first call in the model's own form, or None."""
    if "<|tool_call>call:" not in text:
        return None
    body = text.split("<|tool_call>call:", 1)[1].split("<tool_call|>", 1)[0]
    name, _, rest = body.partition("{")
    rest, arguments = rest[:-1], {}
    while rest:
        key, colon, rest = rest.partition(":")
        if rest.startswith('<|"|>'):
            value, _, rest = rest[5:].partition('<|"|>')
            arguments[key] = value
        else:
            end = rest.index("]") + 1 if rest.startswith("[") and "]" in rest else (rest + ",").index(",")
            value, rest = rest[:end].replace('<|"|>', '"'), rest[end:]
            try:
                arguments[key] = json.loads(value)
            except ValueError:
                arguments[key] = value
        rest = rest[1:] if rest.startswith(",") else rest
        if not colon:
            break
    return name, arguments


def matches(record, text):
    """Whether the decoded answer (specials kept, stop token cut) is right."""
    answer = text.split("<channel|>")[-1].strip()
    expected = record["expected"]
    if record["match"] == "exact":
        return answer == expected
    if record["match"] == "contains":
        return expected in answer
    if record["match"] == "json":
        try:
            return json.loads(answer) == json.loads(expected)
        except ValueError:
            return False
    want = json.loads(expected)
    return parse_call(answer) == (want["name"], want["arguments"])


def evaluate(decoder, encoder, records, dtype, max_new=320, verbose=True):
    """Runs the skills file; returns (share right, per skill, prompts, answers, failures)."""
    stop = torch.tensor([encoder.tokenizer.token_to_id(t) for t in ("<eos>", "<turn|>", "<|tool_response>")], device=decoder.p["embed"].device)
    prompts = [encoder.encode(chats.record_prompt(r)) for r in records]
    answers = greedy(decoder, prompts, stop, max_new, dtype)
    per_skill, failures = collections.defaultdict(lambda: [0, 0]), []
    for record, answer in zip(records, answers):
        text = encoder.tokenizer.decode(answer[:-1], skip_special_tokens=False)
        right = matches(record, text)
        skill = record["skill"] + (", thinking" if record.get("thinking") else "")
        per_skill[skill][0] += right
        per_skill[skill][1] += 1
        if not right:
            failures.append((skill, record["messages"][-1]["content"][-160:], record["expected"], text))
    total = sum(r for r, _ in per_skill.values()) / len(records)
    if verbose:
        for skill, (right, n) in sorted(per_skill.items()):
            print(f"  {right / n:6.1%} {right:4}/{n:<4} {skill}")
        print(f"  {total:6.1%} of {len(records)} overall", flush=True)
    return total, per_skill, prompts, answers, failures


@torch.no_grad()
def finding(decoder, encoder, lines, tries, dtype):
    """(share right, tokens): one code asked for among `lines`, the answer given token by token."""
    rng, right = random.Random(lines), 0
    for _ in range(tries):
        item = skills_text.needle(rng, lines, lines)
        prompt = encoder.encode(chats.render(chats.ask(item), None, False, True))
        whole = prompt + encoder.encode(item.answer)
        ids = torch.zeros(1, -(-len(whole) // decoder.config.window) * decoder.config.window, dtype=torch.long)
        ids[0, :len(whole)] = torch.tensor(whole)
        ids = ids.to(decoder.p["embed"].device)
        y, _, w = decoder.rows(ids, torch.zeros_like(ids), dtype)
        chosen = F.linear(y[0, len(prompt) - 1:len(whole) - 1], w["embed"]).argmax(-1).tolist()
        right += chosen == whole[len(prompt):]
    return right / tries, len(prompt)


def head(y, w, drafter):
    """Dense logits, or with -inf outside the chosen centroids' tokens."""
    logits = F.linear(y, w["embed"]).float()
    if not hasattr(drafter, "centroids"):
        return logits
    top = F.linear(y, drafter.centroids.to(y.dtype)).topk(drafter.config.centroid_top, -1).indices
    cluster = torch.empty_like(drafter.token_ordering)
    size = logits.shape[-1] // drafter.config.centroids
    cluster[drafter.token_ordering] = torch.arange(logits.shape[-1], device=y.device) // size
    chosen = torch.zeros(*y.shape[:-1], drafter.config.centroids, dtype=torch.bool, device=y.device).scatter_(-1, top, True)
    return logits.masked_fill(~chosen[..., cluster], float("-inf"))


@torch.no_grad()
def drafts(decoder, drafter, ids, k, offset, dtype):
    """[R,S,k]: the drafts of a burst from every position; offset 1 is position L-1, 0 is L-2."""
    bf16 = lambda p: {n: v.detach().to(torch.bfloat16).to(dtype) for n, v in p.items()}
    w, target = bf16(drafter.p), bf16(decoder.p)
    docs = torch.zeros_like(ids)
    h, kv, _ = decoder.rows(ids, docs, dtype, target)
    positions = torch.arange(ids.shape[1], device=ids.device)[None] + offset
    token, out = torch.cat([ids[:, 1:], ids[:, :1]], 1), []
    for _ in range(k):
        y, h = drafter.step(target["embed"][token] * m.embed_scale(decoder.config.hidden), h, kv, docs, positions, w)
        token = head(y, w, drafter).argmax(-1)
        out.append(token)
    return torch.stack(out, -1)


def acceptance(decoder, drafter, prompts, answers, dtype, k=3, offset=1, rows=32):
    """(accepted, drafted, by position) over greedy answers; every burst counts k drafts, also the last one."""
    W, device = decoder.config.window, decoder.p["embed"].device
    accepted, drafted, hits, bursts = 0, 0, [0] * k, 0
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]) + len(answers[i]))
    for at in range(0, len(order), rows):
        part = order[at:at + rows]
        longest = max(len(prompts[i]) + len(answers[i]) for i in part)
        ids = torch.zeros(len(part), -(-longest // W) * W, dtype=torch.long)
        for r, i in enumerate(part):
            ids[r, :len(prompts[i]) + len(answers[i])] = torch.tensor(prompts[i] + answers[i])
        guess = drafts(decoder, drafter, ids.to(device), k, offset, dtype).tolist()
        for r, i in enumerate(part):
            tokens, n = prompts[i] + answers[i], len(prompts[i])  # n: index of the newest token
            while n < len(tokens) - 1:
                good = 0
                while good < k and n + 1 + good < len(tokens) and guess[r][n - 1][good] == tokens[n + 1 + good]:
                    hits[good] += 1
                    good += 1
                accepted, drafted, bursts, n = accepted + good, drafted + k, bursts + 1, n + good + 1
    return accepted, drafted, [h / max(1, bursts) for h in hits]
