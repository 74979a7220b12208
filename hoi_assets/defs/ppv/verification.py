"""From labelled pairs to verdicts: train the verifier, then accept or reject every candidate."""

import polars as pl

from hoi_assets.publishing.stage import Image, Result, Table, Work, stage
from hoi_assets.store.versions import Staging

GROUP = "prompt_propose_verify"


@stage(
    "verifier_training_pairs",
    deps=["base_prompt_taxonomy"],
    code_version="1",
    recipe=["hoi_assets/ppv/verifier_pairs.py", "hoi_assets/engines/sdxl/img2img.py"],
    settings=["verifier", "sampling"],
    models=["base"],
    inputs=lambda work: {"labels": _labels_digest(work)},
    group=GROUP,
    description="Pictures with a prompt and two labels, fidelity and alignment: renders with known "
    "truth, shown plain and as the generator shows them, or people's labels.",
)
def verifier_training_pairs(work: Work, out: Staging) -> Result:
    from hoi_assets.pictures import contact_sheet, to_webp
    from hoi_assets.ppv.verifier_pairs import labelled_pairs

    table = labelled_pairs(work.store, work.settings, work.taxonomy, work.log)
    out.write_table("rows", table)
    shown = table.sample(n=min(24, table.height), seed=0)
    labels = [
        ("whole" if row["fidelity"] else "faulty") + ", " + ("true" if row["alignment"] else "lie")
        for row in shown.iter_rows(named=True)
    ]
    sheet = contact_sheet([work.store.images.open(pixels) for pixels in shown["pixels"]], labels)
    counts = table.group_by("split", "fidelity", "alignment").len().sort(pl.all())
    return Result(
        metadata={
            "pairs": table.height,
            "counts": Table(counts.to_dicts()),
            "contact_sheet": Image(to_webp(sheet), "image/webp"),
        }
    )


def _labels_digest(work: Work) -> str:
    from hoi_assets.ppv.verifier_pairs import labels_digest

    return labels_digest(work.settings)


@stage(
    "verifier",
    deps=["verifier_training_pairs"],
    code_version="2",
    recipe=[
        "hoi_assets/ppv/verifier_training.py",
        "hoi_assets/engines/vilt/training.py",
        "hoi_assets/engines/vilt/calibration.py",
        "hoi_assets/engines/vilt/verifier.py",
        "hoi_assets/engines/batching.py",
    ],
    settings=["verifier"],
    models=["verifier"],
    group=GROUP,
    description="ViLT with a fidelity and an alignment head; thresholds chosen on the validation "
    "split for a stated precision, calibrated, measured on scenes it never saw.",
)
def verifier(work: Work, out: Staging) -> Result:
    from hoi_assets.pictures import loss_curve, reliability_diagram
    from hoi_assets.ppv.verifier_training import train_calibrated_verifier

    fitted = train_calibrated_verifier(
        work.store, work.settings, work.parent("verifier_training_pairs").table("rows"), work.log
    )
    out.add_folder("model", fitted.folder)
    out.write_table("log", fitted.log)
    out.write_table("quality", fitted.quality)
    out.write_table("reliability", fitted.reliability)
    out.write_table("summary", fitted.summary)
    return Result(
        metadata={
            **fitted.summary.row(0, named=True),
            "reliability": Image(reliability_diagram(fitted.reliability), "image/png"),
            "loss_curve": Image(loss_curve(fitted.log), "image/png"),
            "quality": Table(fitted.quality.to_dicts()),
        }
    )


@stage(
    "verified_pairs",
    partitions="hand_pose",
    deps=["candidate_images", "verifier"],
    code_version="1",
    recipe=["hoi_assets/engines/vilt/verifier.py", "hoi_assets/ppv/verdicts.py"],
    settings=["candidates"],
    group=GROUP,
    description="One verdict per candidate: accepted, or rejected with the reason and both "
    "probabilities. Nothing vanishes.",
)
def verified_pairs(work: Work, out: Staging) -> Result:
    from hoi_assets.pictures import contact_sheet, to_webp
    from hoi_assets.ppv.verdicts import summarise_verdicts, verify_candidates

    table = verify_candidates(
        work.store,
        work.settings,
        work.parent("candidate_images").table("rows"),
        work.parent("verifier"),
        work.log,
    )
    summary = summarise_verdicts(table, work.category, work.settings.candidates.accepted_goal)
    out.write_table("rows", table)
    out.write_table("summary", summary)
    work.record("image_id", table)
    shown = table.filter(pl.col("pixels").is_not_null()).sort("p_pair", descending=True).head(36)
    sheet = contact_sheet(
        [work.store.images.open(pixels) for pixels in shown["pixels"]],
        [row["reason"] or "accepted" for row in shown.iter_rows(named=True)],
        good=[status == "accepted" for status in shown["status"]],
    )
    reasons = table.group_by("status", "reason").len().sort("len", descending=True)
    return Result(
        metadata={
            **{k: v for k, v in summary.row(0, named=True).items() if v is not None},
            "reasons": Table(reasons.to_dicts()),
            "contact_sheet": Image(to_webp(sheet), "image/webp"),
        }
    )
