"""From labelled pairs to verdicts: train the verifier, then accept or reject every candidate."""

from typing import Any

import polars as pl

from hoi_assets.defs.groups import OWNERS, PPV
from hoi_assets.defs.partitions import hand_pose
from hoi_assets.defs.sheets import image_sheet
from hoi_assets.defs.suites import (
    ACCEPTED,
    CUT_TEXTS,
    FAILED_SHARE,
    ONE_CATEGORY,
    SOUND_WEIGHTS,
    STORED_PICTURES,
    no_blank,
)
from hoi_assets.engines.vilt.calibration import VERIFIER_QUALITY, VERIFIER_RELIABILITY
from hoi_assets.engines.vilt.decision import blames_fidelity, verdict_label
from hoi_assets.ppv.manual_labels import LABELLED
from hoi_assets.ppv.signals import SIGNAL_QUALITY, SIGNAL_VALUES
from hoi_assets.ppv.verdicts import VERDICT_ROWS, VERDICT_SUMMARY
from hoi_assets.ppv.verifier_pairs import VERIFIER_PAIR_ROWS
from hoi_assets.ppv.verifier_training import VERIFIER_LOG, VERIFIER_SUMMARY
from hoi_assets.publishing.asset import GPU_POOL, published_asset
from hoi_assets.publishing.context import Result, StageContext
from hoi_assets.publishing.expectations import (
    between,
    in_set,
    measure,
    not_null,
    row_count,
    suite,
    unexpected_rows,
    unique,
)
from hoi_assets.publishing.metadata import Image, Markdown, Table
from hoi_assets.settings import Settings
from hoi_assets.store.versions import Staging

SHOWN_PAIRS, SHOWN_VERDICTS = 24, 36

TRAINING_PAIRS_SUITE = suite(
    rows=[
        row_count(1),
        unique("pair_id"),
        not_null("pixels", "prompt", "fidelity", "alignment"),
        in_set("split", ["train", "validation", "test"]),
        measure("splits", "count(distinct split)", 3, 3),
        # Both answers of both heads, or there is nothing to learn.
        measure("whole_share", "avg(case when fidelity then 1.0 else 0.0 end)", 0.05, 0.95),
        measure("aligned_share", "avg(case when alignment then 1.0 else 0.0 end)", 0.05, 0.95),
        # A scene in two splits is counted twice on the left.
        measure(
            "scenes_in_two_splits",
            "count(distinct concat(scene_id, ' ', split)) - count(distinct scene_id)",
            max_value=0,
        ),
        no_blank("prompt"),
        measure(
            "calibrated_on_your_pictures",
            f"avg(case when shown_as = '{LABELLED}' then 1.0 else 0.0 end)",
            "${gates.min_labelled_share}",
            blocking=False,
        ),
    ],
    contents=[STORED_PICTURES],
)


@published_asset(
    deps=["base_prompt_taxonomy"],
    group_name=PPV,
    owners=OWNERS,
    kinds={"pytorch", "diffusers"},
    pool=GPU_POOL,
    code_version="2",
    suite=TRAINING_PAIRS_SUITE,
    tables=[VERIFIER_PAIR_ROWS],
    settings=["verifier", "sampling"],
    models=["base"],
    external_inputs=lambda context: {"labels": _labels_digest(context)},
)
def verifier_training_pairs(context: StageContext, staging: Staging) -> Result:
    """Images with a prompt and two labels, fidelity and alignment: renders with known truth, shown
    plain and as the generator shows them, or people's labels."""
    from hoi_assets.ppv.verifier_pairs import labelled_pairs

    table = labelled_pairs(context.store, context.settings, context.taxonomy, context.log)
    staging.write_table("rows", table)
    shown = table.sample(n=min(SHOWN_PAIRS, table.height), seed=0)
    labels = [
        ("whole" if row["fidelity"] else "faulty")
        + ", "
        + ("true" if row["alignment"] else "false caption")
        for row in shown.iter_rows(named=True)
    ]
    sheet = image_sheet(context.store, shown["pixels"], labels)
    counts = table.group_by("split", "fidelity", "alignment").len().sort(pl.all())
    return Result(
        metadata={
            "pairs": table.height,
            "counts": Table(counts.to_dicts()),
            "contact_sheet": sheet,
        }
    )


