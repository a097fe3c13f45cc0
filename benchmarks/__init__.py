"""What stars-guard costs: ``python -m benchmarks`` measures and writes RESULTS.md."""
