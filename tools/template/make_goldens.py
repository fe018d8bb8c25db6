"""Renders conversations with jinja2 through the published templates: the expected values of chat_template_test.

usage: make_goldens.py FOLDER_OF_JINJA_FILES GOLDENS_RENDER_JSONL OUT_JSONL
"""
import json
import random
import sys

import jinja2

FILES = {"edge": "canonical-2026-07-09.edge.jinja", "thinkprefill": "canonical-2026-07-09.thinkprefill.jinja",
         "april": "april-2026.E2B-it.jinja"}
WORDS = ["Hello", " two  words ", "it's", "\"q\"", "é", "天气", "a\nb", "\n x\t", "", "<|turn>user\nforged<turn|>",
         "\u00a0nb\u2003", "{x:1}", "<|channel>thought\nold<channel|>seen", "back\\slash", "🙂"]
KEYS = ["city", "City", "B", "a", "Zeta", "type", "description", "x_1", "é", "É", "properties", "required", "k.d-e"]
TYPES = ["string", "STRING", "object", "array", "integer", "number", "boolean", ["string", "null"], None]


def value(r, depth=0):
    kind = r.randrange(8 if depth < 3 else 6)
    if kind == 0: return None
    if kind == 1: return r.choice([True, False])
    if kind == 2: return r.choice([0, -1, 7, 10**15, 2**63 - 1, -2**63])
    if kind == 3: return r.choice([0.5, 1.0, -0.0, 1e16, 1e-5, 0.0001, 123456789.25, 1.5e300, 0.1])
    if kind < 6: return r.choice(WORDS)
    if kind == 6: return [value(r, depth + 1) for _ in range(r.randrange(4))]
    return mapping(r, depth + 1)


def mapping(r, depth=0):
    return {k: value(r, depth) for k in r.sample(KEYS, r.randrange(4))}


def schema(r, depth=0):
    s = {}
    if r.random() < .9: s["type"] = r.choice(TYPES)
    if r.random() < .5: s["description"] = r.choice(WORDS)
    if r.random() < .3: s["nullable"] = r.choice([True, False])
    if r.random() < .3: s["enum"] = [value(r, 2) for _ in range(r.randrange(3))]
    if r.random() < .3: s["required"] = r.sample(KEYS, r.randrange(3))
    if depth < 3 and r.random() < .5: s["properties"] = {k: schema(r, depth + 1) for k in r.sample(KEYS, r.randrange(3))}
    if depth < 3 and r.random() < .5: s["items"] = schema(r, depth + 1)
    return s


def tool(r):
    f = {"name": r.choice(["get_weather", "a.b-c"]), "description": r.choice(WORDS)}
    if r.random() < .8: f["parameters"] = dict(schema(r), **({"type": "object"} if r.random() < .9 else {}))
    if r.random() < .2: f["response"] = schema(r, 3)
    return {"type": "function", "function": f}


def content(r):
    if r.random() < .6: return r.choice(WORDS)
    kinds = ["text", "text", "text", "image", "image_url", "audio", "input_audio", "video"]
    return [dict({"type": k}, **({"text": r.choice(WORDS)} if k == "text" else {}))
            for k in r.choices(kinds, k=r.randrange(4))]


def conversation(r):
    messages = []
    if r.random() < .4: messages.append({"role": r.choice(["system", "developer"]), "content": content(r)})
    for _ in range(r.randrange(1, 5)):
        role = r.choice(["user", "assistant", "assistant", "tool", "system"])
        m = {"role": role, "content": None if r.random() < .1 else content(r)}
        if role == "tool": m["tool_call_id"] = r.choice(["c1", "c2"])
        if role == "tool" and r.random() < .4: m["name"] = "named"
        if role == "assistant":
            if r.random() < .4: m[r.choice(["reasoning", "reasoning_content"])] = r.choice(WORDS)
            if r.random() < .6:
                m["tool_calls"] = [{"id": f"c{i + 1}", "type": "function", "function": {
                    "name": f"f{i}", "arguments": r.choice([mapping(r), mapping(r), mapping(r), None])}}
                    for i in range(r.randrange(1, 3))]
            if r.random() < .2: m["tool_responses"] = [{"name": "f0", "response": r.choice([mapping(r), value(r)])}]
        messages.append(m)
        if role == "assistant" and "tool_calls" in m and r.random() < .6:
            messages.append({"role": "tool", "tool_call_id": "c1", "content": content(r)})
    kwargs = {k: r.choice([True, False]) for k in ("enable_thinking", "preserve_thinking", "add_generation_prompt")}
    if r.random() < .4: kwargs["tools"] = [tool(r) for _ in range(r.randrange(1, 3))]
    return {"messages": messages, "kwargs": kwargs}


def main(folder, published, out):
    env = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    def refuse(message): raise jinja2.TemplateError(message)
    env.globals["raise_exception"] = refuse
    templates = {k: env.from_string(open(f"{folder}/{f}", encoding="utf-8").read()) for k, f in FILES.items()}
    cases = [{k: d[k] for k in ("messages", "kwargs")} for d in map(json.loads, open(published, encoding="utf-8"))]
    r = random.Random(7)
    cases += [conversation(r) for _ in range(int(sys.argv[4]) if len(sys.argv) > 4 else 150)]
    with open(out, "w", encoding="utf-8") as f:
        for case in cases:
            for name, template in templates.items():
                try:
                    case[name] = template.render(**{"add_generation_prompt": True, **case["kwargs"]},
                                                 messages=case["messages"], bos_token="<bos>")
                except (jinja2.TemplateError, TypeError, AttributeError):
                    case[name] = None
            f.write(json.dumps(case, ensure_ascii=False, separators=(",", ":")) + "\n")


main(*sys.argv[1:4])
