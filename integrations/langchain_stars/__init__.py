"""stars-guard for LangChain."""

from langchain_stars.audit import get_audit
from langchain_stars.chat_model import ChatStars

__all__ = ["ChatStars", "get_audit"]
