"""The settings: what there is to set, and how it is read from files, the environment and flags.

Everything here is frozen, validated and free of side effects. `docs/configuration.md` is the user's
side of it.
"""

from penstock.config.loading import Loaded, flag_name, load, load_model_config
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
    Config,
    LogConfig,
    RunnersConfig,
    RuntimeConfig,
    ServerConfig,
)

__all__ = [
    "Config",
    "ServerConfig",
    "BatchingConfig",
    "RuntimeConfig",
    "RunnersConfig",
    "LogConfig",
    "ModelConfig",
    "ModelBatching",
    "ModelRuntime",
    "ModelSample",
    "ModelSequence",
    "PaddingConfig",
    "effective_batching",
    "effective_runtime",
    "Loaded",
    "flag_name",
    "load",
    "load_model_config",
    "render",
]
