"""The words of content blocks and messages: which keys hold what a reader sees, and what only programs read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, get_args, get_type_hints

from langchain_core.messages import content
from langchain_core.messages.ai import InputTokenDetails, OutputTokenDetails, UsageMetadata

__all__ = [
    "BESIDE",
    "BESIDE_FIELDS",
    "DATA",
    "DECLARED",
    "KNOWN_TYPES",
    "READ_FIELDS",
    "THOUGHTS",
    "is_usual",
    "without_numbers",
]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _block_classes() -> list[Any]:
    return [kind for kind in vars(content).values() if hasattr(kind, "__required_keys__")]


DECLARED = frozenset(key for kind in _block_classes() for key in kind.__annotations__) | frozenset(
    ("source", "summary", "thinking", "image_url", "input_audio", "data", "media_type", "format", "input", "content")
)
"""The keys that a block may have by its type. Other keys are delivered as text is, and read."""

KNOWN_TYPES = frozenset(
    name for kind in _block_classes() for name in get_args(get_type_hints(kind).get("type")) if isinstance(name, str)
) | _words(
    "input_text output_text summary_text thinking redacted_thinking tool_use tool_result document image_url "
    "input_audio input_image input_file media base64 url json function_call function_call_output search_result "
    "guard_content "
    "server_tool_use web_search_tool_result web_search_result function custom_tool_call ephemeral"
)
"""The values of ``type`` that say nothing but what kind of block it is."""

BESIDE = _words(
    "id index status mime_type media_type format file_id tool_call_id tool_use_id call_id signature encrypted_content "
    "encrypted_index thought_signature cache_control detail extras"
)
"""The keys of a block that a reader does not see."""

DATA = frozenset(("base64", "data", "url", "image_url", "file_data"))
"""The keys whose string may be base64 or a ``data:`` URL."""

THOUGHTS = ("reasoning_content", "reasoning", "thinking", "refusal", "audio", "citations", "annotations")
"""The keys of ``additional_kwargs`` that people read."""

READ_FIELDS = _words(
    "content additional_kwargs response_metadata type tool_calls invalid_tool_calls artifact usage_metadata"
)
"""The fields of a message that are read in ways of their own."""

BESIDE_FIELDS = ("id", "name", "role", "status", "tool_call_id", "tool_call_chunks", "chunk_position", "example")
"""The fields of a message that a reader does not see. Any other field counts as text."""

_USAGE = frozenset(
    key for kind in (UsageMetadata, InputTokenDetails, OutputTokenDetails) for key in get_type_hints(kind)
)

_USUAL = _USAGE | _words(
    "stop length tool_calls function_call content_filter end_turn max_tokens stop_sequence tool_use eos refused budget "
    "success error last tool_call function text default auto low high standard "
    "messages graph update resume goto __parent__ "
    "user assistant system tool human ai developer "
    "STOP MAX_TOKENS model_provider model_name finish_reason "
    "text/plain application/json application/pdf image/png image/jpeg image/gif image/webp audio/wav audio/mpeg "
    "audio/mp3 video/mp4 wav mp3"
)
_NO_WORDS = re.compile(
    r"(?:lc_|stars-guard-)?(?:run-?-?)?[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?:-\d+)?"  # ids that LangChain makes
    r"|-?\d{1,6}(?:\.\d+)?(?:e-?\d+)?|1\d{9}(?:\.\d+)?"  # numbers, seconds since 1970
    r"|\d{4}-\d\d-\d\d(?:[T ][\d:.]+(?:Z|[+-][\d:]+)?)?"
    r"|true|false|[A-Za-z0-9]{1,2}"
)


def is_usual(text: str) -> bool:
    """Whether a string says no more than programs say to each other about every message: a role, a UUID, a number."""
    return text in _USUAL or _NO_WORDS.fullmatch(text) is not None


def without_numbers(content: Any) -> Any:
    """Content without the numbers that a stream gives to its blocks."""
    if not isinstance(content, list):
        return content
    return [
        {key: item for key, item in block.items() if key != "index" or not is_usual(str(item))}
        if isinstance(block, Mapping)
        else block
        for block in content
    ]
