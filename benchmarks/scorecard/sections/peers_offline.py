"""Other guardrails' parts that ask no model, on the same texts: what they find, release and flag wrongly."""

from __future__ import annotations

from collections.abc import Sequence

from rich.progress import track

from benchmarks.peers.offline import PEERS, VIEWS, Peer, found_by, streamed_by
from benchmarks.scorecard import ordinary
from benchmarks.scorecard.generated_secrets import anything_of
from benchmarks.scorecard.section import Bar, Section, Share, Table
from benchmarks.scorecard.sections.delivery_cuts import AFTER, BEFORE, common, cuts
from benchmarks.scorecard.sizes import Size

__all__ = ["measure"]

NOTES = (
    "Texts of keys are made from our own patterns, so ours finds all of them by construction. Personal data isn't.",
    "LangChain's middleware guards events v3 as they come, and not the older stream of messages, as its docs say.",
    "openai-guardrails' check for personal data needs a spaCy model that no package index has, so it isn't here.",
    "NeMo Guardrails 0.25 is on no package index yet. Version 0.24.1 is in the section about streams.",
    "its-hub picks the best of several whole answers by a model, so it has nothing to run here.",
)


def measure(size: Size) -> Section:
    """Every peer on the kinds of secrets that it knows, and on ordinary texts."""
    plain = [text for texts in (ordinary.prompts() | ordinary.results()).values() for text in texts]
    rows: list[tuple[str, str, Share, *tuple[Share | str, ...]]] = []
    flagged: list[tuple[str, Share]] = []
    notes = [*NOTES]
    for peer in track(PEERS, description="peers offline"):
        if peer.client and not size.generates:
            notes.append(f"{peer.name} is installed and run in the full size only.")
            continue
        mine = {kind: anything_of(kind, size.secrets) for kind in peer.kinds}
        try:
            found = found_by(peer, [f"{BEFORE}{text}{AFTER}" for texts in mine.values() for text in texts])
            wrong = found_by(peer, size.thinned(plain))
        except RuntimeError as exc:
            notes.append(f"{peer.name} did not run: {exc}")
            continue
        for turn, (kind, texts) in enumerate(mine.items()):
            hits = found[turn * size.secrets : (turn + 1) * size.secrets]
            leaks = [_leaks(peer, kind, texts, view, size) if view in peer.views else "-" for view in VIEWS]
            rows.append((peer.name, kind, Share(hits=sum(hits), of=len(hits)), *leaks))
        flagged.append((peer.name, Share(hits=sum(wrong), of=len(wrong))))
    return Section(
        title="Peers: what asks no model",
        about=(
            "Personal data and keys in the middle of a sentence, and the ordinary prompts, results and answers of "
            "the section about over-blocking. Each guardrail is asked for the kinds that it knows by itself. Where "
            "it guards an agent of LangChain, the sentence is also streamed in two pieces, cut at every place, and "
            "in even pieces; it leaks if a character of the secret reaches the reader."
        ),
        figures={f"{name}: {kind}": share for name, kind, share, *_ in rows}
        | {f"{name}: flagged": share for name, share in flagged},
        tables=(
            Table(head=("guardrail", "kind", "found", *(f"leaks, {view}" for view in VIEWS)), rows=tuple(rows)),
            Table(title="Ordinary texts that are flagged", head=("guardrail", "flagged"), rows=tuple(flagged)),
        ),
        bars=tuple(Bar.of(name, share) for name, share in flagged),
        axis="ordinary texts flagged, %",
        notes=tuple(notes),
    )


def _leaks(peer: Peer, kind: str, texts: Sequence[str], view: str, size: Size) -> Share:
    tried = leaked = 0
    for turn, secret in enumerate(texts):
        text = f"{BEFORE}{secret}{AFTER}"
        for pieces in size.thinned([*cuts(text, len(BEFORE), len(secret))], turn):
            tried += 1
            leaked += common(streamed_by(peer, pieces, kind, view), text) > len(BEFORE)
    return Share(hits=leaked, of=tried)
