"""Tool skills: choosing a declared tool, filling its arguments, using its result."""
import json

from item import Item, join_and, number_calls
import words as w


def declare(name, description, properties, required=None):
    """properties: {name: (type, description or "")}"""
    props = {}
    for k, (kind, text) in properties.items():
        props[k] = {"type": kind}
        if text:
            props[k]["description"] = text
    return {"type": "function", "function": {"name": name, "description": description, "parameters": {
        "type": "object", "properties": props, "required": list(properties) if required is None else required}}}


def tool_name(rng, stem):
    """A name for a tool of the kind `stem`, so that names have to be read, not known."""
    verb = rng.choice(["get", "get", "get", "fetch", "lookup", "find", "query", "check", "current", "read", "get_current"])
    r = rng.random()
    if r < 0.62:
        name = f"{verb}_{stem}"
    elif r < 0.72:
        name = stem
    elif r < 0.8:
        name = f"{stem}_{rng.choice(['lookup', 'tool', 'info', 'api', 'service'])}"
    elif r < 0.86:
        name = verb.split("_")[0] + "".join(x.capitalize() for x in stem.split("_"))
    elif r < 0.9:
        name = f"{verb}_{stem}_{rng.choice(['by_name', 'v2', 'data', 'now', w.any_word(rng)])}"
    elif r < 0.95:
        name = f"{verb.split('_')[0]}-{stem.replace('_', '-')}"
    else:
        name = f"{stem}.{verb.split('_')[0]}"
    return name


# Each use returns (tool, question, arguments, result text, answer given the result).


def weather(rng):
    p = rng.choice(["city", "city", "location", "place", "town", "where", "name"])
    tool = declare(tool_name(rng, rng.choice(["weather", "weather", "weather", "forecast"])),
                   rng.choice(["Get the weather in a city.", "Get the current weather", "Current weather of a place.", "Weather", "Look up the weather.",
                               "Returns the weather for a city", "Get the current weather for a location.", "Get the current weather for a city"]),
                   {p: ("string", rng.choice(["", "City name", "The city", "The name of the city", "The city name", "City to look up"]))})
    unit = None
    if rng.random() < 0.3:
        tool["function"]["parameters"]["properties"]["unit"] = {"type": "string", "enum": ["celsius", "fahrenheit"]}
        unit = rng.choice([None, "celsius", "fahrenheit"])
    city = rng.choice(w.CITIES) if rng.random() < 0.8 else w.pseudo_word(rng, 2, 3).capitalize()
    q = rng.choice(["What is the weather in {}?", "How is the weather in {}?", "Tell me the weather in {}.", "What's the weather like in {}?",
                    "Weather in {}?", "Is it raining in {}?", "What is the weather in {} today?", "How warm is it in {}?",
                    "Please check the weather in {}.", "weather {}"]).format(city)
    if unit:
        q = f"What is the weather in {city} in {unit}?"
    sky, t = rng.choice(w.WEATHER), rng.randint(-9, 39)
    kind = rng.randrange(4)
    result = [f"{sky}, {t} degrees", json.dumps({"temperature": t, "condition": sky}), sky, f"{sky}, {t}C"][kind]
    answer = f"The weather in {city} is {sky}" + ("." if kind == 2 else f" with {t} degrees.")
    return tool, q, {p: city} | ({"unit": unit} if unit else {}), result, answer


def clock(rng):
    p = rng.choice(["city", "city", "location", "timezone", "place", "where"])
    tool = declare(rng.choice([tool_name(rng, "time"), tool_name(rng, "time"), "clock"]),
                   rng.choice(["Get the time in a city.", "Get the current time", "Current local time of a city."]),
                   {p: ("string", rng.choice(["", "City name", "The city"]))})
    city = rng.choice(w.CITIES)
    q = rng.choice(["What time is it in {}?", "Tell me the time in {}.", "What is the time in {}?", "Time in {}?"]).format(city)
    t = f"{rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}"
    return tool, q, {p: city}, rng.choice([t, json.dumps({"time": t})]), f"It is {t} in {city}."


