"""Word lists and small facts the synthetic chats are made of."""

NOUNS = """apple bread river stone table chair house garden window door bottle paper pencil book lamp clock
mountain forest ocean island bridge road street village castle tower market station train plane boat car
bicycle wheel engine hammer ladder bucket basket blanket pillow mirror candle button jacket shirt shoe hat
glove sock ring coin key lock box bag cup plate spoon fork knife kettle oven stove sugar salt pepper butter
cheese milk honey lemon orange banana cherry grape peach melon potato carrot onion tomato garlic bean rice
corn wheat flower tree leaf root seed grass cloud rain snow wind storm thunder star moon sun planet comet
rocket robot magnet crystal copper iron silver gold glass wood sand clay dust smoke fire water ice shadow
light music song drum piano guitar violin trumpet letter word number story poem picture camera radio phone
screen keyboard mouse printer doctor teacher farmer baker sailor soldier painter singer writer driver pilot
king queen prince knight wizard dragon giant monster pirate ghost brother sister mother father uncle friend
baby child hand finger foot nose ear mouth tooth heart bone feather shell wing tail egg nest cave desert
valley lake pond beach harbor school office library museum theater kitchen bedroom bathroom cellar attic
roof wall floor ceiling fence gate path tunnel map flag ticket stamp parcel wagon tractor truck ship anchor
rope chain needle thread cotton wool silk leather rubber plastic marble brick tile paint brush canvas frame
puzzle game ball kite doll toy whistle bell summer winter autumn spring morning evening night week month
year minute hour second planet ocean signal circle square triangle corner center middle border""".split()

ANIMALS = """cat dog horse cow sheep goat pig duck goose hen rooster rabbit hamster squirrel fox wolf bear
lion tiger leopard elephant giraffe zebra monkey panda koala kangaroo camel donkey deer moose otter beaver
badger hedgehog mole bat owl eagle hawk crow raven sparrow robin pigeon parrot penguin swan crane heron
frog toad lizard snake turtle crocodile shark whale dolphin salmon trout crab lobster spider ant bee wasp
butterfly beetle snail worm""".split()

ADJECTIVES = """small big tall short old young new fast slow hot cold warm cool dry wet soft hard heavy light
happy sad brave clever kind quiet loud bright dark clean dirty rich poor strong weak sweet sour bitter fresh
empty full open round flat deep wide narrow early late simple strange lucky gentle proud busy calm""".split()

VERBS = """run walk jump swim sing dance read write draw paint build cook bake eat drink sleep dream think talk
listen watch play work rest climb fall push pull carry throw catch find lose buy sell give take open close
start stop begin finish help teach learn visit travel wait hide seek plant grow cut mend clean wash""".split()

COLOURS = "red blue green yellow orange purple pink brown black white grey gold silver".split()

NAMES = """Ann Ben Carla David Emma Felix Grace Henry Iris Jack Kate Liam Maria Noah Olga Paul Quinn Rosa Sam
Tina Umar Vera Will Xenia Yusuf Zoe Alice Bob Clara Dan Eva Frank Gina Hugo Ida Jonas Karl Lena Max Nina Oscar
Petra Ralf Sara Tom Ursula Victor Wendy Adam Bella Chris Diana Erik Fiona George Hannah Ivan Julia Kevin Laura
Martin Nora Oliver Paula Robert Simon Teresa Andrea Peter Monica Leo Mia Luca Elena Marco Sofia Omar Layla Ali
Fatima Chen Mei Hiro Yuki Raj Priya Amara Kofi Zara Ravi Anna James John Mary Lucy Mark Susan Linda""".split()

CAPITALS = dict(x.split(":") for x in """France:Paris Germany:Berlin Italy:Rome Spain:Madrid Portugal:Lisbon
Austria:Vienna Belgium:Brussels Denmark:Copenhagen Norway:Oslo Sweden:Stockholm Finland:Helsinki Iceland:Reykjavik
Ireland:Dublin England:London Scotland:Edinburgh Wales:Cardiff Poland:Warsaw Hungary:Budapest Greece:Athens
Turkey:Ankara Russia:Moscow Ukraine:Kyiv Romania:Bucharest Bulgaria:Sofia Serbia:Belgrade Croatia:Zagreb
Slovenia:Ljubljana Slovakia:Bratislava Estonia:Tallinn Latvia:Riga Lithuania:Vilnius Switzerland:Bern
Netherlands:Amsterdam Luxembourg:Luxembourg Malta:Valletta Cyprus:Nicosia Albania:Tirana Egypt:Cairo
Morocco:Rabat Tunisia:Tunis Algeria:Algiers Libya:Tripoli Kenya:Nairobi Ethiopia:Addis_Ababa Ghana:Accra
Nigeria:Abuja Senegal:Dakar Uganda:Kampala Zambia:Lusaka Zimbabwe:Harare Angola:Luanda Sudan:Khartoum
Japan:Tokyo China:Beijing India:New_Delhi Nepal:Kathmandu Thailand:Bangkok Vietnam:Hanoi Indonesia:Jakarta
Malaysia:Kuala_Lumpur Philippines:Manila Singapore:Singapore Mongolia:Ulaanbaatar Iran:Tehran Iraq:Baghdad
Israel:Jerusalem Jordan:Amman Lebanon:Beirut Syria:Damascus Qatar:Doha Oman:Muscat Pakistan:Islamabad
Afghanistan:Kabul Bangladesh:Dhaka Cambodia:Phnom_Penh Laos:Vientiane Canada:Ottawa Mexico:Mexico_City
Cuba:Havana Jamaica:Kingston Panama:Panama_City Brazil:Brasilia Argentina:Buenos_Aires Chile:Santiago Peru:Lima
Colombia:Bogota Venezuela:Caracas Ecuador:Quito Uruguay:Montevideo Paraguay:Asuncion Bolivia:Sucre
Australia:Canberra Fiji:Suva Georgia:Tbilisi Armenia:Yerevan Kazakhstan:Astana""".replace("_", "~").split())
CAPITALS = {k: v.replace("~", " ") for k, v in CAPITALS.items()}
CITIES = sorted(set(CAPITALS.values()) | set("""Munich Hamburg Milan Venice Naples Barcelona Porto Lyon Zurich
Geneva Boston Chicago Seattle Denver Dallas Miami Toronto Sydney Melbourne Osaka Kyoto Mumbai Shanghai Dubai
Istanbul Krakow Prague Glasgow Leeds Bristol""".split()))

