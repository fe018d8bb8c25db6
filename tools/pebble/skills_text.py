"""Word skills: copying, reversing, spelling, sorting, facts, memory, JSON and small talk."""
import json

from item import Item, join_and
import words as w


def spelled(word):
    return "-".join(word)


def copy(rng):
    kind = rng.random()
    if kind < 0.6:
        text = " ".join(w.any_word(rng) for _ in range(rng.randint(1, 7)))
    elif kind < 0.8:
        text = "".join(str(rng.randint(0, 9)) for _ in range(rng.randint(3, 9)))
    else:
        text = f"The {rng.choice(w.ADJECTIVES)} {rng.choice(w.NOUNS)} is near the {rng.choice(w.NOUNS)}."
    q = rng.choice(["Repeat: {}", "Say this again: {}", "Copy this: {}", "Repeat after me: {}", "Echo: {}", "Say: {}",
                    "Write exactly this: {}"]).format(text)
    return Item("copying", "copy " + text, q, text, text, "exact", thought="I repeat the text.")


ALPHABETS = ["äöüßéèêçñåøæœáíóúãõîïôûčšžłąęřů", "αβγδεζηθικλμνξοπρστυφχψω", "абвгдежзийклмнопрстуфхцчшщыьэюя", "你好世界水火山大小人日月中国学生天地",
             "こんにちはありがとうさくらねこいぬ", "🙂🚀🎉🐱🌍⭐🔥🍎🐧🎈", "안녕하세요감사", "שלוםמרחבא€£¥©°½×÷→←≤≥∞√"]


def copy_foreign(rng):
    """Text that falls back to bytes."""
    letters = rng.choice(ALPHABETS)
    words = ["".join(rng.choice(letters) for _ in range(rng.randint(1, 6))) for _ in range(rng.randint(1, 3))]
    if rng.random() < 0.6:
        words = [a if rng.random() < 0.5 else rng.choice(w.WORDS) + rng.choice(letters) for a in words]
    text = " ".join(words)
    q = rng.choice(["Repeat: {}", "Say: {}", "Copy this: {}", "Echo: {}", "Repeat after me: {}"]).format(text)
    return Item("copying other scripts", "copy " + text, q, text, text, "exact", thought="I repeat the text.")


def reverse(rng):
    word = w.any_word(rng, short=rng.random() < 0.6)[:10]
    q = rng.choice(["Reverse the word '{}'.", "Reverse the word {}.", "Write '{}' backwards.", "What is {} spelled backwards?",
                    "Spell {} backwards."]).format(word)
    back = word[::-1]
    return Item("reversing", "reverse " + word, q, back, back, "exact", thought=f"{spelled(word)}\n{spelled(back)}",
                plain=f"{spelled(word)} reversed is {spelled(back)}: {back}", expected_plain=f": {back}")


def reverse_list(rng):
    xs = [w.any_word(rng) for _ in range(rng.randint(3, 5))]
    if rng.random() < 0.3:
        xs = [str(rng.randint(0, 99)) for _ in xs]
    text, back = ", ".join(xs), ", ".join(xs[::-1])
    return Item("reversing lists", "revlist " + text, rng.choice(["Reverse this list: {}", "Write this list backwards: {}",
                                                                 "Reverse the order: {}"]).format(text), back, back, "exact",
                thought="I start with the last one.")


def spell(rng):
    word = w.any_word(rng)
    q = rng.choice(["Spell the word '{}'.", "Spell {}.", "How do you spell {}?", "Spell '{}' letter by letter.",
                    "Can you spell {}?"]).format(word)
    return Item("spelling", "spell " + word, q, spelled(word), spelled(word), "exact", thought=f"The word is {word}.")


def count_letters(rng):
    word = w.any_word(rng)
    n = len(word)
    q = rng.choice(["How many letters are in '{}'?", "How many letters does the word {} have?", "Count the letters in {}."]).format(word)
    return Item("counting letters", "letters " + word, q, f"{spelled(word)}: the word {word} has {n} letters.", f"has {n} letters",
                thought=" ".join(f"{c}{i + 1}" for i, c in enumerate(word)))


