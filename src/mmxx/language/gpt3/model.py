"""The model, which lies in `mmxx.nn` because other systems use it too."""

from mmxx.nn.gpt import GPT
from mmxx.nn.gpt_config import PRESETS, GPTConfig
from mmxx.nn.kv_cache import KVCache

__all__ = ["GPT", "PRESETS", "GPTConfig", "KVCache"]
