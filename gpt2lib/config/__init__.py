"""Configurations: frozen dataclasses that refuse what cannot work.

A configuration is checked when it is made, so one that exists is one that can be used. Messages
name both numbers. `to_dict` and `from_dict` are exact inverses, in JSON as in YAML.
"""

from gpt2lib.config.model import IGNORE, SIZES, GPTConfig, MethodConfig
from gpt2lib.config.presets import PRESETS, load_config, preset_names, preset_path
from gpt2lib.config.training import DataConfig, OptimConfig, TrainConfig

__all__ = [
    "IGNORE",
    "PRESETS",
    "SIZES",
    "DataConfig",
    "GPTConfig",
    "MethodConfig",
    "OptimConfig",
    "TrainConfig",
    "load_config",
    "preset_names",
    "preset_path",
]
