#include "eval/words.h"

namespace longhold {

const std::vector<std::string_view>& EvalAdjectives() {
  static const std::vector<std::string_view> words = {
      "ancient",  "amber",    "bashful",  "bitter",   "bold",     "brave",    "breezy",   "brittle",
      "bronze",   "calm",     "careless", "cautious", "cheerful", "chilly",   "clever",   "cloudy",
      "clumsy",   "cosmic",   "cozy",     "crimson",  "crisp",    "crooked",  "curious",  "daring",
      "dazzling", "delicate", "dense",    "distant",  "dizzy",    "dreary",   "drowsy",   "dusty",
      "eager",    "early",    "earnest",  "elegant",  "endless",  "faint",    "faithful", "fancy",
      "fearless", "fierce",   "flaky",    "floral",   "fluffy",   "foggy",    "foolish",  "fragile",
      "frail",    "frosty",   "frugal",   "fuzzy",    "gentle",   "giant",    "gifted",   "glad",
      "glossy",   "golden",   "graceful", "grand",    "grateful", "gritty",   "grumpy",   "hasty",
      "hazy",     "hearty",   "heavy",    "hidden",   "hollow",   "honest",   "humble",   "hungry",
      "icy",      "idle",     "jagged",   "jolly",    "keen",     "kind",     "lanky",    "lavish",
      "lazy",     "leafy",    "lively",   "lofty",    "lonely",   "loyal",    "lucky",    "lunar",
      "marble",   "mellow",   "mighty",   "misty",    "modest",   "moody",    "muddy",    "mute",
      "narrow",   "neat",     "nervous",  "nimble",   "noble",    "noisy",    "odd",      "olive",
      "pale",     "patient",  "placid",   "plain",    "polite",   "proud",    "purple",   "quaint",
      "quick",    "quiet",    "ragged",   "rapid",    "rare",     "restless", "robust",   "rosy",
      "rough",    "rustic",   "rusty",    "sacred",   "salty",    "scarlet",  "serene",   "shabby",
      "shallow",  "sharp",    "shiny",    "silent",   "silky",    "silver",   "simple",   "sleepy",
      "slender",  "slim",     "smooth",   "snowy",    "sober",    "solemn",   "solid",    "spare",
      "spicy",    "spiral",   "steady",   "steep",    "stormy",   "sturdy",   "subtle",   "sunny",
      "swift",    "tall",     "tame",     "tangy",    "tender",   "thirsty",  "thorny",   "tidy",
      "timid",    "tiny",     "tired",    "upright",  "urban",    "vague",    "vain",     "velvet",
      "vivid",    "warm",     "wary",     "weary",    "wicked",   "wild",     "windy",    "wise",
      "witty",    "woolen",   "worthy",   "young",    "zealous",  "zesty",
  };
  return words;
}

const std::vector<std::string_view>& EvalNouns() {
  static const std::vector<std::string_view> words = {
      "acorn",   "actor",    "almond",   "anchor",    "anvil",   "apron",   "arch",    "arrow",
      "attic",   "badge",    "bagel",    "bakery",    "ballad",  "balloon", "bamboo",  "banjo",
      "barge",   "barn",     "barrel",   "basin",     "basket",  "beacon",  "beaver",  "bell",
      "bench",   "berry",    "blanket",  "blossom",   "boot",    "bottle",  "bowl",    "branch",
      "bridge",  "broom",    "bucket",   "buckle",    "bugle",   "bunker",  "bush",    "butter",
      "button",  "cabin",    "cable",    "cactus",    "camel",   "candle",  "canoe",   "canyon",
      "cape",    "carpet",   "cart",     "castle",    "cavern",  "cedar",   "cellar",  "chalk",
      "chapel",  "cherry",   "chimney",  "circus",    "clay",    "cliff",   "cloak",   "clock",
      "clover",  "coat",     "cobbler",  "coffee",    "comb",    "comet",   "compass", "copper",
      "coral",   "cottage",  "cradle",   "crane",     "crater",  "creek",   "cricket", "crown",
      "cup",     "curtain",  "cushion",  "dagger",    "dairy",   "daisy",   "desk",    "dial",
      "dome",    "donkey",   "drawer",   "drum",      "dune",    "eagle",   "easel",   "elbow",
      "engine",  "falcon",   "feather",  "fence",     "ferry",   "fiddle",  "flask",   "flute",
      "forest",  "fork",     "fountain", "fox",       "freight", "frog",    "furnace", "garden",
      "garlic",  "gate",     "gazelle",  "ginger",    "glacier", "glove",   "goblet",  "goose",
      "gravel",  "grove",    "guitar",   "hammer",    "hammock", "harbor",  "harp",    "hatch",
      "hazel",   "hedge",    "helmet",   "heron",     "herring", "hill",    "hinge",   "honey",
      "hood",    "horn",     "hotel",    "iris",      "iron",    "island",  "ivory",   "jacket",
      "jar",     "jasmine",  "jewel",    "jungle",    "kettle",  "kite",    "knot",    "ladder",
      "lagoon",  "lake",     "lamp",     "lantern",   "lark",    "ledge",   "lemon",   "lens",
      "lilac",   "linen",    "lizard",   "locket",    "loom",    "lotus",   "lumber",  "magnet",
      "mallet",  "mango",    "mantle",   "maple",     "mask",    "mast",    "meadow",  "melon",
      "mill",    "mirror",   "mitten",   "moat",      "mole",    "monk",    "moss",    "moth",
      "museum",  "mustard",  "napkin",   "needle",    "nest",    "nickel",  "nutmeg",  "oak",
      "oar",     "oasis",    "oat",      "orchard",   "orchid",  "otter",   "oven",    "owl",
      "oyster",  "paddle",   "palace",   "panther",   "paper",   "parcel",  "parrot",  "peach",
      "pearl",   "pebble",   "pepper",   "piano",     "pillow",  "pine",    "pipe",    "pirate",
      "planet",  "plaster",  "plum",     "pocket",    "pond",    "pony",    "poppy",   "porch",
      "potter",  "prism",    "pump",     "puppet",    "quarry",  "quill",   "rabbit",  "radish",
      "raft",    "rail",     "ranch",    "raven",     "reef",    "ribbon",  "ridge",   "river",
      "robin",   "rocket",   "roof",     "rope",      "rudder",  "saddle",  "sail",    "sailor",
      "salmon",  "sandal",   "satchel",  "saw",       "scarf",   "school",  "shed",    "shell",
      "shovel",  "signal",   "sledge",   "slipper",   "sparrow", "spindle", "sponge",  "spoon",
      "spruce",  "squirrel", "stable",   "staircase", "statue",  "stone",   "stove",   "straw",
      "sundial", "swan",     "table",    "tailor",    "tavern",  "teapot",  "temple",  "thimble",
      "thistle", "ticket",   "tiger",    "timber",    "toast",   "torch",   "tower",   "trail",
      "train",   "tray",     "trumpet",  "tulip",     "tunnel",  "turnip",  "turtle",  "umbrella",
      "valley",  "vase",     "vessel",   "village",   "vine",    "violet",  "violin",  "wagon",
      "walnut",  "walrus",   "wharf",    "whale",     "wheat",   "wheel",   "whistle", "willow",
      "window",  "wolf",     "yacht",    "yarn",      "zebra",   "zipper",
  };
  return words;
}

const std::vector<std::string_view>& EvalVerbs() {
  static const std::vector<std::string_view> words = {
      "accept",    "achieve",  "admire",    "adopt",     "adore",     "advise",  "allow",
      "amuse",     "answer",   "appear",    "apply",     "argue",     "arrange", "arrive",
      "assist",    "attach",   "attend",    "avoid",     "bake",      "balance", "become",
      "begin",     "believe",  "belong",    "borrow",    "bounce",    "build",   "calculate",
      "cancel",    "capture",  "carry",     "celebrate", "challenge", "choose",  "clap",
      "climb",     "collect",  "combine",   "complain",  "compose",   "confess", "confirm",
      "connect",   "consider", "contain",   "continue",  "convince",  "count",   "create",
      "cross",     "cure",     "decide",    "decorate",  "defend",    "deliver", "depend",
      "describe",  "deserve",  "destroy",   "develop",   "discover",  "discuss", "divide",
      "double",    "doubt",    "dream",     "earn",      "educate",   "embrace", "employ",
      "encourage", "enjoy",    "enter",     "entertain", "escape",    "examine", "excuse",
      "exist",     "expand",   "expect",    "explain",   "explore",   "extend",  "fetch",
      "float",     "flow",     "follow",    "forget",    "forgive",   "gather",  "glance",
      "greet",     "grow",     "guard",     "guess",     "guide",     "handle",  "happen",
      "harvest",   "help",     "hesitate",  "hover",     "identify",  "imagine", "improve",
      "include",   "increase", "inform",    "inspire",   "instruct",  "intend",  "introduce",
      "invent",    "invite",   "join",      "juggle",    "jump",      "kneel",   "knock",
      "launch",    "laugh",    "lead",      "learn",     "listen",    "manage",  "march",
      "mend",      "mention",  "multiply",  "need",      "nod",       "notice",  "obey",
      "observe",   "obtain",   "occur",     "offer",     "order",     "owe",     "paint",
      "pause",     "perform",  "permit",    "persuade",  "plan",      "plant",   "pour",
      "practise",  "praise",   "prefer",    "prepare",   "pretend",   "prevent", "produce",
      "promise",   "protect",  "prove",     "provide",   "publish",   "push",    "question",
      "realise",   "receive",  "recognise", "reduce",    "refuse",    "regret",  "reject",
      "relax",     "release",  "remain",    "remember",  "remind",    "repair",  "repeat",
      "replace",   "reply",    "rescue",    "retire",    "return",    "reveal",  "reward",
      "rinse",     "roam",     "satisfy",   "search",    "separate",  "serve",   "settle",
      "shiver",    "shout",    "sigh",      "sing",      "solve",     "sort",    "speak",
      "squeeze",   "stretch",  "stroll",    "study",     "succeed",   "suggest", "supply",
      "support",   "suppose",  "surprise",  "surround",  "suspect",   "tease",   "tempt",
      "thank",     "tickle",   "touch",     "trade",     "translate", "travel",  "treat",
      "trust",     "unite",    "unlock",    "vanish",    "visit",     "wander",  "warn",
      "weave",     "welcome",  "whisper",   "wink",      "wonder",    "worry",   "write",
      "yawn",      "yell",
  };
  return words;
}

const std::vector<std::string_view>& EvalFirstNames() {
  static const std::vector<std::string_view> words = {
      "Agnes",     "Albert",   "Amelia",   "Arthur",    "Beatrice", "Bernard",   "Camilla",
      "Cedric",    "Clara",    "Conrad",   "Daphne",    "Desmond",  "Edith",     "Edmund",
      "Eleanor",   "Ernest",   "Fiona",    "Frederick", "Gertrude", "Gilbert",   "Harriet",
      "Herbert",   "Ingrid",   "Isidore",  "Josephine", "Julius",   "Katherine", "Kenneth",
      "Leonora",   "Lionel",   "Mabel",    "Magnus",    "Nadia",    "Norman",    "Octavia",
      "Oswald",    "Penelope", "Percival", "Quentin",   "Rosalind", "Rupert",    "Sabrina",
      "Sylvester", "Theodora", "Tobias",   "Ursula",    "Vincent",  "Wallace",   "Winifred",
      "Yvonne",
  };
  return words;
}

}  // namespace longhold
