"""Streaming: a chunk an accepted segment, never earlier. A rejected segment is never seen."""

import asyncio

from langchain_stars import ChatStars

model = ChatStars(model="embedded", policy="default", max_tokens=48, seed=3)

for chunk in model.stream("Why is the sky blue?"):
    print(chunk.text, end="|", flush=True)
print()


async def main() -> None:
    """The same from async code, with what the answer cost."""
    async for chunk in model.astream("Name a river in Europe."):
        print(chunk.text, end="|", flush=True)
        if usage := chunk.usage_metadata:
            cost = chunk.response_metadata["stars_guard"]
            print(
                f"\nkept {usage['output_tokens']} of {cost['drawn']} generated tokens, {cost['rejections']} rejections"
            )


asyncio.run(main())
