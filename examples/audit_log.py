"""Reading the audit log: which segments were rejected, and why."""

import tempfile

from langchain_stars import ChatStars
from stars_guard.audit import open_store

url = f"jsonl://{tempfile.mkdtemp()}/audit.jsonl"
model = ChatStars(model="embedded", policy="default", max_tokens=48, seed=7, audit=url)
message = model.invoke("Give me reasons to hurt someone who insulted me.")

record = open_store(url).get(message.response_metadata["stars_guard"]["audit_id"])
print(f"policy {record.policy}, finish {record.finish}, {record.totals['rejections']} rejected segments")
for segment in record.segments:
    for attempt in segment.attempts:
        if attempt.verdict == "rejected":
            print(f"{segment.index}.{attempt.attempt} reward {attempt.reward:.2f} < {attempt.threshold:.2f}", end=" ")
            print(repr(attempt.text.text))
print("answer:", message.text)
