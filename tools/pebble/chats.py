"""Whole chats from single items: training rows and the held-out file.

`train_chat` draws an endless stream from a seed and never emits an item whose key is held out (item.py);
`held_out` writes the items the evaluation asks. Everything is rendered with the chat template itself.
"""
import functools
import json
import pathlib
import random

import skills_number
import skills_text
import skills_tools
import words as w

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = ROOT / "models" / "pebble"

PLAIN = skills_number.SKILLS + skills_text.SKILLS
TOOLS = skills_tools.SKILLS
SOLO = [(skills_text.system_fact, 1)]  # only at the head of a chat
HARD = {"sum, worked out", "difference, worked out", "product, worked out"}  # worth asking with thinking on
SYSTEMS = ["You are a helpful assistant.", "You are terse.", "You are Pebble.", "Answer briefly.", "Be kind.", "You are a friendly assistant.",
           "You help people with small tasks.", "Be short and precise.", "You are a helpful AI assistant.", "Answer in English."]


def pick(rng, table, skip=()):
    while True:
        make = rng.choices([f for f, _ in table], [n for _, n in table])[0]
        item = make(rng)
        if item.key not in skip:
            return item


def train_item(rng, table):
    """An item of the training side of the split; small talk has no held-out side."""
    while True:
        item = pick(rng, table)
        if item.skill == "small talk" or not item.held_out():
            return item


def roughen(rng, text):
    """How people type: no final stop, lower case, a please."""
    r = rng.random()
    if r < 0.06 and text[-1] in ".?" and "\n" not in text:
        return text[:-1]
    if r < 0.12 and text[0].isupper() and text[1:2].islower():
        return text[0].lower() + text[1:]
    if r < 0.15 and text[0].isupper() and text[1:2].islower():
        return rng.choice(["Please tell me: ", "Hi! ", "Question: ", "Now: ", "And "]) + text
    return text


def ask(item, question=None):
    return item.before + ([{"role": "user", "content": question or item.question}] if item.question else [])


def reply(item, thinking):
    message = {"role": "assistant", "content": item.answer if thinking or item.plain == "" else item.plain}
    if item.calls:
        message["tool_calls"] = skills_tools.number_calls(item.calls)
    if thinking:
        message["reasoning"] = item.thought
    return message


def train_chat(rng):
    """(messages, tools, thinking) of one chat that ends in an assistant message."""
    messages, tools = [], []
    if rng.random() < 0.15:
        messages.append({"role": "system", "content": rng.choice(SYSTEMS)})
    thinking = rng.random() < 0.22
    if rng.random() < 0.03:
        return finish(rng, [], train_item(rng, SOLO), [], thinking)
    kind = rng.random()
    if kind < 0.24:
        item = train_item(rng, TOOLS)
        tools = item.tools
        if rng.random() < 0.2:  # something else first
            first = train_item(rng, PLAIN)
            messages += ask(first) + [reply(first, False)]
        if item.before and rng.random() < 0.25:  # something else after the result
            messages += item.before + [reply(item, False)]
            item = train_item(rng, PLAIN)
        return finish(rng, messages, item, tools, thinking)
    if kind < 0.30:  # tools there, none needed
        tools = [train_item(rng, TOOLS).tools[0]]
        table = skills_text.SKILLS
        return finish(rng, messages, train_item(rng, table), tools, thinking)
    turns = rng.choice([0, 0, 1, 2, 3, 5, 7]) if not thinking else rng.choice([0, 0, 0, 1, 2])
    remembered = train_item(rng, [(skills_text.memory, 1)]) if turns and rng.random() < 0.15 else None
    if remembered:
        messages += remembered.before
    for _ in range(turns):
        item = train_item(rng, PLAIN)
        if remembered and item.skill == "memory":
            continue
        messages += ask(item, roughen(rng, item.question)) + [reply(item, False)]
    if remembered:
        return messages + [{"role": "user", "content": remembered.question}, reply(remembered, thinking)], tools, thinking
    item = train_item(rng, PLAIN)
    if thinking and rng.random() < 0.4:
        while item.skill not in HARD:
            item = train_item(rng, skills_number.SKILLS)
    return finish(rng, messages, item, tools, thinking)