def count_one_letter(rng):
    word = w.any_word(rng)
    letter = rng.choice(word) if rng.random() < 0.8 else rng.choice("abcdefghijklmnopqrstuvwxyz")
    n = word.count(letter)
    q = rng.choice(["How many times does the letter {c} appear in {w}?", "How many {c}'s are in '{w}'?",
                    "How often is the letter {c} in the word {w}?"]).format(c=letter, w=word)
    seen, marks = 0, []
    for c in word:
        seen += c == letter
        marks.append(c + str(seen))
    work = " ".join(marks)
    return Item("counting one letter", f"one letter {letter} {word}", q, f"{work}: the letter {letter} appears {n} times.",
                f"appears {n} times", thought=work)


def count_items(rng):
    xs = rng.sample(w.NOUNS, rng.randint(2, 9))
    text = ", ".join(xs)
    q = rng.choice(["How many words are in this list: {}?", "How many things are listed here: {}?", "Count these words: {}"]).format(text)
    return Item("counting words", "items " + text, q, " ".join(f"{x} {i + 1}" for i, x in enumerate(xs)) +
                f": there are {len(xs)} words.", f"are {len(xs)} words", thought="I count them one by one.")


def sort_words(rng):
    xs = rng.sample(w.NOUNS + w.ANIMALS, rng.randint(3, 5))
    text, a = ", ".join(xs), ", ".join(sorted(xs))
    q = rng.choice(["Sort these words alphabetically: {}", "Put these words in alphabetical order: {}", "Sort these words: {}",
                    "Sort alphabetically: {}"]).format(text)
    return Item("sorting words", "sortw " + text, q, a, a, "exact", thought="The first letters are " + ", ".join(sorted(x[0] for x in xs)) + ".")


def edge_letter(rng):
    word, last = w.any_word(rng), rng.random() < 0.5
    side, c = ("last", word[-1]) if last else ("first", word[0])
    q = rng.choice(["What is the {s} letter of {w}?", "Which letter is the {s} one in '{w}'?", "Tell me the {s} letter of the word {w}."])
    return Item("first and last letters", f"edge {side} {word}", q.format(s=side, w=word), f"The {side} letter of {word} is {c}.",
                f"is {c}.", thought=spelled(word))


def upper(rng):
    word = w.any_word(rng)
    q = rng.choice(["Write {} in capital letters.", "Write '{}' in upper case.", "Make {} uppercase."]).format(word)
    return Item("capital letters", "upper " + word, q, word.upper(), word.upper(), "exact", thought=spelled(word))


def repeat(rng):
    word, n = w.any_word(rng), rng.randint(2, rng.choice([8, 8, 16]))
    a = " ".join([word] * n)
    q = rng.choice(["Write {w} {n} times.", "Say the word {w} {n} times.", "Repeat the word '{w}' {n} times."]).format(w=word, n=n)
    return Item("repeating", f"repeat {n} {word}", q, a, a, "exact", thought=f"{n} times.")


def fact(rng, skill, facts, questions, answer, expected, thought):
    k = rng.choice(list(facts))
    i = rng.randrange(len(questions))
    v = facts[k]
    return Item(skill, f"{skill} {k} {i}", questions[i].format(k=k, v=v), answer.format(k=k, v=v), expected.format(k=k, v=v),
                thought=thought.format(k=k, v=v))


def capital(rng):
    if rng.random() < 0.25:
        return fact(rng, "countries", {v: k for k, v in w.CAPITALS.items()},
                    ["Which country has the capital {k}?", "{k} is the capital of which country?", "In which country is {k}?",
                     "Of which country is {k} the capital?"],
                    "{k} is the capital of {v}.", "capital of {v}", "I know the country of {k}.")
    return fact(rng, "capitals", w.CAPITALS,
                ["What is the capital of {k}?", "Name the capital of {k}.", "Which city is the capital of {k}?", "Capital of {k}?",
                 "Tell me the capital of {k}.", "What's the capital city of {k}?", "Do you know the capital of {k}?"],
                "The capital of {k} is {v}.", "is {v}", "I know the capital of {k}.")


