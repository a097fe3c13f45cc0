"""The scorecard: ``python -m benchmarks.scorecard`` measures what the product claims and writes one page about it."""
