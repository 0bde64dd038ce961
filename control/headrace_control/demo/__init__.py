"""The main job on real data, step by step: what `headrace demo` runs."""
