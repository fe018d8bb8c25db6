"""Gemma 4 of the edge family for training: the published tensors, stacked by kind.

`Decoder` is the target; `Drafter` is its assistant. Both hold float32 parameters, each stack `[layers of a kind, out, in]`
so that the optimiser works on whole stacks, and compute in the dtype asked for. One KV head. `block` is compiled once per
layer kind, not per layer.

Shapes: B rows, S positions, H hidden, n query heads, d head size, W window, L layers.
"""
import dataclasses
import math

import torch
import torch.nn.functional as F

EPS = 1e-6
SOFT_CAP = 30.0


@dataclasses.dataclass
class Config:
    vocab: int = 1024
    hidden: int = 256
    types: str = "SSSSSFSSSSSF"
    shared: int = 4  # last layers without K and V of their own
    heads: int = 2
    head_dim: int = 256  # sliding; full layers have twice
    mlp: int = 384
    ple: int = 64
    window: int = 256
    backbone: int = 0  # the drafter's target width
    centroids: int = 32
    centroid_top: int = 16

    @property
    def layers(self):
        return len(self.types)

    def kind_index(self, i):
        """Index of layer i among the layers of its kind."""
        return self.types[:i].count(self.types[i])

    def donor(self, kind):
        own = self.types[:self.layers - self.shared]
        return own.rindex(kind)

    def dim(self, kind):
        return self.head_dim * (1 if kind == "S" else 2)


def drafter_config(target, hidden=128, mlp=256):
    return Config(vocab=target.vocab, hidden=hidden, types="SSSF", shared=4, heads=target.heads, head_dim=target.head_dim, mlp=mlp,
                  ple=0, window=target.window, backbone=target.hidden)


def rms(x, weight=None):
    y = x.float()
    y = y * torch.rsqrt(y.square().mean(-1, keepdim=True) + EPS)
    return (y if weight is None else y * weight.float()).to(x.dtype)


