"""From a conversation to token ids and back: chat templates, tool calls, guard formats, detokenising."""

__all__: list[str] = []