COLOUR_OF = dict(x.split(":") for x in """sky:blue grass:green snow:white coal:black blood:red banana:yellow lemon:yellow
carrot:orange milk:white chocolate:brown tomato:red cucumber:green strawberry:red salt:white sun:yellow night:black
leaf:green pea:green cherry:red raven:black swan:white flamingo:pink frog:green elephant:grey mouse:grey fire:red
ocean:blue plum:purple pumpkin:orange spinach:green butter:yellow sugar:white ruby:red emerald:green sapphire:blue
tar:black polar~bear:white fox:orange lavender:purple broccoli:green ash:grey ink:black cloud:white brick:red
canary:yellow coffee:brown mud:brown rice:white ketchup:red mustard:yellow pig:pink crow:black sunflower:yellow
eggplant:purple lettuce:green cement:grey""".split())
COLOUR_OF = {k.replace("~", " "): v for k, v in COLOUR_OF.items()}

OPPOSITES = dict(x.split(":") for x in """hot:cold big:small tall:short old:young fast:slow happy:sad day:night up:down
left:right open:closed full:empty wet:dry hard:soft heavy:light rich:poor strong:weak loud:quiet bright:dark
clean:dirty early:late first:last good:bad high:low inside:outside long:brief near:far new:used on:off push:pull
right:wrong safe:dangerous sweet:sour thick:thin true:false warm:cool wide:narrow yes:no start:stop win:lose
buy:sell give:take begin:end love:hate black:white deep:shallow brave:afraid friend:enemy""".split())

SOUNDS = dict(x.split(":") for x in """cat:meow dog:woof cow:moo sheep:baa duck:quack pig:oink horse:neigh lion:roar
owl:hoot bee:buzz snake:hiss rooster:cock-a-doodle-doo frog:ribbit crow:caw wolf:howl mouse:squeak donkey:hee-haw
pigeon:coo hen:cluck bird:tweet""".split())

LEGS = dict((k, int(v)) for k, v in (x.split(":") for x in """cat:4 dog:4 horse:4 spider:8 ant:6 bee:6 hen:2 duck:2
human:2 snake:0 fish:0 frog:4 octopus:8 butterfly:6 cow:4 owl:2 lion:4 worm:0 crab:10 table:4""".split()))

DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()
NUMBER_WORDS = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
sixteen seventeen eighteen nineteen twenty""".split()
ROOMS = "kitchen bedroom bathroom garden office cellar attic hall garage".split()
LANGUAGES = "French German Italian Spanish Polish Greek Turkish Dutch Swedish Danish".split()
WEATHER = ["sunny", "cloudy", "rainy", "windy", "snowy", "foggy", "stormy", "clear"]

SYLLABLES = [c + v for c in "b c d f g h k l m n p r s t v w z br dr gr pl st tr".split() for v in "aeiou"]
ENDINGS = ["", "", "n", "r", "s", "t", "l", "m", "k", "p"]

WORDS = sorted(set(NOUNS + ANIMALS + ADJECTIVES + VERBS + COLOURS))
WORDS3 = [w for w in WORDS if 3 <= len(w) <= 8]


def pseudo_word(rng, low=1, high=3):
    """A pronounceable made-up word, so that copying cannot be learnt by heart."""
    return "".join(rng.choice(SYLLABLES) for _ in range(rng.randint(low, high))) + rng.choice(ENDINGS)


def any_word(rng, short=False):
    """A real word two times in three, else a made-up one."""
    if rng.random() < 0.65:
        return rng.choice(WORDS3 if short else WORDS)
    return pseudo_word(rng, 1, 3 if not short else 2)


def any_name(rng):
    return rng.choice(NAMES) if rng.random() < 0.7 else pseudo_word(rng, 2, 3).capitalize()
