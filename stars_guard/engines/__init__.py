"""What runs models on this machine: threads, attention, vLLM processes and clients, embedded models."""

__all__: list[str] = []