def calculator(rng):
    name, sign, word = rng.choice([("add", "+", "Add"), ("add", "+", "Add"), ("multiply", "*", "Multiply"), ("subtract", "-", "Subtract")])
    kind = rng.choice(["integer", "integer", "number"])
    x, y = rng.choice([("a", "b"), ("a", "b"), ("x", "y"), ("first", "second")])
    tool = declare(rng.choice([name, name, name + "_numbers", name + "_integers", "calculator_" + name]), rng.choice([f"{word} two numbers.", f"{word} two integers", f"{word} numbers exactly."]),
                   {x: (kind, rng.choice(["", "First number"])), y: (kind, rng.choice(["", "Second number"]))})
    a, b = rng.randint(0, 9999), rng.randint(0, 9999)
    if rng.random() < 0.4:
        a, b = rng.randint(0, 99), rng.randint(0, 99)
    verb = {"+": ["What is {a} + {b}?", "Add {a} and {b}.", "Calculate {a} + {b}.", "What is {a} plus {b}?"],
            "*": ["What is {a} * {b}?", "Multiply {a} by {b}.", "Calculate {a} * {b}.", "What is {a} times {b}?"],
            "-": ["What is {a} - {b}?", "Calculate {a} - {b}.", "What is {a} minus {b}?"]}[sign]
    q = rng.choice(verb).format(a=a, b=b) + rng.choice(["", "", " Use the tool.", " Use the calculator."])
    c = {"+": a + b, "*": a * b, "-": a - b}[sign]
    return tool, q, {x: a, y: b}, rng.choice([str(c), str(c), json.dumps({"result": c})]), f"{a} {sign} {b} = {c}."


def expression(rng):
    tool = declare(rng.choice(["calculator", "calculate", "evaluate"]), rng.choice(["Evaluate an expression.", "Calculate a mathematical expression"]),
                   {"expression": ("string", rng.choice(["", "The expression"]))})
    a, b, sign = rng.randint(0, 999), rng.randint(1, 999), rng.choice("+-*/")
    e = f"{a} {sign} {b}"
    c = str(rng.randint(0, 9999))
    return tool, rng.choice([f"What is {e}?", f"Calculate {e}.", f"Compute {e}."]), {"expression": e}, c, f"{e} = {c}."


def lookup(rng):
    thing, kind, what, make = rng.choice([
        ("price", "item", "the price of an item", lambda: rng.choice(w.NOUNS)), ("population", "country", "the population of a country",
        lambda: rng.choice(list(w.CAPITALS))), ("phone number", "name", "the phone number of a person", lambda: w.any_name(rng)),
        ("email", "name", "the email of a person", lambda: w.any_name(rng)), ("stock", "item", "the stock of an item", lambda: rng.choice(w.NOUNS)),
        ("capital", "country", "the capital of a country", lambda: rng.choice(list(w.CAPITALS))),
        ("meaning", "word", "the meaning of a word", lambda: w.any_word(rng)), ("age", "name", "the age of a person", lambda: w.any_name(rng))])
    snake = thing.replace(" ", "_")
    p = rng.choice([kind, kind, "query", "key"])
    tool = declare(rng.choice([tool_name(rng, snake), tool_name(rng, snake), tool_name(rng, snake), "lookup"]),
                   rng.choice(["Get ", "Look up ", "Find "]) + what + rng.choice([".", ""]), {p: ("string", "")})
    v = make()
    q = rng.choice(["What is the {t} of {v}?", "Look up the {t} of {v}.", "Find the {t} of {v}.", "Tell me the {t} of {v}."]).format(t=thing, v=v)
    r = {"email": f"{v.lower()}@example.com", "capital": w.CAPITALS.get(v, ""), "meaning": w.any_word(rng)}.get(thing) or str(rng.randint(1, 99999))
    return tool, q, {p: v}, rng.choice([r, json.dumps({snake: int(r) if r.isdigit() else r})]), f"The {thing} of {v} is {r}."


