"""What the area `serve` measures with: servers that are started for a run, load, and turns."""
