"""What others have published about AgentDojo, to stand beside our numbers."""

__all__ = ["PUBLISHED"]

PUBLISHED = """## Published numbers of others

None of these compares directly: models differ, and a model that isn't persuaded helps the numbers of its guard. Scripted
agents are persuaded by everything that they read.

| who | what they say | source |
| --- | --- | --- |
| Microsoft's Agent Governance Toolkit | scripted AgentDojo, banking: attack success 1.0 without and 0.0 with it; benign utility 0.8 and 0.8; utility under attack 0.0 | its repository, read in November 2026 |
| Progent | attack success 0% on AgentDojo | arXiv 2504.11703v2 |
| Progent, measured by others | attack success 25.8% without, 4.2% with it, 2.6% under an adaptive attack (Qwen2.5-7B) | arXiv 2606.26479 |
| twelve defences that were tested with adaptive attacks | broken at over 90% | cited in arXiv 2606.26479 |
| two firewalls at the tools | 0%, or the lowest that is possible, on AgentDojo; its authors show how to get around it | arXiv 2510.05244 |
"""  # noqa: E501