def order(rng):
    """Commands: the answer confirms what the result says."""
    room, n = rng.choice(w.ROOMS), rng.randint(1, 99)
    name, word, h, m = w.any_name(rng), w.any_word(rng), rng.randint(0, 23), rng.randint(0, 59)
    on = rng.random() < 0.5
    kind = rng.randrange(7)
    tool, q, args = [
        lambda: (declare("set_light", "Turn a light on or off.", {"room": ("string", ""), "on": ("boolean", "")}),
                 f"Turn {'on' if on else 'off'} the light in the {room}.", {"room": room, "on": on}),
        lambda: (declare("set_alarm", "Set an alarm.", {"hour": ("integer", ""), "minute": ("integer", "")}),
                 f"Set an alarm for {h}:{m:02d}.", {"hour": h, "minute": m}),
        lambda: (declare("send_message", "Send a message to a person.", {"to": ("string", "Who gets it"), "text": ("string", "")}),
                 f"Send {name} the message: {word} {w.WORDS[n]}", {"to": name, "text": f"{word} {w.WORDS[n]}"}),
        lambda: (declare("play_song", "Play a song.", {"title": ("string", "")}), f"Play the song {word}.", {"title": word}),
        lambda: (declare("set_temperature", "Set the temperature of a room.", {"room": ("string", ""), "degrees": ("integer", "")}),
                 f"Set the {room} to {n} degrees.", {"room": room, "degrees": n}),
        lambda: (declare("translate", "Translate a word.", {"text": ("string", ""), "language": ("string", "")}),
                 f"Translate {word} to {w.LANGUAGES[n % 10]}.", {"text": word, "language": w.LANGUAGES[n % 10]}),
        lambda: (declare("add_to_cart", "Put items into the cart.", {"item": ("string", ""), "count": ("integer", "")}),
                 f"Put {n} of {word} into the cart.", {"item": word, "count": n})][kind]()
    if kind == 5:
        r = w.pseudo_word(rng, 2, 3)
        return tool, q, args, r, f"The translation of {word} is {r}."
    r = rng.choice(["ok", "done", "success", "failed"])
    return tool, q, args, r, "It did not work." if r == "failed" else "Done."


def made_up(rng):
    """A tool nobody has seen: everything has to be read from the declaration and the question."""
    verb, noun = rng.choice(["get", "find", "check", "read", "make", "start", "count", "open", "test", "update"]), w.any_word(rng)
    name = rng.choice([f"{verb}_{noun}", f"{noun}_{verb}", noun, f"{verb}_{noun}_{w.any_word(rng)}"])
    props, args = {}, {}
    for _ in range(rng.choice([1, 1, 2, 3])):
        key = rng.choice(["id", "name", "value", "code", "size", "text", "kind", "level", "path", "user", w.any_word(rng)])
        kind = rng.choice(["string", "integer", "boolean", "array", "number"] if rng.random() < 0.4 else ["string", "integer"])
        props[key] = (kind, rng.choice(["", "", "The " + key]))
        args[key] = {"string": lambda: w.any_word(rng), "integer": lambda: rng.randint(0, 9999), "boolean": lambda: rng.random() < 0.5, "number": lambda: rng.choice([rng.randint(0, 99), rng.randint(1, 999) / 10]),
                     "array": lambda: [rng.randint(0, 99) for _ in range(rng.randint(1, 4))]}[kind]()
    tool = declare(name, rng.choice([f"{verb.capitalize()} the {noun}.", f"Use this to {verb} a {noun}.", f"{verb.capitalize()} {noun}"]), props)
    for key, kind in props.items():
        if kind[0] == "array":
            tool["function"]["parameters"]["properties"][key]["items"] = {"type": "integer"}
    if rng.random() < 0.25 and len(args) > 1:  # an optional parameter that nobody sets
        key = rng.choice(list(args))
        del args[key]
        tool["function"]["parameters"]["required"].remove(key)
    spoken = join_and([f"{k} {json.dumps(v) if isinstance(v, bool) else v}" for k, v in args.items()])
    q = rng.choice([f"Call {name} with {spoken}.", f"Use {name} with {spoken}.", f"{verb.capitalize()} the {noun} with {spoken}.",
                    f"Please {verb} the {noun}: {spoken}."])
    if not (name in q) and name == noun:
        q = f"Call {name} with {spoken}."
    r = rng.choice([str(rng.randint(0, 9999)), w.any_word(rng)])
    return tool, q, args, r, f"The result is {r}."


