"""Parts for stars-guard that stars-guard knows nothing of."""
