"""From another provider to stars-guard: one line of the chain changes. And what to do where it cannot change."""

from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate

from langchain_stars import ChatStars, guard_runnable

prompt = ChatPromptTemplate.from_template("Name one {thing}.")

# Before. The fake stands for any provider's model, so that this runs without a network.
provider = GenericFakeChatModel(messages=iter(["A heron.", "My key is AKIAABCDEFGHIJKLMNOP.", "An otter."]))
before = prompt | provider | StrOutputParser()
print("before:", before.invoke({"thing": "animal"}))

# After: the model is ours, and each segment is judged while it is written.
after = prompt | ChatStars(model="embedded", policy="default", max_tokens=16, seed=1) | StrOutputParser()
print("after:", after.invoke({"thing": "animal"}))

# Where the model has to stay: rails around the chain. Its second answer holds a key, and is asked for again.
guarded = guard_runnable(before, policy="default", attempts=4, audit="memory://")
print("guarded:", guarded.invoke({"thing": "animal"}))