def _labels_digest(context: StageContext) -> str:
    from hoi_assets.ppv.verifier_pairs import labels_digest

    return labels_digest(context.settings)


VERIFIER_SUITE = suite(
    summary=[
        row_count(1, 1),
        between("auc_fidelity", "${gates.min_auc_fidelity}", 1),
        between("auc_alignment", "${gates.min_auc_alignment}", 1),
        between("threshold_fidelity", 0, 1),
        between("threshold_alignment", 0, 1),
        between("test_pairs", 1),
        measure(
            "target_precision_met",
            "avg(case when target_met and precision >= target_precision then 1.0 else 0.0 end)",
            1,
            blocking=False,
        ),
    ],
    quality=[
        row_count(1),
        # One that tells nothing apart verifies nothing, whatever its curve.
        measure(
            "accepted_share",
            "1.0 * sum(case when slice_kind = 'all' and head = 'pair' then accepted end)"
            " / sum(case when slice_kind = 'all' and head = 'pair' then n end)",
            "${gates.min_accepted_share}",
            "${gates.max_accepted_share}",
        ),
    ],
    reliability=[row_count(1)],
    contents=[SOUND_WEIGHTS],
)


@published_asset(
    deps=["verifier_training_pairs"],
    group_name=PPV,
    owners=OWNERS,
    kinds={"pytorch", "transformers"},
    pool=GPU_POOL,
    code_version="3",
    suite=VERIFIER_SUITE,
    tables=[VERIFIER_SUMMARY, VERIFIER_QUALITY, VERIFIER_RELIABILITY, VERIFIER_LOG],
    settings=["verifier"],
    models=["verifier"],
)
def verifier(context: StageContext, staging: Staging) -> Result:
    """ViLT with a fidelity and an alignment head; thresholds chosen on the validation split for a
    stated precision, calibrated, measured on scenes it never saw."""
    from hoi_assets.charts import loss_curve, reliability_diagram
    from hoi_assets.engines.vilt.verifier_statement import target_met_on_test, verifier_statement
    from hoi_assets.ppv.verifier_training import (
        calibration_note,
        fresh_heads_note,
        train_calibrated_verifier,
    )

    pairs = context.parent("verifier_training_pairs").table("rows")
    trained = train_calibrated_verifier(context.store, context.settings, pairs, context.log)
    staging.add_folder("model", trained.folder)
    staging.write_table("log", trained.log)
    staging.write_table("quality", trained.quality)
    staging.write_table("reliability", trained.reliability)
    staging.write_table("summary", trained.summary)
    summary = trained.summary.row(0, named=True)
    notes = {
        "heads": fresh_heads_note(context.settings),
        "calibration": calibration_note(context.settings),
    }
    return Result(
        metadata={
            **{name: note for name, note in notes.items() if note is not None},
            "what_it_can_tell": Markdown(verifier_statement(summary, trained.quality)),
            **{name: value for name, value in summary.items() if name != "target_met"},
            # The target met on one split alone says little.
            "target_met_on_validation": summary["target_met"],
            "target_met_on_test": target_met_on_test(summary, trained.quality),
            "reliability": Image(reliability_diagram(trained.reliability), "image/png"),
            "loss_curve": Image(loss_curve(trained.log), "image/png"),
            "quality": Table(trained.quality.to_dicts()),
        }
    )


def has_signals(settings: Settings) -> bool:
    """Whether a signal beside the verifier is set."""
    return settings.anatomy is not None or settings.landmarks is not None


