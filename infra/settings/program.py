"""The settings as Pulumi's program gets them. The only module that reads `pulumi.Config`."""

import os

import pulumi

from infra.settings.given import Given
from infra.settings.stack import Settings, read

# Set by `dify-kit restore` while it fills the databases.
DATA_TIER_ALONE = "DIFY_KIT_DATA_TIER_ALONE"


def data_tier_alone() -> bool:
    """Whether this run declares networks and the data tier, and nothing that reads the data."""
    return bool(os.environ.get(DATA_TIER_ALONE))


def load(config: pulumi.Config, stack: str) -> Settings:
    """Read and check the settings of `stack`.

    Raises pulumi.RunError with one line for each problem: key, value, what is wrong, what to do.
    """
    reading = read(_given(config), stack, conceal=pulumi.Output.secret)
    if reading.problems:
        raise pulumi.RunError(reading.message)
    for line in reading.warnings:
        pulumi.log.warn(line)
    return reading.settings


def _given(config: pulumi.Config) -> Given:
    every = {**pulumi.runtime.config.get_config_env(), **pulumi.runtime.config.CONFIG.get()}
    texts = {
        full.partition(":")[2]: text for full, text in every.items() if full.startswith(f"{config.name}:")
    }
    encrypted = [key for key in texts if pulumi.runtime.config.is_config_secret(f"{config.name}:{key}")]
    return Given.of(texts, encrypted)
