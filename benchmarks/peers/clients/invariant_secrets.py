"""invariant-ai: its detector of secrets, by patterns, as it comes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from invariant.analyzer.runtime.utils.secrets import SecretsAnalyzer

texts = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
found = [bool(SecretsAnalyzer().detect_all(text)) for text in texts]
Path(sys.argv[2]).write_text(json.dumps(found), encoding="utf-8")