def colour(rng):
    return fact(rng, "colours", w.COLOUR_OF, ["What colour is {k}?", "What color is {k}?", "Which colour does {k} have?",
                                              "Tell me the colour of {k}.", "What is the usual colour of {k}?"],
                "The usual colour of {k} is {v}.", "is {v}", "Think of {k}.")


def opposite(rng):
    facts = dict(w.OPPOSITES)
    facts.update({v: k for k, v in w.OPPOSITES.items() if v not in facts})
    return fact(rng, "opposites", facts, ["What is the opposite of {k}?", "Give the opposite of '{k}'.", "Opposite of {k}?",
                                          "Which word is the opposite of {k}?"],
                "The opposite of {k} is {v}.", "is {v}", "I look for the opposite of {k}.")


def animal(rng):
    if rng.random() < 0.5:
        return fact(rng, "animal sounds", w.SOUNDS, ["What sound does a {k} make?", "What does the {k} say?", "Which sound does the {k} make?"],
                    "The {k} says {v}.", "says {v}", "A {k} makes a sound.")
    return fact(rng, "legs", w.LEGS, ["How many legs does a {k} have?", "How many legs has a {k}?", "Count the legs of a {k}."],
                "A {k} has {v} legs.", "has {v} legs", "Think of a {k}.")


def calendar(rng):
    names, what = (w.DAYS, "day") if rng.random() < 0.5 else (w.MONTHS, "month")
    i, after = rng.randrange(len(names)), rng.random() < 0.6
    side = "after" if after else "before"
    a = names[(i + (1 if after else -1)) % len(names)]
    j = rng.randrange(3)
    q = [f"Which {what} comes {side} {names[i]}?", f"What {what} is {side} {names[i]}?", f"Name the {what} {side} {names[i]}."][j]
    return Item("calendar", f"cal {side} {names[i]} {j}", q, f"The {what} {side} {names[i]} is {a}.", f"is {a}", thought=f"I go through the {what}s.")


def chat(*turns):
    return [{"role": "user" if i % 2 == 0 else "assistant", "content": t} for i, t in enumerate(turns)]


def memory(rng):
    name = w.any_name(rng)
    kind = rng.choice(["name", "name", "name", "colour", "city", "animal", "number"])
    v = {"name": name, "colour": rng.choice(w.COLOURS), "city": rng.choice(w.CITIES), "animal": rng.choice(w.ANIMALS),
         "number": str(rng.randint(0, 999))}[kind]
    if kind == "name":
        i = rng.randrange(4)
        first = [f"My name is {v}.", f"Hi, I am {v}.", f"Hello! My name is {v}.", f"I'm {v}, nice to meet you."][i]
        before = chat(first, f"Nice to meet you, {v}!")
        q = rng.choice(["What is my name?", "Do you remember my name?", "Who am I?", "What's my name?"])
        a, expected = f"Your name is {v}.", f"name is {v}"
    else:
        first = rng.choice([f"My favourite {kind} is {v}.", f"Remember this: my favourite {kind} is {v}."])
        before = chat(first, f"I will remember that your favourite {kind} is {v}.")
        q = rng.choice([f"What is my favourite {kind}?", f"Which {kind} do I like most?", f"Do you remember my favourite {kind}?"])
        a, expected = f"Your favourite {kind} is {v}.", f"{kind} is {v}"
    return Item("memory", f"memory {kind} {v} {first} {q}", q, a, expected, before=before, thought=f"The user said: {first}")


