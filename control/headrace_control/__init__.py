"""The control plane of headrace: projects, training, the demo and the `headrace` command."""
