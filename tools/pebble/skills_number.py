"""Number skills: sums, tables, sorting, counting."""
from item import Item
import words as w

ADD = ["What is {a} + {b}?", "{a} + {b} =", "Add {a} and {b}.", "What is {a} plus {b}?", "Calculate {a} + {b}.",
       "How much is {a} + {b}?", "What is the sum of {a} and {b}?", "{a}+{b}"]
SUB = ["What is {a} - {b}?", "{a} - {b} =", "Subtract {b} from {a}.", "What is {a} minus {b}?", "Calculate {a} - {b}.",
       "How much is {a} - {b}?", "{a}-{b}"]
MUL = ["What is {a} x {b}?", "What is {a} times {b}?", "Multiply {a} by {b}.", "{a} * {b} =", "Calculate {a} * {b}.",
       "How much is {a} times {b}?", "What is {a} * {b}?"]


def add_steps(a, b):
    """Column sums from the ones up, as in `7 + 5 = 12; 4 + 8 + 1 = 13`."""
    steps, carry = [], 0
    x, y = str(a)[::-1], str(b)[::-1]
    for i in range(max(len(x), len(y))):
        parts = [s[i] for s in (x, y) if i < len(s)] + (["1"] if carry else [])
        total = sum(map(int, parts))
        steps.append(" + ".join(parts) + f" = {total}")
        carry = total // 10
    return steps


def sub_steps(a, b):
    """Column differences from the ones up, borrowing as in `13 - 8 = 5, borrow`."""
    steps, borrow = [], 0
    x, y = str(a)[::-1], str(b)[::-1]
    for i in range(len(x)):
        top, low = int(x[i]), (int(y[i]) if i < len(y) else 0)
        need = low + borrow
        mark = " - 1" if borrow else ""
        if top < need:
            steps.append(f"{top + 10} - {low}{mark} = {top + 10 - need}, borrow")
            borrow = 1
        else:
            steps.append(f"{top} - {low}{mark} = {top - need}")
            borrow = 0
    return steps


def small_sum(rng):
    if rng.random() < 0.25:
        a, b = rng.randint(0, 20), rng.randint(0, 20)
    else:
        a, b = rng.randint(0, 99), rng.randint(0, 99)
    lo, hi = sorted((a, b))
    return Item("sum of two digits", f"add {lo} {hi}", rng.choice(ADD).format(a=a, b=b), str(a + b), str(a + b), "exact",
                thought="\n".join(add_steps(a, b)))


def small_difference(rng):
    a, b = sorted((rng.randint(0, 99), rng.randint(0, 99)), reverse=True)
    if rng.random() < 0.15 and a != b:  # below zero
        return Item("difference of two digits", f"sub {b} {a}", rng.choice(SUB).format(a=b, b=a), f"-{a - b}", f"-{a - b}", "exact",
                    thought="\n".join(sub_steps(a, b)) + "\nBelow zero.")
    return Item("difference of two digits", f"sub {a} {b}", rng.choice(SUB).format(a=a, b=b), str(a - b), str(a - b),
                "exact", thought="\n".join(sub_steps(a, b)))


def large_sum(rng):
    top = rng.choice([999, 999, 999, 9999, 9999, 99999])
    a, b = rng.randint(100, top), rng.randint(100, top)
    if rng.random() < 0.25:
        b = rng.randint(1, 99)
    if rng.random() < 0.2:
        a = max(100, round(a, -2))
    if rng.random() < 0.3:
        a, b = b, a
    steps, c = add_steps(a, b), a + b
    lo, hi = sorted((a, b))
    return Item("sum, worked out", f"add {lo} {hi}", rng.choice(ADD).format(a=a, b=b), str(c), str(c), "exact",
                thought="\n".join(steps), plain="; ".join(steps) + f". So {a} + {b} = {c}.", expected_plain=f"= {c}.")