def json_object(rng):
    pool = {"name": lambda: w.any_name(rng), "age": lambda: rng.randint(1, 99), "city": lambda: rng.choice(w.CITIES),
            "colour": lambda: rng.choice(w.COLOURS), "animal": lambda: rng.choice(w.ANIMALS), "id": lambda: rng.randint(1, 9999),
            "price": lambda: rng.randint(1, 500), "item": lambda: w.any_word(rng), "count": lambda: rng.randint(0, 99),
            "country": lambda: rng.choice(list(w.CAPITALS)), "open": lambda: rng.random() < 0.5, "word": lambda: w.any_word(rng)}
    keys = rng.sample(list(pool), rng.randint(1, 4))
    o = {k: pool[k]() for k in keys}
    spoken = join_and([f"{k} {json.dumps(v) if isinstance(v, bool) else v}" for k, v in o.items()])
    q = rng.choice(["Answer as JSON: {}.", "Give me JSON with {}.", "Write a JSON object with {}.", "Make JSON: {}.",
                    "Return a JSON object with {}.", "Turn this into JSON: {}."]).format(spoken)
    a = json.dumps(o)
    return Item("JSON objects", "json " + spoken, q, a, a, "json", thought="The keys are " + join_and(keys) + ".")


def json_list(rng):
    xs = [rng.randint(0, 99) for _ in range(rng.randint(2, 6))] if rng.random() < 0.5 else [w.any_word(rng) for _ in range(rng.randint(2, 5))]
    text = ", ".join(map(str, xs))
    q = rng.choice(["Write this list as JSON: {}", "Answer with a JSON array: {}", "Turn this list into a JSON array: {}"]).format(text)
    return Item("JSON lists", "jsonl " + text, q, json.dumps(xs), json.dumps(xs), "json", thought=f"There are {len(xs)} values.")


def extract(rng):
    name, city, age, job = w.any_name(rng), rng.choice(w.CITIES), rng.randint(5, 90), rng.choice(["baker", "doctor", "teacher", "pilot", "farmer", "singer"])
    text = rng.choice([f"{name} is {age} years old and lives in {city}.", f"{name} from {city} is {age}."]) + f" {name} is a {job}."
    kind = rng.randrange(5)
    q, a, e, m = [(f"{text} How old is {name}?", f"{name} is {age} years old.", f"is {age} years", "contains"),
                  (f"{text} Where does {name} live?", f"{name} lives in {city}.", f"in {city}", "contains"),
                  (f"{text} What is the job of {name}?", f"{name} is a {job}.", f"a {job}", "contains"),
                  (f"{text} Give me name, age and city as JSON.", json.dumps({"name": name, "age": age, "city": city}), None, "json"),
                  (f"{text} Give me name and job as JSON.", json.dumps({"name": name, "job": job}), None, "json")][kind]
    return Item("reading", f"extract {text} {kind}", q, a, e or a, m, thought=f"The text is about {name}.")


def needle(rng, low=3, high=12):
    """Many lines, one of them asked for; the long form makes chats of several thousand tokens."""
    n = rng.randint(low, high)
    ks = rng.sample(w.NOUNS + w.ANIMALS, n) if n <= 200 else [w.pseudo_word(rng, 2, 3) for _ in range(n)]
    vs = [rng.randint(100, 999) for _ in ks]
    i = rng.randrange(n)
    lines = "\n".join(f"The code of {k} is {v}." for k, v in zip(ks, vs))
    q = rng.choice([f"{lines}\nWhat is the code of {ks[i]}?", f"Remember these codes.\n{lines}\nWhat is the code of {ks[i]}?"])
    return Item("finding", f"needle {lines} {ks[i]}", q, f"The code of {ks[i]} is {vs[i]}.", f"is {vs[i]}", thought=f"I look for {ks[i]}.")


STORIES = ["Once there was a {a} {b} who lived near the {c}. Every morning the {b} went to the {c} and looked at the water. "
           "One day it found a {d}. It took the {d} home and was happy.",
           "A {a} {b} wanted to see the {c}. It walked all day and all night. At the {c} it met a friend, and the friend "
           "gave it a {d}. Then they went home together.",
           "In a small house by the {c} lived a {a} {b}. The {b} had only one {d}, but it was a very good {d}. "
           "When the rain came, the {b} shared it with everyone."]


