"""How long a model takes at each batch size, and what to make of it: `headrace profile`."""
