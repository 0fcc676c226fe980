"""Tasks of others, asked of a model by their own harness, and what training had read of them."""