def finish(rng, messages, item, tools, thinking):
    question = roughen(rng, item.question) if item.question else None
    return messages + ask(item, question) + [reply(item, thinking)], tools, thinking


def long_chat(rng, length):
    """A chat of up to about `length` tokens: a long list to search, or very many turns."""
    r = rng.random()
    if r < 0.15:  # much text, then a question or a thing said before it
        text = skills_text.filler(rng, rng.randint(length // 20, length * 2 // 5))
        item = train_item(rng, PLAIN)
        if item.before or not item.question:
            item = train_item(rng, [(skills_text.capital, 1)])
        if rng.random() < 0.5:
            return finish(rng, [{"role": "user", "content": text}, {"role": "assistant", "content": "I have read the text."}], item, [], False)
        return [{"role": "user", "content": text + "\n" + item.question}, reply(item, False)], [], False
    if r < 0.6:
        while True:
            item = skills_text.needle(rng, min(40, length // 40), length // 13 - 4)
            if not item.held_out():
                return finish(rng, [], item, [], rng.random() < 0.1)
    messages = []
    remembered = train_item(rng, [(skills_text.memory, 1)])
    messages += remembered.before
    for _ in range(rng.randint(8, length // 30)):
        item = train_item(rng, PLAIN)
        if item.skill != "memory":
            messages += ask(item, roughen(rng, item.question)) + [reply(item, False)]
    return messages + [{"role": "user", "content": remembered.question}, reply(remembered, False)], [], False


@functools.cache
def template():
    import jinja2.sandbox  # the split is checked without it

    env = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    env.globals["raise_exception"] = lambda text: (_ for _ in ()).throw(ValueError(text))
    return env.from_string((MODEL / "chat_template.jinja").read_text())


def render(messages, tools, thinking, prompt=False):
    return template().render(messages=messages, tools=tools or None, enable_thinking=thinking, bos_token="<bos>", add_generation_prompt=prompt)


def as_record(item, thinking):
    """One line of the evaluation file; arguments become JSON text, as in the OpenAI form."""
    messages = json.loads(json.dumps(ask(item)))
    for m in messages:
        for c in m.get("tool_calls", []):
            c["function"]["arguments"] = json.dumps(c["function"]["arguments"])
    record = {"skill": item.skill, "messages": messages, "expected": item.expected, "match": item.match}
    if not thinking and item.plain != "":
        record["expected"], record["match"] = item.expected_plain, "contains"
    if item.tools:
        record["tools"] = item.tools
    if thinking:
        record["thinking"] = True
    return record


def held_out(seed=20, per_skill=None):
    """About thirty items of each skill from the held-out side, the worked sums both with and without thinking."""
    rng, records = random.Random(seed), []
    weights = {"sum of two digits": 80, "difference of two digits": 50, "calling a tool": 80, "using a result": 60, "JSON objects": 50,
               "sum, worked out": 50, "difference, worked out": 40, "product, worked out": 40, "memory": 50, "capitals": 40, "copying": 40}
    for make, _ in PLAIN + SOLO + TOOLS:
        if make in (skills_text.talk, skills_tools.two_calls):
            continue
        seen, tries, want = set(), 0, 1
        while len(seen) < want and tries < 20000:
            tries += 1
            item = make(rng)
            want = per_skill or weights.get(item.skill, 32)
            if not item.held_out() or item.key in seen:
                continue
            seen.add(item.key)
            thinking = len(seen) % 2 == 0 if item.skill in HARD or item.skill == "reversing" else len(seen) % 8 == 0
            records.append(as_record(item, thinking))
    return records


def to_objects(messages):
    """The evaluation file's messages as the template wants them: arguments as objects."""
    messages = json.loads(json.dumps(messages))
    for m in messages:
        for c in m.get("tool_calls", []):
            c["function"]["arguments"] = json.loads(c["function"]["arguments"])
    return messages


def record_prompt(record):
    return render(to_objects(record["messages"]), record.get("tools"), record.get("thinking", False), prompt=True)


def main():
    path = MODEL / "skills.jsonl"
    records = held_out()
    path.write_text("".join(json.dumps(r, separators=(",", ":")) + "\n" for r in records))
    print(f"{path}: {len(records)} items, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
