"""Defects by stage: what spoils a healthy version, and the expectation that must catch it."""

from dataclasses import dataclass

import polars as pl

from proofs.spoiling import (
    Spoil,
    alternate_splits,
    by_sql,
    delete,
    each_of,
    every,
    explode,
    first_row,
    no_row,
    not_a_number,
    not_stored,
    one_picture,
    truncate,
    twice,
    weights,
    zero,
)
from proofs.spoiling import (
    table as T,
)


@dataclass(frozen=True)
class Defect:
    """One defect.

    Attributes:
        asset: whose version is spoiled.
        what: the defect, for people.
        caught_by: part of the name of a broken expectation, or of the column it is about.
        spoil: changes the files of a staged copy.
    """

    asset: str
    what: str
    caught_by: str
    spoil: Spoil


NAN, INFINITE = float("nan"), float("inf")
LORA = "lora/*.safetensors"

_LISTED = (
    # taxonomy
    Defect("base_prompt_taxonomy", "no category", "row_count", T("categories", no_row)),
    Defect("base_prompt_taxonomy", "categories twice", "unique", T("categories", twice)),
    Defect("base_prompt_taxonomy", "three hands", "hands", T("categories", first_row("hands", 3))),
    Defect(
        "base_prompt_taxonomy", "blank prompt", "blank_text", T("prompts", first_row("text", " "))
    ),
    Defect("base_prompt_taxonomy", "unknown kind", "kind", T("prompts", first_row("kind", "x"))),
    # captions
    Defect("detailed_prompts", "no row", "accepted_prompts", T("rows", no_row)),
    Defect(
        "detailed_prompts", "one prompt for all", "repeated", T("rows", every("prompt", "a hand"))
    ),
    Defect(
        "detailed_prompts", "empty caption", "without_text", T("rows", first_row("prompt", " "))
    ),
    Defect(
        "detailed_prompts", "of two categories", "categories", T("rows", first_row("category", "x"))
    ),
    Defect("detailed_prompts", "off-category", "partition", T("rows", every("category", "x"))),
    Defect("detailed_prompts", "all failed", "failed_share", T("rows", every("status", "failed"))),
    Defect("detailed_prompts", "rows twice", "unique", T("rows", twice)),
    Defect("detailed_prompts", "table truncated", "gate", truncate("rows.parquet")),
    Defect("detailed_prompts", "table missing", "rows", delete("rows.parquet")),
    # instance images
    Defect(
        "instance_images", "one picture for all", "distinct", T("rows", every("pixels", "0" * 64))
    ),
    Defect("instance_images", "no picture", "without_pixels", T("rows", every("pixels", None))),
    Defect("instance_images", "another category's", "partition", T("rows", every("category", "x"))),
    Defect(
        "instance_images",
        "pictures not stored",
        "stored",
        T("rows", not_stored),
    ),
    # LoRAs
    Defect("category_loras", "loss NaN", "last_loss", T("summary", every("last_loss", NAN))),
    Defect("category_loras", "loss exploding", "last_loss", T("summary", every("last_loss", 1e9))),
    Defect(
        "category_loras", "loss infinite in the log", "loss", T("log", first_row("loss", INFINITE))
    ),
    Defect("category_loras", "zero weights", "zero", weights(LORA, zero)),
    Defect("category_loras", "NaN weights", "finite", weights(LORA, not_a_number)),
    Defect("category_loras", "exploding weights", "largest", weights(LORA, explode)),
    Defect(
        "category_loras",
        "weights truncated",
        "readable",
        truncate("lora/pytorch_lora_weights.safetensors"),
    ),
    Defect(
        "category_loras",
        "weights missing",
        "weights",
        delete("lora/pytorch_lora_weights.safetensors"),
    ),
    Defect(
        "category_loras",
        "trained on no picture",
        "instance_images",
        T("summary", every("instance_images", 0)),
    ),
    # candidates
    Defect("candidate_images", "blank", "flat_share", T("rows", every("pixel_std", 0.0))),
    Defect("candidate_images", "contrast NaN", "flat_share", T("rows", every("pixel_std", NAN))),
    Defect(
        "candidate_images",
        "all the same",
        "repeated_pixels",
        T("rows", one_picture),
    ),
    Defect("candidate_images", "wrong size", "width", T("rows", first_row("width", 64))),
    Defect("candidate_images", "not stored", "stored", T("rows", not_stored)),
    Defect(
        "candidate_images",
        "drawn but no picture",
        "without_pixels",
        T("rows", first_row("pixels", None)),
    ),
    Defect("candidate_images", "all failed", "failed_share", T("rows", every("status", "failed"))),
    Defect(
        "candidate_images", "another category's", "partition", T("rows", every("category", "x"))
    ),
    Defect("candidate_images", "empty captions", "blank_prompt", T("rows", every("prompt", " "))),
    Defect(
        "candidate_images", "every caption cut", "mostly_cut", T("rows", every("prompt_cut", True))
    ),
    # verifier
    Defect(
        "verifier_training_pairs",
        "class collapse: all whole",
        "whole_share",
        T("rows", every("fidelity", True)),
    ),
    Defect(
        "verifier_training_pairs",
        "class collapse: none aligned",
        "aligned_share",
        T("rows", every("alignment", False)),
    ),
    Defect(
        "verifier_training_pairs",
        "no test split",
        "splits",
        T("rows", lambda t: t.filter(pl.col("split") != "test")),
    ),
    Defect(
        "verifier_training_pairs",
        "train/test leak",
        "two_splits",
        T("rows", every("scene_id", "one")),
    ),
    Defect(
        "verifier_training_pairs", "blank captions", "blank_prompt", T("rows", every("prompt", ""))
    ),
    Defect(
        "verifier",
        "no better than chance",
        "auc_alignment",
        T("summary", every("auc_alignment", 0.5)),
    ),
    Defect("verifier", "quality unknown", "auc_fidelity", T("summary", every("auc_fidelity", NAN))),
    Defect("verifier", "accepts all", "accepted_share", T("quality", by_sql("accepted", "n"))),
    Defect("verifier", "accepts none", "accepted_share", T("quality", every("accepted", 0))),
    Defect(
        "verifier",
        "threshold out of range",
        "threshold_alignment",
        T("summary", every("threshold_alignment", 7.0)),
    ),
    Defect("verifier", "NaN weights", "finite", weights("model/*.safetensors", not_a_number)),
    Defect("verifier", "weights truncated", "readable", truncate("model/model.safetensors")),
    # verdicts
    Defect(
        "verified_pairs",
        "none accepted",
        "accepted_pairs",
        T("rows", each_of(every("status", "rejected"), every("reason", "fidelity: x"))),
    ),
    Defect(
        "verified_pairs",
        "probability over 1",
        "p_alignment",
        T("rows", first_row("p_alignment", 1.5)),
    ),
    Defect(
        "verified_pairs", "probability NaN", "probability", T("rows", every("p_alignment", NAN))
    ),
    Defect(
        "verified_pairs",
        "dropped without reason",
        "without_reason",
        T("rows", each_of(first_row("status", "rejected"), first_row("reason", None))),
    ),
    Defect("verified_pairs", "a verdict twice", "unique", T("rows", twice)),
    Defect("verified_pairs", "another category's", "partition", T("rows", every("category", "x"))),
    # data set and model
    Defect(
        "hoi_dataset",
        "train/test leak",
        "two_splits",
        T(
            "rows",
            each_of(
                every("base_prompt_id", "one"),
                alternate_splits,
            ),
        ),
    ),
    Defect(
        "hoi_dataset",
        "pictures repeated",
        "repeated",
        T("rows", one_picture),
    ),
    Defect("hoi_dataset", "too small", "accepted_pairs", T("rows", lambda t: t.head(1))),
    Defect("hoi_dataset", "in no split", "outside_splits", T("rows", first_row("split", None))),
    Defect("hoi_dataset", "pictures not stored", "stored", T("rows", not_stored)),
    Defect(
        "finetuned_model",
        "loss NaN",
        "best_validation_loss",
        T("summary", every("best_validation_loss", NAN)),
    ),
    Defect("finetuned_model", "NaN weights", "finite", weights(LORA, not_a_number)),
    Defect(
        "finetuned_model", "trained on nothing", "train_rows", T("summary", every("train_rows", 0))
    ),
    # evaluation
    Defect(
        "hoi_evaluation_images",
        "a method missing",
        "methods",
        T("rows", lambda t: t.filter(pl.col("method") != "finetuned")),
    ),
    Defect("hoi_evaluation_images", "blank", "flat_share", T("rows", every("pixel_std", 0.0))),
    Defect(
        "hoi_evaluation_images",
        "drawn but no picture",
        "without_pixels",
        T("rows", first_row("pixels", None)),
    ),
    Defect(
        "hoi_evaluation_images",
        "another category's",
        "partition",
        T("rows", every("category", "x")),
    ),
    Defect("hoi_scorecards", "scores NaN", "missing_share", T("scores", every("value", NAN))),
    Defect(
        "hoi_scorecards",
        "scores infinite",
        "out_of_range",
        T("scores", first_row("value", INFINITE)),
    ),
    Defect(
        "hoi_scorecards",
        "scores out of range",
        "out_of_range",
        T("scores", by_sql("value", "case when metric = 'clip_score' then 7.0 else value end")),
    ),
    Defect(
        "hoi_scorecards",
        "mean outside its interval",
        "outside_interval",
        T("scorecard", by_sql("mean", "ci_high + 1")),
    ),
    Defect(
        "hoi_scorecards",
        "a slice missing",
        "slices",
        T("scorecard", lambda t: t.filter(pl.col("slice_kind") != "category")),
    ),
    Defect(
        "hoi_scorecards",
        "a method missing",
        "methods",
        T("scorecard", lambda t: t.filter(pl.col("method") != "finetuned")),
    ),
    Defect("hoi_scorecards", "p out of range", "p", T("comparisons", every("p", 2.0))),
    # DetailScribe
    Defect(
        "interacting_prompts",
        "no usable prompt",
        "usable_prompts",
        T("rows", every("status", "failed")),
    ),
    Defect(
        "interacting_prompts", "blank prompt", "without_prompt", T("rows", first_row("prompt", ""))
    ),
    Defect(
        "interacting_prompts", "another scenario's", "partition", T("rows", every("scenario", "x"))
    ),
    Defect("interaction_decompositions", "no component", "row_count", T("components", no_row)),
    Defect(
        "interaction_decompositions",
        "blank question",
        "blank_question",
        T("components", first_row("question", "")),
    ),
    Defect(
        "interaction_decompositions",
        "a question NULL",
        "question",
        T("components", first_row("question", None)),
    ),
    Defect("initial_images", "blank", "flat_share", T("rows", every("pixel_std", 0.0))),
    Defect(
        "initial_images",
        "all the same",
        "repeated_pixels",
        T("rows", one_picture),
    ),
    Defect("initial_images", "not stored", "stored", T("rows", not_stored)),
    Defect(
        "image_critiques",
        "prompt rewritten",
        "not_verbatim",
        T("rows", every("corrected_prompt", "a cat")),
    ),
    Defect(
        "image_critiques",
        "confidence over 1",
        "confidence",
        T("findings", first_row("confidence", 2.0)),
    ),
    Defect(
        "refined_images", "nothing chosen", "nothing_chosen", T("rows", every("selected", False))
    ),
    Defect("refined_images", "all chosen", "chosen_twice", T("rows", every("selected", True))),
    Defect(
        "refined_images",
        "a method missing",
        "methods",
        T("rows", lambda t: t.filter(pl.col("method") != "craft")),
    ),
    Defect(
        "refined_images",
        "free of cost",
        "without_evaluations",
        T("rows", every("denoiser_evaluations", 0)),
    ),
    Defect("baseline_images", "another scenario's", "partition", T("rows", every("scenario", "x"))),
    Defect("baseline_images", "wrong size", "width", T("rows", first_row("width", 64))),
    Defect(
        "interacting_scorecards",
        "scores missing",
        "missing_share",
        T("scores", every("value", None)),
    ),
    Defect(
        "interacting_scorecards",
        "a method missing",
        "methods",
        T("scorecard", lambda t: t.filter(pl.col("method") != "detailscribe")),
    ),
    # report
    Defect(
        "evaluation_report",
        "needs a network",
        "external_references",
        T("summary", every("external_references", 3)),
    ),
    Defect("evaluation_report", "no picture", "pictures", T("summary", every("pictures", 0))),
    Defect("evaluation_report", "page missing", "page", delete("report.html")),
)
DEFECTS = {f"{one.asset}: {one.what}": one for one in _LISTED}
assert len(DEFECTS) == len(_LISTED)
