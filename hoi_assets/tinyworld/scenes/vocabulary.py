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
# Defects of twins: those above, and others that diffusion models make.
TWIN_DEFECTS = (
    *DEFECTS,
    "melted_hand",
    "doubled_thumb",
    "second_palm",
    "wrong_length",
    "broken_wrist",
    "fused_object",
)
# Values of the pixels of a picture of part labels.
PARTS = ("background", "palm", *FINGERS, "forearm", "object")