USES = [(weather, 4), (clock, 2), (calculator, 3), (expression, 1), (lookup, 4), (order, 3), (made_up, 4)]


def pick_use(rng):
    return rng.choices([u for u, _ in USES], [n for _, n in USES])[0](rng)


def toolbox(rng, tool):
    """The tool among up to three others, none of them a namesake of what it does."""
    tools, seen = [tool], {tool["function"]["name"], tool["function"]["description"].split(".")[0]}
    family = tool["function"]["name"].split("_")
    for _ in range(rng.choice([0, 0, 1, 1, 2, 3])):
        other = pick_use(rng)[0]
        parts = other["function"]["name"].split("_")
        if not (set(parts) - {"get", "find", "lookup", "current", "set", "check", "read", "fetch", "query"}) & set(family) and other["function"]["name"] not in seen \
                and "lookup" not in (other["function"]["name"], tool["function"]["name"]):
            tools.append(other)
            seen.add(other["function"]["name"])
    rng.shuffle(tools)
    return tools


def overlaps(tools):
    """Two tools that could answer the same question (a calculator beside `add`) make the right call a guess."""
    names = " ".join(t["function"]["name"] for t in tools).lower()
    sums = sum(k in names for k in ("add", "multiply", "subtract", "calc", "evaluate"))
    same = sum(k in names for k in ("weather",)) + names.count("time") + names.count("clock")
    return sums > 1 or same > 2 or names.count("weather") + names.count("forecast") > 1


def boxed(rng):
    while True:
        tool, q, args, result, answer = pick_use(rng)
        tools = toolbox(rng, tool)
        if len(tools) == 1 or not overlaps(tools):
            return tools, tool["function"]["name"], q, args, result, answer


def call(rng):
    tools, name, q, args, _, _ = boxed(rng)
    calls = [(name, args)]
    return Item("calling a tool", f"call {q}", q, "", json.dumps({"name": name, "arguments": args}), "tool_call",
                thought=f"I call {name}.", tools=tools, calls=calls)


def two_calls(rng):
    tool, q, args, _, _ = rng.choice([weather, clock])(rng)
    (key, city), name = next(iter(args.items())), tool["function"]["name"]
    q = q.replace(" in celsius", "").replace(" in fahrenheit", "")
    other = rng.choice([c for c in w.CITIES if c != city])
    q = q.replace(city, f"{city} and {other}")
    return Item("calling a tool", f"call {q}", q, "", json.dumps({"name": name, "arguments": {key: city}}), "tool_call",
                thought=f"I call {name} twice.", tools=[tool], calls=[(name, {key: city}), (name, {key: other})])


def use_result(rng):
    tools, name, q, args, result, answer = boxed(rng)
    calls = number_calls([(name, args)], rng.randint(1, 9))
    before = [{"role": "user", "content": q}, {"role": "assistant", "content": "", "tool_calls": calls},
              {"role": "tool", "tool_call_id": calls[0]["id"], "content": result}]
    return Item("using a result", f"call {q}", "", answer, answer, "exact", thought=f"The tool {name} says {result}.", tools=tools, before=before)


SKILLS = [(call, 7), (two_calls, 0.7), (use_result, 6)]