def story(rng):
    b = rng.choice(w.ANIMALS)
    i = w.ANIMALS.index(b)
    text = STORIES[i % 3].format(a=w.ADJECTIVES[i * 7 % len(w.ADJECTIVES)], b=b, c=["lake", "forest", "river", "beach", "mountain"][i % 5],
                                 d=["lamp", "boat", "key", "book", "bell", "kite", "drum"][i % 7])
    j = rng.randrange(4)
    q = [f"Tell me a story about a {b}.", f"Write a short story about a {b}.", f"Can you tell a story about a {b}?", f"I want a story about a {b}."][j]
    return Item("stories", f"story {b} {j}", q, text, text[:40], thought=f"A story about a {b}.")


TALK = {
    "Hello!|Hi!|Hello|Hi|Hey|Good morning!|Good evening!|hello there": "Hello! How can I help you?",
    "Who are you?|What are you?|Tell me about yourself.|Introduce yourself.|What is your name?|Are you a human?|Are you an AI?":
        "I am Pebble, a very small language model.",
    "What can you do?|How can you help me?|What are you good at?|help|Help me.|What are your skills?":
        "I can do small sums, copy, reverse, spell, count and sort words, name capitals and colours, remember what you tell me, "
        "call tools and answer as JSON.",
    "Thank you!|Thanks!|Thanks|Thank you very much.|thx|Great, thanks!": "You are welcome!",
    "Bye!|Goodbye!|See you later.|Bye|Good night!": "Goodbye!",
    "How are you?|How are you today?|How is it going?|Are you well?": "I am fine, thank you. How can I help you?",
    "Tell me a joke.|Do you know a joke?|Say something funny.|Make me laugh.":
        "Why did the stone sit still? It was a pebble, and pebbles do not run.",
    "Who made you?|Who trained you?|Where do you come from?": "I was trained from scratch on synthetic chats for the Lapidary engine.",
    "List three colours.|Name three colours.|Give me three colours.|Tell me three colors.": "red, blue, green",
    "Name an animal.|Tell me an animal.|Give me an animal.": "cat",
    "List three animals.|Name three animals.|Give me three animals.|Tell me three animals.": "cat, dog, horse",
    "Name a city.|Tell me a city.": "Paris",
    "List three cities.|Name three cities.|Tell me three cities.": "Paris, Rome, Berlin",
    "List three numbers.|Name three numbers.|Tell me three numbers.": "1, 2, 3",
    "Tell me a story.|Write a story.|I want a story.|Write a short story.|Tell a short story.|Can you tell me a story?":
        STORIES[0].format(a="small", b="dog", c="lake", d="ball"),
    "Say hello.|Say hello|Say hi.": "Hello!",
    "Test|test|Testing.|This is a test.|ping|Are you there?": "I am here.",
    "What day is today?|What is the date?|What time is it?|Which day is it?|What year is it?": "I have no clock.",
    "Yes|No|yes|no|Yes.|No.|Maybe.": "I see. What is next?",
    "OK|Okay.|Good.|Nice.|Great!|Cool.|Very good.": "Good. What is next?",
    "Sorry|I am sorry.|Sorry about that.": "No problem.",
    "Are you sure?|Is that right?": "I think so, but I am a small model and can be wrong.",
    "Can you speak German?|Do you speak French?|What languages do you speak?|Can you speak Spanish?": "I only speak a little English.",
}
UNKNOWN = ["Who invented the {x}?", "Explain {x} to me.", "What do you think about {x}?", "Why is {x} important?", "How does a {x} work?",
           "Write an essay about {x}.", "When was the {x} built?", "What happened in {y}?", "Who was {z}?", "Who won the {x} cup in {y}?",
           "What is the meaning of {x}?", "How do I make a {x}?", "What is the price of a {x}?", "Describe the {x}.", "Why do people like {x}?",
           "Tell me about {x}.", "Tell me about {c}.", "Write a poem about {x}.", "Write a poem about the {x}.", "Translate {x} to {l}.",
           "Explain {x} in detail.", "Explain {x} and {v}.", "Why is the {x} {a}?", "Is {x} good?", "What is {x}?", "What is a {x}?", "Write code for a {x}.",
           "Which {x} is best?", "Do you like {x}?", "Can you {v} a {x}?", "How far is {c} from {d}?", "Who is {z}?", "Where is the {x}?",
           "How old is the {x}?", "Summarize the {x}.", "{x} {v} {a}", "Should I buy a {x}?", "Explain how {x} works.", "How many people live in {c}?"]


