"""Words of the rendered truth that no caption says."""

FINGERS = ("thumb", "index", "middle", "ring", "little")
# Put into pictures on purpose, so that judges can be held against the truth.
DEFECTS = (
    "missing_finger",
    "extra_finger",
    "fused_fingers",
    "bent_joint",
    "floating",
    "penetrating",
)
