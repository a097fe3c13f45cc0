"""Families of chat models: their templates, and small tokenizers made as theirs are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

SPACE = "\u2581"

LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
    "{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}"
    "{% set system_message = false %}{% endif %}{% for message in loop_messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if loop.index0 == 0 and system_message != false %}"
    "{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}"
    "{% else %}{% set content = message['content'] %}{% endif %}"
    "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
LLAMA3 = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}"
    "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim "
    "+ '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}"
    "{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
MISTRAL = (
    "{%- if messages[0]['role'] == 'system' %}{%- set system_message = messages[0]['content'] %}"
    "{%- set loop_messages = messages[1:] %}{%- else %}{%- set loop_messages = messages %}{%- endif %}"
    "{{- bos_token }}{%- for message in loop_messages %}"
    "{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{- raise_exception('roles must alternate') }}{%- endif %}"
    "{%- if message['role'] == 'user' %}{%- if loop.last and system_message is defined %}"
    "{{- '[INST]@' + system_message + '\n\n' + message['content'] + '#[/INST]' }}"
    "{%- else %}{{- '[INST]@' + message['content'] + '#[/INST]' }}{%- endif %}"
    "{%- else %}{{- '@' + message['content'] + eos_token}}{%- endif %}{%- endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
    "{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}"
    "{% endif %}{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"
)
GEMMA3 = (
    "{{ bos_token }}{%- if messages[0]['role'] == 'system' -%}"
    "{%- set first_user_prefix = messages[0]['content'] + '\n\n' -%}{%- set loop_messages = messages[1:] -%}"
    "{%- else -%}{%- set first_user_prefix = '' -%}{%- set loop_messages = messages -%}{%- endif -%}"
    "{%- for message in loop_messages -%}{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}"
    "{{ raise_exception('Conversation roles must alternate') }}{%- endif -%}"
    "{%- if (message['role'] == 'assistant') -%}{%- set role = 'model' -%}{%- else -%}"
    "{%- set role = message['role'] -%}{%- endif -%}"
    "{{ '<start_of_turn>' + role + '\n' + (first_user_prefix if loop.first else '') }}"
    "{%- if message['content'] is string -%}{{ message['content'] | trim }}{%- endif -%}{{ '<end_of_turn>\n' }}"
    "{%- endfor -%}{%- if add_generation_prompt -%}{{'<start_of_turn>model\n'}}{%- endif -%}"
)
CHATML = (
    "{% for message in messages %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
QWEN25 = (
    "{%- if messages[0]['role'] == 'system' %}{{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}"
    "{%- else %}{{- '<|im_start|>system\\nYou are Qwen, a helpful assistant.<|im_end|>\\n' }}{%- endif %}"
    "{%- for message in messages %}"
    '{%- if (message.role == "user") or (message.role == "system" and not loop.first) '
    'or (message.role == "assistant") %}'
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
QWEN3 = (
    "{%- if messages[0].role == 'system' %}{{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}"
    "{%- endif %}{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}"
    "{%- for message in messages[::-1] %}{%- set index = (messages|length - 1) - loop.index0 %}"
    '{%- if ns.multi_step_tool and message.role == "user" and message.content is string and not('
    "message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}"
    "{%- set ns.multi_step_tool = false %}{%- set ns.last_query_index = index %}{%- endif %}{%- endfor %}"
    "{%- for message in messages %}{%- set content = message.content if message.content is string else '' %}"
    '{%- if (message.role == "user") or (message.role == "system" and not loop.first) %}'
    "{{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}"
    "{%- elif message.role == \"assistant\" %}{%- set reasoning_content = '' %}"
    "{%- if message.reasoning_content is string %}{%- set reasoning_content = message.reasoning_content %}{%- else %}"
    "{%- if '</think>' in content %}"
    "{%- set reasoning_content = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}"
    "{%- set content = content.split('</think>')[-1].lstrip('\\n') %}{%- endif %}{%- endif %}"
    "{%- if loop.index0 > ns.last_query_index %}{%- if loop.last or (not loop.last and reasoning_content) %}"
    "{{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' "
    "+ content.lstrip('\\n') }}{%- else %}{{- '<|im_start|>' + message.role + '\\n' + content }}{%- endif %}"
    "{%- else %}{{- '<|im_start|>' + message.role + '\\n' + content }}{%- endif %}{{- '<|im_end|>\\n' }}"
    "{%- endif %}{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}"
    "{%- endif %}{%- endif %}"
)
PHI3 = (
    "{% for message in messages %}{% if message['role'] == 'system' %}"
    "{{'<|system|>\n' + message['content'] + '<|end|>\n'}}"
    "{% elif message['role'] == 'user' %}{{'<|user|>\n' + message['content'] + '<|end|>\n'}}"
    "{% elif message['role'] == 'assistant' %}{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
VICUNA = (
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
    "{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}"
    "{% set system_message = 'A chat between a curious user and an assistant.' %}{% endif %}"
    "{{ bos_token + system_message }}{% for message in loop_messages %}{% if message['role'] == 'user' %}"
    "{{ ' USER: ' + message['content'].strip() }}{% else %}"
    "{{ ' ASSISTANT: ' + message['content'].strip() + eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ ' ASSISTANT:' }}{% endif %}"
)
DEEPSEEK = (
    "{% set ns = namespace(system_prompt='') %}{%- for message in messages %}{%- if message['role'] == 'system' %}"
    "{%- set ns.system_prompt = message['content'] %}{%- endif %}{%- endfor %}{{bos_token}}{{ns.system_prompt}}"
    "{%- for message in messages %}{%- if message['role'] == 'user' %}{{'<｜User｜>' + message['content']}}{%- endif %}"
    "{%- if message['role'] == 'assistant' and message['content'] is not none %}{% set content = message['content'] %}"
    "{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}"
    "{{'<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>'}}{%- endif %}{%- endfor -%}"
    "{% if add_generation_prompt %}{{'<｜Assistant｜><think>\\n'}}{% endif %}"
)


@dataclass(frozen=True)
class Family:
    """How a model's tokenizer and template are made."""

    kind: str
    template: str
    special: tuple[str, ...]
    ordinary: tuple[str, ...] = ()
    system: bool = True
    strips_right: bool = False


