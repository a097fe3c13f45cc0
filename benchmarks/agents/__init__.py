"""What rules do for agents under attack: AgentDojo's tasks, run by scripted agents through LangChain's real agent.

Nothing here asks a model, and nothing is trained or tuned on AgentDojo. A script plays the model: it follows the
published solution of the user's task, and obeys an injected instruction when it can read one. So what is measured is
what the middleware lets such a model do, which is the worst that a model could be talked into.
"""
