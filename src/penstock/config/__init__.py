"""The settings, and how they are read from files, the environment and flags.

Everything here is frozen, validated and free of side effects. `docs/configuration.md` is the page for users.
"""

from penstock.config.loading import NO_SETTINGS, Loaded, flag_name, load, load_model_config
from penstock.config.model_sections import (
    ModelBatching,
    ModelConfig,
    ModelRuntime,
    ModelSample,
    ModelSequence,
    PaddingConfig,
    effective_batching,
    effective_runtime,
)
from penstock.config.rendering import render
from penstock.config.sections import (
    BatchingConfig,
    CacheConfig,
    Config,
    LogConfig,
    RunnersConfig,
    RuntimeConfig,
    ServerConfig,
    TrialConfig,
)

__all__ = [
    "Config",
    "ServerConfig",
    "BatchingConfig",
    "RuntimeConfig",
    "RunnersConfig",
    "CacheConfig",
    "LogConfig",
    "TrialConfig",
    "ModelConfig",
    "ModelBatching",
    "ModelRuntime",
    "ModelSample",
    "ModelSequence",
    "PaddingConfig",
    "effective_batching",
    "effective_runtime",
    "NO_SETTINGS",
    "Loaded",
    "flag_name",
    "load",
    "load_model_config",
    "render",
]