def large_difference(rng):
    top = rng.choice([999, 999, 9999])
    a, b = sorted((rng.randint(100, top), rng.randint(1, rng.choice([99, top]))), reverse=True)
    if rng.random() < 0.2:
        a = max(a, round(a, -2), 100)
    steps, c = sub_steps(a, b), a - b
    return Item("difference, worked out", f"sub {a} {b}", rng.choice(SUB).format(a=a, b=b), str(c), str(c), "exact",
                thought="\n".join(steps), plain="; ".join(steps) + f". So {a} - {b} = {c}.", expected_plain=f"= {c}.")


def table(rng):
    i = rng.randrange(len(MUL))
    a, b = rng.randint(0, 12), rng.randint(0, 12)
    return Item("times tables", f"mul {a} {b} {i}", MUL[i].format(a=a, b=b), str(a * b), str(a * b), "exact",
                thought=f"{a} times {b} is {a * b}.")


def product(rng):
    a, b = rng.randint(13, 99), rng.randint(2, 9)
    t, o = a // 10 * 10, a % 10
    steps = [f"{t} * {b} = {t * b}", f"{o} * {b} = {o * b}", f"{t * b} + {o * b} = {a * b}"]
    return Item("product, worked out", f"mul {a} {b}", rng.choice(MUL).format(a=a, b=b), str(a * b), str(a * b), "exact",
                thought="\n".join(steps), plain="; ".join(steps) + f". So {a} * {b} = {a * b}.",
                expected_plain=f"{a} * {b} = {a * b}.")


def quotient(rng):
    a, b, i = rng.randint(0, 12), rng.randint(1, 12), rng.randrange(4)
    q = ["What is {a} / {b}?", "What is {a} divided by {b}?", "Divide {a} by {b}.", "{a} / {b} ="][i].format(a=a * b, b=b)
    return Item("division", f"div {a * b} {b} {i}", q, str(a), str(a), "exact", thought=f"{a} times {b} is {a * b}.")


def prime(rng):
    n, i = rng.randint(1, 60), rng.randrange(3)
    d = next((d for d in range(2, n) if n % d == 0), None)
    q = ["Is {} a prime number?", "Is {} prime?", "Is the number {} a prime?"][i].format(n)
    a = f"Yes, {n} is prime." if d is None and n > 1 else (f"No, {n} is {d} times {n // d}." if d else "No, 1 is not prime.")
    return Item("primes", f"prime {n} {i}", q, a, a, "exact", thought=f"I look for divisors of {n}.")


def story_sum(rng):
    name, thing = rng.choice(w.NAMES), rng.choice(["apple", "coin", "book", "pencil", "stamp", "shell", "key", "ball"])
    a, b = rng.randint(2, 20), rng.randint(2, 20)
    if rng.random() < 0.5:
        q = rng.choice([f"{name} has {a} {thing}s and buys {b} more. How many {thing}s does {name} have now?",
                        f"{name} has {a} {thing}s. {name} finds {b} more {thing}s. How many {thing}s are there?"])
        c, sign = a + b, "+"
    else:
        a, b = max(a, b) + 1, min(a, b)
        q = rng.choice([f"{name} has {a} {thing}s and gives away {b}. How many {thing}s are left?",
                        f"{name} has {a} {thing}s and loses {b}. How many {thing}s does {name} have now?"])
        c, sign = a - b, "-"
    return Item("word problems", f"story {name} {thing} {a} {sign} {b}", q, f"{a} {sign} {b} = {c}. {name} has {c} {thing}s.",
                f"has {c} {thing}s", thought=f"{a} {sign} {b} = {c}")


def sort_numbers(rng):
    n = rng.randint(3, 6)
    xs = rng.sample(range(0, rng.choice([10, 100, 100, 1000])), n)
    down = rng.random() < 0.3
    text = ", ".join(map(str, xs))
    if down:
        q = rng.choice(["Sort these numbers from largest to smallest: {}", "Sort in descending order: {}"]).format(text)
    else:
        q = rng.choice(["Sort these numbers: {}", "Sort from smallest to largest: {}", "Put these numbers in order: {}",
                        "Sort in ascending order: {}", "Sort {}", "Sort {}.", "Sort the numbers {}.", "Please sort {}."]).format(text)
    a = ", ".join(map(str, sorted(xs, reverse=down)))
    return Item("sorting numbers", f"sort {down} {text}", q, a, a, "exact", thought=f"There are {n} numbers to sort.")


