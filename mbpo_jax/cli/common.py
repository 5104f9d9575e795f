"""What several verbs need."""

PROGRAM = "mbpo-jax"


def set_up_compilation_cache(enabled: bool = True) -> None:
    """Keep compiled programs between processes, or not."""
    import jax

    from mbpo_jax.training import devices

    jax.config.update("jax_enable_compilation_cache", enabled)
    if enabled:
        devices.use_compilation_cache(devices.default_cache_directory())
