"""Training: from a `[[dataset]]` and a `[[model]]` of headrace.toml to a registered model version."""
