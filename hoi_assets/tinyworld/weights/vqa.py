"""The tiny world's answerers of yes/no questions about interactions: the critic, and the examiner
of components, which learns from other scenes and other questions."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hoi_assets.engines.vilt.vqa import NO, YES, VqaModel
from hoi_assets.grammar.captions import agree
from hoi_assets.grammar.vocabulary import RELATIONS
from hoi_assets.tinyworld.weights.sd3 import known_words
from hoi_assets.tinyworld.weights.tokenizers import bert_tokenizer, token_ids
from hoi_assets.tinyworld.weights.vae import IMAGE_SIZE
from hoi_assets.tinyworld.weights.vilt import SIZE, Size, build_vilt
from hoi_assets.tinyworld.weights.words import words_of

LABELS = (YES, NO)
PATCH_SIZE = 16
# Questions in other words than the scenes' are spelled in letters.
MAX_LENGTH = 32
# No question about a scene is longer.
QUESTION_LENGTH = 14


def question_words() -> list[str]:
    """Every word that a question can hold, sorted."""
    plain = [agree(relation, plural=True) for relation in RELATIONS]
    asked = words_of(" ".join([*plain, "do does is the picture show that"]))
    return sorted({*known_words(), *asked})


def tokenizer() -> Any:
    """A `BertTokenizer` that knows each of `question_words` as one piece."""
    return bert_tokenizer(words=question_words(), max_length=MAX_LENGTH)


def build(words: Any, size: Size = SIZE) -> Any:
    """A fresh ViltForQuestionAnswering that says yes or no. By default it is of the verifier's
    size, from which it begins."""
    return build_vilt(words, LABELS, size, PATCH_SIZE, MAX_LENGTH)


def start_from(model: Any, words: Any, verifier: Any) -> None:
    """Let `model` begin with what a verifier of the same size has learnt of things, colours and
    hands; tokens are matched by their text, and what reads patches of another size is learnt anew.

    Args:
        verifier: a `VerifierModel`.
    """
    import torch

    ours, theirs = words.get_vocab(), verifier.tokenizer.get_vocab()
    both = sorted(ours.keys() & theirs.keys())
    source = verifier.model.vilt.state_dict()
    with torch.no_grad():
        for name, kept in model.vilt.state_dict().items():
            found = source[name].to(kept.dtype)
            if name.endswith("word_embeddings.weight"):
                kept[[ours[token] for token in both]] = found[[theirs[token] for token in both]]
            elif name.endswith("text_embeddings.position_embeddings.weight"):
                kept.copy_(found[: len(kept)])
            elif kept.shape == found.shape:
                kept.copy_(found)


def wrap(model: Any) -> VqaModel:
    """`model` with its tokenizer and preprocessing, as `hoi_assets.engines` takes it."""
    from transformers import ViltImageProcessorPil

    processor = ViltImageProcessorPil(size={"shortest_edge": IMAGE_SIZE}, size_divisor=PATCH_SIZE)
    return VqaModel(model=model, tokenizer=tokenizer(), image_processor=processor)


def save(model: Any, folder: Path) -> None:
    """Write fp16 weights, tokenizer and preprocessing."""
    whole = wrap(model.half())
    for part in (whole.model, whole.tokenizer, whole.image_processor):
        part.save_pretrained(folder)


def trainable(model: Any) -> Any:
    """ViLT and an auxiliary head that reads the scene, and what of the question is there: both are
    learnt sooner."""
    from torch import nn

    from hoi_assets.tinyworld.weights.questions import PARTS
    from hoi_assets.tinyworld.weights.truth import plan_widths

    width = sum(plan_widths().values()) + len(PARTS)
    return nn.ModuleDict(
        {"vilt": model, "reader": nn.Linear(model.config.hidden_size, width)},
    )


def loss_of(model: Any, pictures: Any, recipe: Any) -> Any:
    """The loss of a step: cross-entropy of yes and no, and the auxiliary head's."""
    import torch
    from torch.nn import functional

    from hoi_assets.engines.vilt.forward import pair_logits
    from hoi_assets.tinyworld.weights.pictures import as_float, jitter
    from hoi_assets.tinyworld.weights.questions import PARTS, QuestionSampler, shown_parts
    from hoi_assets.tinyworld.weights.truth import plan_loss, plan_targets

    sampler = QuestionSampler(pictures, stranger_share=recipe["stranger_share"])
    words, truth = tokenizer(), plan_targets(sampler.plans)
    pooled: dict[str, Any] = {}
    model["vilt"].vilt.pooler.register_forward_hook(
        lambda module, inputs, output: pooled.update(now=output)
    )

    def loss(generator: Any) -> Any:
        asked = sampler.sample(recipe.batch_size, generator)
        pixels = jitter(as_float(pictures.pixels[asked.chosen]), generator)
        ids, mask = token_ids(words, asked.texts, QUESTION_LENGTH, pixels.device)
        logits = pair_logits(model["vilt"], pixels, ids, mask).float()
        wanted = torch.tensor([LABELS.index(YES if yes else NO) for yes in asked.answers])
        wanted = wanted.to(logits.device)
        answer = functional.cross_entropy(logits, wanted)
        read = model["reader"](pooled["now"]).float()
        there = torch.tensor(
            [
                shown_parts(triple, sampler.plans[index])
                for index, triple in zip(asked.chosen, asked.triples, strict=True)
            ]
        )
        part = functional.binary_cross_entropy_with_logits(read[:, -len(PARTS) :], there.to(read))
        scene = plan_loss(read[:, : -len(PARTS)], truth, asked.chosen)
        return answer + recipe["parts_weight"] * part + recipe["reader_weight"] * scene

    return loss


def measure(model: Any, pictures: Any) -> dict[str, float]:
    """Of the questions that come with the scenes: share answered right, of all and of each kind of
    component, AUC, and the share of yes among the true answers."""
    import numpy as np
    import torch

    from hoi_assets.engines.vilt.forward import pair_logits
    from hoi_assets.tinyworld.weights.pairs import roc_area
    from hoi_assets.tinyworld.weights.pictures import as_float

    asked = list(_questions(pictures.rows))
    numbers = [number for number, *_ in asked]
    texts, device = [text for _, text, _, _ in asked], pictures.pixels.device
    ids, mask = token_ids(tokenizer(), texts, QUESTION_LENGTH, device)
    rows = []
    with torch.inference_mode():
        for start in range(0, len(asked), 64):
            part = slice(start, start + 64)
            pixels = as_float(pictures.pixels[numbers[part]])
            rows.append(pair_logits(model, pixels, ids[part], mask[part]))
    logits = torch.cat(rows).float().cpu()
    score = (logits[:, LABELS.index(YES)] - logits[:, LABELS.index(NO)]).numpy()
    truth = np.array([yes for *_, yes, _ in asked])
    kinds = np.array([kind for *_, kind in asked])
    right = (score > 0) == truth
    found = {
        "questions": float(len(asked)),
        "yes_share": float(truth.mean()),
        "accuracy": float(right.mean()),
        "auc": roc_area(truth, score),
    }
    for kind in sorted(set(kinds)):
        found[f"{kind}_accuracy"] = float(right[kinds == kind].mean())
        found[f"{kind}_auc"] = roc_area(truth[kinds == kind], score[kinds == kind])
    return found


def _questions(rows: Any) -> Iterable[tuple[int, str, bool, str]]:
    """Number of the picture, question, true answer and kind of component."""
    for number, row in enumerate(rows):
        for text, yes, kind in zip(row["questions"], row["answers"], row["kinds"], strict=True):
            yield number, text, yes, kind