def extreme(rng):
    xs = rng.sample(range(0, 100), rng.choice([2, 2, 3, 4, 5]))
    big = rng.random() < 0.5
    text = ", ".join(map(str, xs)) if len(xs) > 2 else f"{xs[0]} or {xs[1]}"
    if len(xs) == 2:
        q = rng.choice(["Which is larger, {}?", "Which number is bigger, {}?"] if big else
                       ["Which is smaller, {}?", "Which number is smaller, {}?"]).format(text)
    else:
        q = rng.choice(["What is the largest of {}?", "Which number is the largest: {}?"] if big else
                       ["What is the smallest of {}?", "Which number is the smallest: {}?"]).format(text)
    c = max(xs) if big else min(xs)
    word = ("larger" if big else "smaller") if len(xs) == 2 else ("largest" if big else "smallest")
    return Item("largest and smallest", f"extreme {big} {text}", q, f"The {word} number is {c}.", f"is {c}.",
                thought=f"I compare the {len(xs)} numbers.")


def parity(rng):
    a = rng.randint(0, 999)
    kind = "even" if a % 2 == 0 else "odd"
    return Item("even or odd", f"parity {a}", rng.choice(["Is {} even or odd?", "Is the number {} odd or even?"]).format(a),
                f"{a} is {kind}.", f"is {kind}", thought=f"The last digit of {a} is {a % 10}.")


def count_up(rng):
    a = rng.choice([1, 1, rng.randint(0, 60)])
    n = rng.randint(3, 14) if rng.random() < 0.85 else rng.randint(15, rng.choice([60, 60, 150]))
    b = a + n
    if rng.random() < 0.25:
        q, xs = rng.choice(["Count down from {} to {}.", "Count backwards from {} to {}."]).format(b, a), range(b, a - 1, -1)
        key = f"count {b} {a}"
    else:
        q, xs = rng.choice(["Count from {} to {}.", "Please count from {} to {}.", "List the numbers from {} to {}."]
                           ).format(a, b), range(a, b + 1)
        key = f"count {a} {b}"
    if a == 1 and key == f"count {a} {b}" and rng.random() < 0.3:
        q = rng.choice(["Count to {}.", "Can you count to {}?"]).format(b)
    answer = ", ".join(map(str, xs))
    return Item("counting", key, q, answer, answer, "exact", thought=f"I say {len(xs)} numbers.")


def sequence(rng):
    a, d, n = rng.randint(0, 30), rng.randint(1, 10), rng.randint(3, 5)
    xs = [a + i * d for i in range(n)]
    text, c = ", ".join(map(str, xs)), a + n * d
    return Item("sequences", f"seq {text}", rng.choice(["What comes next: {}, ...?", "Continue the sequence: {}, ...",
                                                        "What is the next number: {}?"]).format(text),
                f"It goes up by {d}, so the next number is {c}.", f"number is {c}.", thought=f"{xs[1]} - {xs[0]} = {d}")


def number_word(rng):
    n, i = rng.randint(0, 20), rng.randrange(4)
    word = w.NUMBER_WORDS[n]
    q = [f"Write {n} in words.", f"How do you write {n} as a word?", f"Write {word} as a number.",
         f"Which digits are {word}?"][i]
    a = word if i < 2 else str(n)
    return Item("number words", f"numword {n} {i}", q, a, a, "exact", thought="This is a number word.")


SKILLS = [(small_sum, 9), (small_difference, 7), (large_sum, 7), (large_difference, 6), (table, 3), (product, 5), (story_sum, 2), (quotient, 1.5),
          (prime, 0.7),
          (sort_numbers, 5), (extreme, 2), (parity, 1), (count_up, 3), (sequence, 3), (number_word, 0.5)]
