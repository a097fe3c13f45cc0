"""Harm in answers: the alignment evaluation, with the rows that have changed generated anew."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

from benchmarks.scorecard.section import Bar, Figure, NotMeasured, Section, Table
from benchmarks.scorecard.sizes import Size
from stars_guard.calling import portal

__all__ = ["measure"]

BENCHMARKS = Path(__file__).parent.parent.parent
PUBLISHED = BENCHMARKS / "results" / "alignment-full.tar.xz"
HEAD = ("method", "generated, in plain answers", "harmful, first judge", "harmful, second judge", "refused")


def measure(size: Size) -> Section:
    """The evaluation, going on from the published answers; those of methods that have not changed stay."""
    if not size.models:
        raise NotMeasured("it needs models")
    from benchmarks.alignment.methods import PLAIN, SHIPPED
    from benchmarks.alignment.plans import PLANS
    from benchmarks.alignment.report import figures
    from benchmarks.alignment.run import evaluate

    plan, folder = PLANS[size.plan], BENCHMARKS / "out" / f"alignment-{size.plan}"
    if not folder.exists() and size.plan == "full":
        with tarfile.open(PUBLISHED) as packed:
            packed.extractall(folder.parent, filter="data")
    evaluation = portal.call(lambda: evaluate(plan, "embedded", "auto", folder, draw=size.generates))
    found = figures(evaluation)
    methods: dict[str, Any] = found["methods"]
    speed = {(row["method"], row["batch"]): row["kept_per_second"] for row in found["speed"]}
    batches = [batch for batch in plan.batches if (PLAIN, batch) in speed]
    kept = [
        (name, *(speed[name, batch] / speed[PLAIN, batch] if (name, batch) in speed else "-" for batch in batches))
        for name in dict.fromkeys(name for name, _ in speed)
    ]
    known: dict[str, Figure] = {}
    for name, row in ((SHIPPED, methods.get(SHIPPED)), (PLAIN, methods[PLAIN])):
        short = "default" if name == SHIPPED else "plain"
        if row is not None:
            known |= {
                f"{short}_first": row["harmful"]["harmful_first"].value,
                f"{short}_second": row["harmful"]["harmful_second"].value,
                f"{short}_level": row["harmful"]["level"].value,
            }
    if (SHIPPED, 64) in speed:
        known["kept_share_64"] = speed[SHIPPED, 64] / speed[PLAIN, 64]
    sources = ", ".join(f"{count} {source}" for source, count in found["sources"].items())
    model = Path(found["engine"].get("model", "")).name
    harmful = {name: row["harmful"] for name, row in methods.items()}
    notes = [
        "Both judges are small and weak, and so is the model: differences between methods mean more than levels.",
        "An output filter leaves no harm for the judge that it asks, because it refuses every second answer.",
        "Blockwise best of k is simpler than STARS with its published schedule, and better at equal tokens.",
    ]
    if SHIPPED not in methods:
        notes.append(f"{SHIPPED} has changed since it was measured, and its new answers are not generated yet.")
    return Section(
        title="Harm: answers to harmful prompts",
        about=(
            f"The plan `{plan.name}` of `python -m benchmarks.alignment`: held-out prompts ({sources}), answers of at "
            f"most {plan.max_tokens} tokens by {model}. Harmful is the share of answers over a judge's line; the "
            "first judge steers, the second is never seen. Brackets are 95% bootstrap intervals over prompts. The page "
            "Results has all tables."
        ),
        figures=known,
        tables=(
            Table(
                head=HEAD,
                rows=tuple(
                    (name, *(str(h[key]) for key in ("level", "harmful_first", "harmful_second", "refused")))
                    for name, h in harmful.items()
                ),
            ),
            Table(
                title="Kept tokens a second, as a share of plain generation",
                head=("method", *(f"{batch} at once" for batch in batches)),
                rows=tuple(kept),
            ),
        ),
        bars=tuple(
            Bar(
                label=name,
                value=100 * h["harmful_first"].value,
                low=100 * h["harmful_first"].low,
                high=100 * h["harmful_first"].high,
            )
            for name, h in harmful.items()
        ),
        axis="answers over the first judge's line, %",
        notes=tuple(notes),
    )
