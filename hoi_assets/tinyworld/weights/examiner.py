"""The examiner: a ResNet that reads what a picture of the tiny world really shows."""

from pathlib import Path
from typing import Any

from hoi_assets.tinyworld.weights.truth import KINDS, label_names, spans, targets, truth_loss
from hoi_assets.tinyworld.weights.vae import IMAGE_SIZE


def build() -> Any:
    """A fresh ResNetForImageClassification with one logit per label."""
    from transformers import ResNetConfig, ResNetForImageClassification

    names = label_names()
    config = ResNetConfig(
        embedding_size=24,
        hidden_sizes=[24, 48, 80, 120],
        depths=[1, 2, 2, 1],
        layer_type="basic",
        problem_type="multi_label_classification",
        id2label=dict(enumerate(names)),
        label2id={name: index for index, name in enumerate(names)},
    )
    return ResNetForImageClassification(config)


def processor() -> Any:
    """Resizing to the model's side, values in -1..1."""
    from transformers import ViTImageProcessorPil

    return ViTImageProcessorPil(size={"height": IMAGE_SIZE, "width": IMAGE_SIZE})


def save(model: Any, folder: Path) -> None:
    """Write fp16 weights, labels and preprocessing."""
    model.half().save_pretrained(folder)
    processor().save_pretrained(folder)


def loss_of(model: Any, pictures: Any, recipe: Any) -> Any:
    """The loss of a step: every label of pictures that are moved and brightened a little."""
    from hoi_assets.tinyworld.weights.pictures import as_float, draw_indices, jitter

    truth = targets(pictures.rows)

    def loss(generator: Any) -> Any:
        chosen = draw_indices(len(pictures), recipe.batch_size, generator)
        pixels = jitter(as_float(pictures.pixels[chosen]), generator)
        return truth_loss(model(pixels).logits, truth, chosen)

    return loss


def measure(model: Any, pictures: Any) -> dict[str, float]:
    """Accuracy of each kind (argmax), AUC of each defect and of `clean`, accuracy of `clean`."""
    import torch

    from hoi_assets.tinyworld.scenes.vocabulary import DEFECTS
    from hoi_assets.tinyworld.weights.pairs import roc_area
    from hoi_assets.tinyworld.weights.pictures import as_float

    truth, where = targets(pictures.rows), spans()
    with torch.inference_mode():
        logits = torch.cat([model(as_float(b)).logits for b in pictures.pixels.split(64)]).cpu()
    found = {
        f"{kind}_accuracy": float(
            (logits[:, where[kind]].argmax(dim=-1) == truth[kind]).float().mean()
        )
        for kind in KINDS
    }
    defects = logits[:, where["defect"]]
    right = (defects[:, -1] > 0) == (truth["defect"][:, -1] > 0)
    found["clean_accuracy"] = float(right.float().mean())
    for number, name in enumerate((*DEFECTS, "clean")):
        found[f"{name}_auc"] = roc_area(truth["defect"][:, number] > 0, defects[:, number])
    return found