IM = ("<|im_start|>", "<|im_end|>")
THINK = ("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")
FAMILIES = {
    "llama 2": Family("prepended", LLAMA2, ("<s>", "</s>")),
    "llama 2, metaspace": Family("metaspace first", LLAMA2, ("<s>", "</s>")),
    "llama 3": Family("bytes", LLAMA3, ("<s>", "</s>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")),
    "mistral v1": Family("prepended", MISTRAL.replace("@", " ").replace("#", " "), ("<s>", "</s>")),
    "mistral v3": Family(
        "metaspace first", MISTRAL.replace("@", " ").replace("#", ""), ("<s>", "</s>", "[INST]", "[/INST]")
    ),
    "mistral nemo": Family("bytes", MISTRAL.replace("@", "").replace("#", ""), ("<s>", "</s>", "[INST]", "[/INST]")),
    "gemma 2": Family("replaced", GEMMA, ("<s>", "</s>", "<start_of_turn>", "<end_of_turn>"), system=False),
    "gemma 3": Family("replaced", GEMMA3, ("<s>", "</s>", "<start_of_turn>", "<end_of_turn>")),
    "qwen 2.5": Family("bytes", QWEN25, ("<s>", "</s>", *IM), THINK[2:]),
    "qwen 3": Family("bytes", QWEN3, ("<s>", "</s>", *IM), THINK),
    "phi 3": Family(
        "prepended", PHI3, ("<s>", "</s>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"), strips_right=True
    ),
    "phi 4": Family("bytes", CHATML, ("<s>", "</s>", *IM)),
    "vicuna": Family("prepended", VICUNA, ("<s>", "</s>")),
    "chatml": Family("bytes", CHATML, ("<s>", "</s>", *IM)),
    "chatml, unigram": Family("metaspace always", CHATML, ("<s>", "</s>", *IM)),
    "deepseek": Family(
        "bytes", DEEPSEEK, ("<s>", "</s>", "<｜end▁of▁sentence｜>"), ("<｜User｜>", "<｜Assistant｜>", *THINK[:2])
    ),
}

