"""AgentDojo's suites, their attacks, and their tools as LangChain's tools."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from types import ModuleType
from typing import Any, ClassVar

import yaml
from langchain_core.tools import BaseTool, StructuredTool, ToolException

__all__ = ["ATTACKS", "VERSION", "Trace", "attack_of", "suites", "tools_of"]

VERSION = "v1.2.2"
ATTACKS = (
    "direct",
    "ignore_previous",
    "system_message",
    "injecagent",
    "important_instructions",
    "important_instructions_no_names",
    "important_instructions_wrong_user_name",
    "tool_knowledge",
)
"""The package's attacks with different texts. Those of denial of service ask for no call, so rules have no part."""

_CLIENTS = ("anthropic", "cohere", "google", "openai")


class _AnyName(type):
    """The type of names that stand for a client's classes; each has all attributes."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _AnyName(name, (), {})


class _Client(ModuleType):
    """Stands for a client of a model's maker, which the package imports and this benchmark never calls."""

    __path__: ClassVar[list[str]] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _AnyName(name, (), {})


class _Clients:
    """Finds what is below a stand-in too."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> Any:
        if name.partition(".")[0] in _missing() or name.startswith("google."):
            return importlib.util.spec_from_loader(name, _Clients)  # type: ignore[arg-type]
        return None

    @staticmethod
    def create_module(spec: Any) -> ModuleType:
        return _Client(spec.name)

    @staticmethod
    def exec_module(module: ModuleType) -> None:
        pass


@cache
def _missing() -> frozenset[str]:
    return frozenset(name for name in _CLIENTS if importlib.util.find_spec(name) is None)


@cache
def suites() -> dict[str, Any]:
    """AgentDojo's suites by name.

    Raises:
        ImportError: the package isn't installed; ``pip install --no-deps agentdojo==0.1.35`` and deepdiff.
    """
    _missing()
    sys.meta_path.append(_Clients)  # type: ignore[arg-type]
    # two thirds of a run's time were reading the environments' YAML in pure Python
    yaml.SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # type: ignore[misc]
    from agentdojo.task_suite.load_suites import get_suites

    return dict(get_suites(VERSION))


@dataclass
class Trace:
    """What has been done to a suite's environment."""

    environment: Any
    calls: list[Any] = field(default_factory=list)


def tools_of(suite: Any, trace: Trace) -> list[BaseTool]:
    """The suite's tools, which work on the environment of ``trace`` and note each call there."""
    from agentdojo.functions_runtime import FunctionsRuntime

    runtime = FunctionsRuntime(suite.tools)
    return [_tool(function, runtime, trace) for function in suite.tools]


def _tool(function: Any, runtime: Any, trace: Trace) -> BaseTool:
    from agentdojo.agent_pipeline.tool_execution import tool_result_to_str
    from agentdojo.functions_runtime import FunctionCall

    def run(**arguments: Any) -> str:
        result, error = runtime.run_function(trace.environment, function.name, arguments)
        trace.calls.append(FunctionCall(function=function.name, args=arguments))
        if error:
            raise ToolException(error)
        return str(tool_result_to_str(result))

    return StructuredTool(
        name=function.name,
        description=function.description,
        args_schema=function.parameters.model_json_schema(),
        func=run,
        handle_tool_error=True,
    )


def attack_of(name: str, suite: Any) -> Any:
    """One of the package's attacks on a suite."""
    from agentdojo.agent_pipeline.ground_truth_pipeline import GroundTruthPipeline
    from agentdojo.attacks import load_attack

    target = GroundTruthPipeline(None)
    target.name = "gpt-4o-2024-05-13"  # attacks that address the model need one that they know
    return load_attack(name, suite, target)


def pairs(suite: Any) -> Iterator[tuple[Any, Any]]:
    """Each user task with each injected task."""
    for user_task in suite.user_tasks.values():
        for injected in suite.injection_tasks.values():
            yield user_task, injected
