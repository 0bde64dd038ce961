"""Content hashes, `sha256:<hex>`: computed by the engine only, so that every part gives a thing the same name."""

from __future__ import annotations

from headrace._native import canonical_json, digest_bytes, digest_file, digest_json

__all__ = ["canonical_json", "digest_bytes", "digest_file", "digest_json"]