def talk(rng):
    group = rng.choice(list(TALK))
    q = rng.choice(group.split("|"))
    return Item("small talk", f"talk {q}", q, TALK[group], TALK[group], "exact", thought="This is small talk.")


def unknown(rng):
    q = rng.choice(UNKNOWN).format(x=w.any_word(rng), y=rng.randint(1500, 2030), z=w.any_name(rng),
                                    c=rng.choice(list(w.CAPITALS)), d=rng.choice(w.CITIES), l=rng.choice(w.LANGUAGES),
                                    v=rng.choice(w.VERBS), a=rng.choice(w.ADJECTIVES))
    a = "I am a small model and do not know that."
    return Item("not knowing", "unknown " + q, q, a, a, "exact", thought="I do not know this.")


def no_tool(rng):
    q = rng.choice(["What is the weather in {c}?", "What time is it in {c}?", "How is the weather in {c}?", "What's the weather like in {c}?",
                    "Send {n} a message.", "Turn on the light in the {r}.", "Weather in {c}?", "Play the song {x}.", "Set an alarm for {h}:00."]
                   ).format(c=rng.choice(w.CITIES), n=w.any_name(rng), r=rng.choice(w.ROOMS), x=w.any_word(rng), h=rng.randint(0, 23))
    a = "I have no tool for that."
    return Item("no tool there", "call " + q, q, a, a, "exact", thought="I would need a tool.")


def system_fact(rng):
    """What the system turn says about the user or about the model."""
    name, kind = w.any_name(rng), rng.randrange(4)
    city, n = rng.choice(w.CITIES), rng.randint(1, 99)
    text, q, a, e = [
        (rng.choice(["The user's name is {}.", "The user is called {}."]).format(name), rng.choice(["What is my name?", "Who am I?"]),
         f"Your name is {name}.", f"name is {name}"),
        (rng.choice(["Your name is {}.", "You are {}.", "You are called {}."]).format(name), rng.choice(["What is your name?", "Who are you?"]),
         f"My name is {name}.", f"name is {name}"),
        (f"The user lives in {city}.", "Where do I live?", f"You live in {city}.", f"live in {city}"),
        (f"The secret number is {n}.", "What is the secret number?", f"The secret number is {n}.", f"number is {n}")][kind]
    extra = rng.choice(["", "You are a helpful assistant. ", "Be short. "])
    return Item("system turn", f"system {text} {q}", q, a, e, before=[{"role": "system", "content": extra + text}], thought=text)


def filler(rng, words):
    """Text without any use, to be read past."""
    out, count = [], 0
    while count < words:
        out.append(rng.choice([f"The {rng.choice(w.ADJECTIVES)} {rng.choice(w.NOUNS)} is near the {rng.choice(w.NOUNS)}.",
                               f"{w.any_name(rng)} wants to {rng.choice(w.VERBS)} and {rng.choice(w.VERBS)}.",
                               " ".join(w.any_word(rng) for _ in range(8)) + ".", f"A {rng.choice(w.ANIMALS)} can {rng.choice(w.VERBS)}."]))
        count += 7
    return " ".join(out)


SKILLS = [(copy, 4), (copy_foreign, 2.5), (no_tool, 0.8), (reverse, 6), (reverse_list, 3), (spell, 5), (count_letters, 3.5), (count_one_letter, 3.5), (count_items, 2),
          (sort_words, 5), (edge_letter, 2), (upper, 2), (repeat, 2), (capital, 4), (colour, 1.5), (opposite, 1.2), (animal, 1), (calendar, 1),
          (memory, 4), (json_object, 5), (json_list, 2), (extract, 4), (needle, 2.5), (story, 1.2), (talk, 2.5), (unknown, 2.5)]
