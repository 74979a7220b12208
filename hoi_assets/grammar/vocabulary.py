"""The words of the tiny world's captions and interactions."""

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "white", "black")
MATERIALS = ("plastic", "metal", "rubber")
SKIN_TONES = ("light", "tan", "brown", "dark")
SIDES = ("left", "right", "both")
VIEWS = ("front", "side", "above")
LIGHTS = ("soft light", "side light", "warm light", "dim light")
BACKGROUNDS = ("grey wall", "white wall", "blue wall", "green wall", "beige wall")
OBJECTS = (
    "apple",
    "bag",
    "ball",
    "bead",
    "bell",
    "book",
    "bottle",
    "bowl",
    "box",
    "brush",
    "bucket",
    "button",
    "can",
    "card",
    "coin",
    "die",
    "egg",
    "key",
    "mug",
    "pen",
    "phone",
    "plate",
    "ring",
    "spoon",
    "stick",
    "watch",
)
# Interaction scenes say these as well.
COUNTS = {
    "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9,
}  # fmt: skip
SHAPES = ("ring", "row", "zigzag", "cross", "triangle", "tower")
RELATIONS = (
    "form",
    "hold",
    "holds",
    "is beside",
    "is in",
    "is in front of",
    "is on",
    "opens",
    "paints",
    "points at",
    "pours into",
    "presses",
    "stirs in",
    "surrounds",
    "taps",
    "writes on",
)
