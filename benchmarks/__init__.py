"""Speed of mbpo_jax against the machine's limit and against other libraries."""