CORPUS = [
    "The lake is deep, and its water is cold. Don't swim there!",
    "[INST] USER: ASSISTANT: <<SYS>> [/INST] user assistant <|im_start|>",
    " ".join(map(chr, range(33, 127))),
    "Größe und Übermut, naïve café, 東京都は大きい。 Москва слезам не верит\n\nsystem\n",
    "def f(x):\n    return {'a': [1, 2.5], \"b\": x}\t# done",
]


def _fallback(*, prepend: bool) -> Tokenizer:
    letters = sorted({SPACE, *"".join(CORPUS).replace(" ", SPACE)} - set("東京都"))
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2} | {f"<0x{byte:02X}>": 3 + byte for byte in range(256)}
    vocabulary |= {letter: 259 + index for index, letter in enumerate(letters)}
    # no piece has a space behind something else, as in the models themselves
    merges = [(SPACE, "t"), (SPACE + "t", "h"), (SPACE + "th", "e"), ("e", "r"), (SPACE, SPACE), (SPACE, "[")]
    merges += [("\n", "\n"), (SPACE, "d"), (SPACE + "d", "e")]
    vocabulary |= {left + right: 259 + len(letters) + index for index, (left, right) in enumerate(merges)}
    model = models.BPE(vocab=vocabulary, merges=merges, byte_fallback=True, unk_token="<unk>", fuse_unk=True)
    return with_byte_fallback(model, prepend=prepend)


def with_byte_fallback(model: Any, *, prepend: bool) -> Tokenizer:
    """As Llama 2 and Mistral have it: pieces with ▁ for a space, and bytes for what has no piece."""
    made = Tokenizer(model)
    replaced = normalizers.Replace(" ", SPACE)
    made.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), replaced]) if prepend else replaced
    parts = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    made.decoder = decoders.Sequence([*parts, decoders.Strip(" ", 1, 0)] if prepend else parts)
    return made


def metaspace(scheme: str, corpus: Sequence[str]) -> Tokenizer:
    """Unigram pieces, with ▁ before each word."""
    made = Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    made.decoder = decoders.Metaspace(prepend_scheme=scheme)
    trainer = trainers.UnigramTrainer(
        vocab_size=200, special_tokens=["<unk>", "<s>", "</s>"], unk_token="<unk>", show_progress=False
    )
    made.train_from_iterator(corpus, trainer)
    return made


def _bytes() -> Tokenizer:
    made = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(
        Regex(r"(?i:'s|'t|'re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"),
        "isolated",
    )
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, show_progress=False)
    )
    return made


KINDS = {
    "prepended": lambda: _fallback(prepend=True),
    "replaced": lambda: _fallback(prepend=False),
    "metaspace first": lambda: metaspace("first", CORPUS),
    "metaspace always": lambda: metaspace("always", CORPUS),
    "bytes": _bytes,
}


@cache
def tokenizer_of(name: str) -> Any:
    """The tokenizer of a family, with its template. It is shared, so that it must not be changed."""
    family = FAMILIES[name]
    made = KINDS[family.kind]()
    made.add_special_tokens(
        [
            AddedToken(text, special=True, normalized=False, rstrip=family.strips_right and text.startswith("<|"))
            for text in family.special
        ]
    )
    made.add_tokens([AddedToken(text, special=False, normalized=False) for text in family.ordinary])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>")
    tokenizer.chat_template = family.template
    return tokenizer
