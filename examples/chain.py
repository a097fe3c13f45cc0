"""A chain with the guarded model in the place of any other: nothing else changes."""

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate

from langchain_stars import ChatStars

model = ChatStars(model="embedded", policy="default", max_tokens=32, seed=1)
prompt = ChatPromptTemplate.from_messages([("system", "Answer in one sentence."), ("user", "What is {thing}?")])
chain = prompt | model | StrOutputParser()

print(chain.invoke({"thing": "a lighthouse"}))
for answer in chain.batch([{"thing": "bread"}, {"thing": "a bridge"}]):
    print("-", answer)
