"""What each training does, in one table. A change here is a new edition of the weights."""

from dataclasses import asdict, dataclass, replace

from hoi_assets.hashing import digest


@dataclass(frozen=True)
class Recipe:
    """One training: AdamW, linear warm-up, cosine decay to `final_share` of the learning rate.

    Attributes:
        split: the split of the world that it learns from; one grasp in ten is held out.
        ema_decay: of the averaged weights that are kept; None keeps the last ones.
        extra: further numbers of this model's loss and data, by name; `through_vae` and `renoised`
            count the pictures shown once more as the generator shows them.
    """

    name: str
    split: str
    steps: int
    batch_size: int
    learning_rate: float
    warmup_steps: int = 100
    final_share: float = 0.02
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    ema_decay: float | None = None
    seed: int = 0
    extra: tuple[tuple[str, float], ...] = ()

    def __getitem__(self, name: str) -> float:
        """The number called `name` in `extra`."""
        return dict(self.extra)[name]

    def having(self, **extra: float) -> "Recipe":
        """This recipe with other numbers of `extra`."""
        return replace(self, extra=tuple((dict(self.extra) | extra).items()))

    @property
    def digest(self) -> str:
        """First 16 hex digits of the hash of all fields."""
        return digest(asdict(self))[:16]


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "vae",
            split="pretrain",
            steps=1800,
            batch_size=2,
            learning_rate=1.5e-3,
            ema_decay=0.995,
            extra=(("gradient_weight", 0.5), ("colour_weight", 2.0), ("kl_weight", 1e-4)),
        ),
        Recipe(
            "decoder",
            split="pretrain",
            steps=5000,
            batch_size=4,
            learning_rate=8e-4,
            ema_decay=0.998,
            extra=(("gradient_weight", 0.5), ("colour_weight", 1.0)),
        ),
        Recipe(
            "vae16",
            split="pretrain",
            steps=6000,
            batch_size=8,
            learning_rate=1e-3,
            ema_decay=0.998,
            extra=(
                ("crop_px", 64),
                ("l2_weight", 0.3),
                ("gradient_weight", 0.5),
                ("kl_weight", 1e-5),
            ),
        ),
        Recipe(
            "sdxl",
            split="pretrain",
            steps=4500,
            batch_size=16,
            learning_rate=7e-4,
            warmup_steps=100,
            ema_decay=0.998,
            extra=(("caption_dropout", 0.1), ("wordings", 4)),
        ),
        Recipe(
            "sdxl16",
            split="pretrain",
            steps=3200,
            batch_size=32,
            learning_rate=1e-3,
            warmup_steps=100,
            ema_decay=0.998,
            extra=(("caption_dropout", 0.1), ("wordings", 4), ("muon", 1.0)),
        ),
        Recipe(
            "clip",
            split="pretrain",
            steps=450,
            batch_size=48,
            learning_rate=1e-3,
            warmup_steps=40,
            weight_decay=0.1,
            extra=(("prefix_share", 0.6), ("through_vae", 900), ("renoised", 700)),
        ),
        Recipe(
            "vilt",
            split="twins",
            steps=1800,
            batch_size=32,
            learning_rate=1e-3,
            warmup_steps=100,
            ema_decay=0.995,
            extra=(
                ("lie_share", 0.35),
                ("blank_share", 0.1),
                ("reader_weight", 0.2),
                ("through_vae", 2400),
                ("renoised", 1600),
                ("muon", 1.0),
            ),
        ),
        Recipe(
            "image_reward",
            split="pretrain",
            steps=1000,
            batch_size=32,
            learning_rate=7e-4,
            warmup_steps=40,
            extra=(
                ("spoilt_share", 0.4),
                ("lie_share", 0.4),
                ("reader_weight", 0.2),
                ("through_vae", 900),
                ("renoised", 700),
            ),
        ),
        Recipe(
            "examiner",
            split="examiner",
            steps=900,
            batch_size=64,
            learning_rate=3e-3,
            warmup_steps=40,
            weight_decay=0.02,
            extra=(("through_vae", 300), ("renoised", 300)),
        ),
        Recipe(
            "sd3",
            split="interactions",
            steps=4500,
            batch_size=16,
            learning_rate=8e-4,
            warmup_steps=200,
            ema_decay=0.999,
            extra=(
                ("caption_dropout", 0.1),
                ("wordings", 4),
                ("interactions_share", 0.7),
                ("muon", 1.0),
            ),
        ),
        Recipe(
            "vqa",
            split="interactions",
            steps=2800,
            batch_size=32,
            learning_rate=6e-4,
            warmup_steps=100,
            extra=(
                ("stranger_share", 0.3),
                ("parts_weight", 1.0),
                ("reader_weight", 0.2),
                ("through_vae", 1500),
                ("muon", 1.0),
            ),
        ),
        Recipe(
            "component_examiner",
            split="interactions_examiner",
            steps=3200,
            batch_size=32,
            learning_rate=7e-4,
            warmup_steps=100,
            seed=1,
            extra=(
                ("stranger_share", 0.3),
                ("parts_weight", 1.0),
                ("reader_weight", 0.2),
                ("through_vae", 1500),
                ("muon", 1.0),
            ),
        ),
    )
}