VERIFIED_PAIRS_SUITE = suite(
    rows=[
        row_count(1),
        unique("image_id"),
        not_null("image_id", "prompt", "verifier_version"),
        in_set("status", ["accepted", "rejected", "failed"]),
        ONE_CATEGORY,
        between("p_fidelity", 0, 1, nullable=True),
        between("p_alignment", 0, 1, nullable=True),
        between("defect_share", 0, 1, nullable=True),
        unexpected_rows(
            "judged_without_probability",
            "status <> 'failed' and (p_fidelity is null or p_alignment is null"
            " or p_fidelity = cast('nan' as double) or p_alignment = cast('nan' as double))",
        ),
        unexpected_rows("dropped_without_reason", "status <> 'accepted' and reason is null"),
        FAILED_SHARE,
        CUT_TEXTS,
        measure("accepted_pairs", ACCEPTED, "${gates.min_accepted_per_category}"),
    ],
    summary=[row_count(1, 1)],
    contents=[STORED_PICTURES],
)


@published_asset(
    partitions_def=hand_pose,
    deps=["candidate_images", "verifier"],
    # Signals are measured against the labels before they may reject.
    deps_when={"verifier_training_pairs": has_signals},
    group_name=PPV,
    owners=OWNERS,
    kinds={"pytorch", "transformers"},
    pool=GPU_POOL,
    code_version="2",
    suite=VERIFIED_PAIRS_SUITE,
    tables=[VERDICT_ROWS, VERDICT_SUMMARY, SIGNAL_VALUES, SIGNAL_QUALITY],
    settings=["candidates", "anatomy", "landmarks"],
)
def verified_pairs(context: StageContext, staging: Staging) -> Result:
    """One verdict per candidate: accepted, or rejected with the reason and both probabilities, and
    what further signals say where they are set. Nothing vanishes."""
    from hoi_assets.ppv.chosen_signals import chosen_signals
    from hoi_assets.ppv.signals import apply_signals, describe_signals
    from hoi_assets.ppv.verdicts import summarise_verdicts, verify_candidates
    from hoi_assets.ppv.verifier_training import calibration_note

    table = verify_candidates(
        context.store,
        context.settings,
        context.parent("candidate_images").table("rows"),
        context.parent("verifier"),
        context.log,
    )
    said: dict[str, Any] = {}
    if note := calibration_note(context.settings):
        said["calibration"] = note
    if signals := chosen_signals(context.store, context.settings, context.log):
        labelled = context.parent("verifier_training_pairs").table("rows")
        judged = apply_signals(signals, table, labelled, context.log)
        table = judged.verdicts
        staging.write_table("signals", judged.values)
        staging.write_table("signal_quality", judged.quality)
        said["signals"] = Markdown(describe_signals(judged.quality))
    goal = context.settings.candidates.accepted_goal
    summary = summarise_verdicts(table, context.partition_key, goal)
    staging.write_table("rows", table)
    staging.write_table("summary", summary)
    context.record("image_id", table)
    shown = table.filter(pl.col("pixels").is_not_null())
    shown = shown.sort("p_pair", descending=True).head(SHOWN_VERDICTS)
    sheet = image_sheet(
        context.store,
        shown["pixels"],
        [
            verdict_label(row["status"], row["reason"], row["defect_kind"])
            for row in shown.iter_rows(named=True)
        ],
        maps=[
            row["defect_map"] if blames_fidelity(row["reason"]) else None
            for row in shown.iter_rows(named=True)
        ],
        good=[status == "accepted" for status in shown["status"]],
    )
    reasons = table.group_by("status", "reason").len().sort("len", descending=True)
    return Result(
        metadata={
            **{k: v for k, v in summary.row(0, named=True).items() if v is not None},
            "reasons": Table(reasons.to_dicts()),
            **said,
            "contact_sheet": sheet,
        }
    )
