"""Other guardrails, run and not quoted: ``python -m benchmarks peers.compare``."""