def rope_tables(positions, config, kind, dtype):
    """cos and sin [..., d]; on full layers only the first quarter of the pairs turns."""
    d = config.dim(kind)
    theta, turning = (10000.0, d // 2) if kind == "S" else (1000000.0, d // 8)
    inv = torch.zeros(d // 2, device=positions.device)
    inv[:turning] = theta ** (-torch.arange(turning, device=positions.device).float() * 2 / d)
    angle = positions.float()[..., None] * inv
    angle = torch.cat([angle, angle], -1)
    return angle.cos().to(dtype), angle.sin().to(dtype)


def rotate(x, cos, sin):
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat([-b, a], -1) * sin


def sliding_attention(q, k, v, docs, window):
    """q [B,S,n,d], k and v [B,S,d], docs [B,S]: each query sees the last `window` keys of its own chat."""
    B, S, n, d = q.shape
    C, m = window, S // window

    def two_chunks(x, fill):
        x = x.view(B, m, C, *x.shape[2:])
        before = torch.cat([torch.full_like(x[:, :1], fill), x[:, :-1]], 1)
        return torch.cat([before, x], 2)

    keys, values, key_docs = two_chunks(k, 0), two_chunks(v, 0), two_chunks(docs, -1)
    scores = torch.bmm(q.reshape(B * m, C * n, d), keys.view(B * m, 2 * C, d).transpose(1, 2)).view(B, m, C, n, 2 * C)
    i = torch.arange(C, device=q.device)[:, None]
    j = torch.arange(2 * C, device=q.device)[None, :]
    near = (j <= i + C) & (j > i)
    seen = near[None, None] & (docs.view(B, m, C)[..., None] == key_docs[:, :, None, :])
    p = torch.softmax(scores.float().masked_fill(~seen[:, :, :, None, :], -1e9), -1).to(q.dtype)
    return torch.bmm(p.view(B * m, C * n, 2 * C), values.view(B * m, 2 * C, d)).view(B, S, n * d)


def full_attention(q, k, v, docs):
    B, S, n, d = q.shape
    scores = torch.bmm(q.reshape(B, S * n, d), k.transpose(1, 2)).view(B, S, n, S)
    i = torch.arange(S, device=q.device)
    seen = (i[None, :] <= i[:, None])[None] & (docs[:, :, None] == docs[:, None, :])
    p = torch.softmax(scores.float().masked_fill(~seen[:, :, None, :], -1e9), -1).to(q.dtype)
    return torch.bmm(p.view(B, S * n, S), v).view(B, S, n * d)


def project_kv(h, w, cos, sin):
    k = rotate(rms(F.linear(h, w["k"]), w["k_norm"]), cos, sin)
    return k, rms(F.linear(h, w["v"]))


def finish_block(x, attended, w, ple):
    """Everything after attention: output projection, MLP, per-layer embedding, layer scalar."""
    x = x + rms(F.linear(attended, w["o"]), w["post_attention"])
    h = rms(x, w["pre_feedforward"])
    h = F.linear(F.gelu(F.linear(h, w["gate"]), approximate="tanh") * F.linear(h, w["up"]), w["down"])
    x = x + rms(h, w["post_feedforward"])
    if ple is not None:
        g = F.gelu(F.linear(x, w["ple_gate"]), approximate="tanh") * ple
        x = x + rms(F.linear(g, w["ple_proj"]), w["post_ple"])
    return x * w["scalar"]


def block(x, w, kv, ple, docs, cos, sin, heads, window):
    """One layer over whole rows. window 0 means a full layer; kv is None where the layer owns its K and V."""
    h = rms(x, w["input"])
    q = F.linear(h, w["q"])
    q = rms(q.view(*q.shape[:-1], heads, -1), w["q_norm"])
    q = rotate(q, cos[:, :, None], sin[:, :, None])
    k, v = project_kv(h, w, cos, sin) if kv is None else kv
    a = sliding_attention(q, k, v, docs, window) if window else full_attention(q, k, v, docs)
    return finish_block(x, a, w, ple), k, v


def embed_scale(hidden):
    """sqrt(H), rounded to bf16 as inference has it."""
    return torch.tensor(math.sqrt(hidden)).bfloat16().item()


def inputs(ids, embed, table, projection, norm, layers, width, scale):
    """Scaled embedding and the per-layer inputs [B,S,L,P]."""
    hidden = embed.shape[1]
    x = embed[ids] * scale
    token = table[ids] * math.sqrt(width)
    context = F.linear(x, projection) * hidden ** -0.5
    context = rms(context.view(*ids.shape, layers, width), norm)
    return x, (context + token.view(*ids.shape, layers, width)) * 2 ** -0.5


def cap(logits):
    return SOFT_CAP * torch.tanh(logits / SOFT_CAP)


def target_loss(y, embed, labels, weights):
    logits = cap(F.linear(y, embed).float())
    losses = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
    right = (logits.argmax(-1) == labels) & (weights == 1)
    return (losses * weights.flatten()).sum() / weights.sum(), right.sum() / (weights == 1).sum()


class Stacks(torch.nn.Module):
    """The layers' parameters, stacked; `layer_weights` unstacks them in the working dtype."""

    def __init__(self, config, seed):
        super().__init__()
        self.config = config
        c, g = config, torch.Generator().manual_seed(seed)
        self.p = torch.nn.ParameterDict()

        def matrix(name, n, out, inn):
            self.p[name] = torch.nn.Parameter(torch.randn(n, out, inn, generator=g) * inn ** -0.5)

        def vector(name, *shape, value=1.0):
            self.p[name] = torch.nn.Parameter(torch.full(shape, value))

        for kind in "SF":
            n, d = c.types.count(kind), c.dim(kind)
            own = c.types[:c.layers - c.shared].count(kind)
            matrix(f"q_{kind}", n, c.heads * d, c.hidden)
            matrix(f"o_{kind}", n, c.hidden, c.heads * d)
            vector(f"q_norm_{kind}", n, d, value=0.35)
            if own:
                matrix(f"k_{kind}", own, d, c.hidden)
                matrix(f"v_{kind}", own, d, c.hidden)
                vector(f"k_norm_{kind}", own, d, value=0.35)
        matrix("gate", c.layers, c.mlp, c.hidden)
        matrix("up", c.layers, c.mlp, c.hidden)
        matrix("down", c.layers, c.hidden, c.mlp)
        if c.ple:
            matrix("ple_gate", c.layers, c.ple, c.hidden)
            matrix("ple_proj", c.layers, c.hidden, c.ple)
            vector("post_ple", c.layers, c.hidden, value=0.3)
            matrix("ple_projection", c.layers, c.ple, c.hidden)
            vector("ple_norm", c.ple)
            self.p["ple_table"] = torch.nn.Parameter(torch.randn(c.vocab, c.layers * c.ple, generator=g) * c.ple ** -0.5)
        for name, value in (("input", 1.0), ("post_attention", 0.4), ("pre_feedforward", 1.0), ("post_feedforward", 0.4)):
            vector(name, c.layers, c.hidden, value=value)
        vector("scalar", c.layers, 1)
        vector("norm", c.hidden)
        self.p["embed"] = torch.nn.Parameter(torch.randn(c.vocab, c.hidden, generator=g) * c.hidden ** -0.5)
        if c.backbone:
            self.p["pre"] = torch.nn.Parameter(torch.randn(c.hidden, 2 * c.backbone, generator=g) * (2 * c.backbone) ** -0.5)
            self.p["post"] = torch.nn.Parameter(torch.randn(c.backbone, c.hidden, generator=g) * c.hidden ** -0.5)

    def cast(self, dtype):
        return {k: v.to(dtype) for k, v in self.p.items()}

    def layer_weights(self, w):
        """Per layer: {short name: tensor}."""
        c = self.config
        parts = {k: v.unbind(0) for k, v in w.items() if v.dim() > 1 and k not in ("embed", "ple_table", "pre", "post", "ple_projection")}
        out = []
        for i, kind in enumerate(c.types):
            j = c.kind_index(i)
            own = i < c.layers - c.shared
            layer = {}
            for name, tensors in parts.items():
                if name[-2:] in ("_S", "_F"):
                    if name[-1] == kind and (own or name[0] in "qo"):
                        layer[name[:-2]] = tensors[j]
                else:
                    layer[name] = tensors[i]
            out.append(layer)
        return out


class Decoder(Stacks):
    """The target. `rows` runs packed rows and returns the post-norm hidden states and the donors' K and V."""

    def __init__(self, config, seed=1, compiled=False):
        super().__init__(config, seed)
        wrap = (lambda f: torch.compile(f, dynamic=False, fullgraph=True)) if compiled else (lambda f: f)
        self.block, self.inputs, self.loss_fn, self.norm_fn = wrap(block), wrap(inputs), wrap(target_loss), wrap(rms)

    def rows(self, ids, docs, dtype, w=None):
        c = self.config
        w = w or self.cast(dtype)
        x, ple = self.inputs(ids, w["embed"], w["ple_table"], w["ple_projection"].flatten(0, 1), w["ple_norm"], c.layers, c.ple, embed_scale(c.hidden))
        ple = ple.unbind(2)
        positions = torch.arange(ids.shape[1], device=ids.device)[None]
        tables = {k: rope_tables(positions, c, k, dtype) for k in "SF"}
        kv = {}
        for i, layer in enumerate(self.layer_weights(w)):
            kind = c.types[i]
            own = i < c.layers - c.shared
            x, k, v = self.block(x, layer, None if own else kv[kind], ple[i], docs, *tables[kind], c.heads, c.window if kind == "S" else 0)
            if own:
                kv[kind] = (k, v)
        return self.norm_fn(x, w["norm"]), kv, w

    def loss(self, ids, docs, labels, weights, dtype):
        y, _, w = self.rows(ids, docs, dtype)
        return self.loss_fn(y, w["embed"], labels, weights)


class Drafter(Stacks):
    """The assistant: `step` runs one drafting pass from every position of the rows at once."""

    def __init__(self, config, seed=2, compiled=False):
        super().__init__(config, seed)
        wrap = (lambda f: torch.compile(f, dynamic=False, fullgraph=True)) if compiled else (lambda f: f)
        self.block, self.norm_fn = wrap(block), wrap(rms)

    def step(self, e, h, kv, docs, positions, w):
        """e: scaled target embedding of the newest token, h: state; a burst from position p sees the keys up to p.

        Returns y (before the head) and the next state.
        """
        c = self.config
        tables = {k: rope_tables(positions, c, k, e.dtype) for k in "SF"}
        z = F.linear(torch.cat([e, h], -1), w["pre"])
        for i, layer in enumerate(self.layer_weights(w)):
            kind = c.types[i]
            z, _, _ = self.block(z, layer, kv[kind], None, docs, *tables[kind], c.heads, c.window if kind == "S" else 0)
        y = self.norm_fn(z, w["norm"])
        return y, F.linear(y, w["post"])


def docs_of(ids, bos):
    """Chat number of every position of packed rows."""
    return (ids == bos).cumsum(-1)
