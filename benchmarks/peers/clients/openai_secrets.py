"""openai-guardrails: its check for secret keys, by patterns and entropy, as it comes."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from guardrails.checks.text.secret_keys import SecretKeysCfg, secret_keys

texts = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
found = [asyncio.run(secret_keys(None, text, SecretKeysCfg())).tripwire_triggered for text in texts]
Path(sys.argv[2]).write_text(json.dumps(found), encoding="utf-8")
