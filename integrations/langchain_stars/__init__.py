"""stars-guard for LangChain."""

from langchain_stars.chat_model import ChatStars

__all__ = ["ChatStars"]
