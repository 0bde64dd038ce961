"""The protobuf messages of `core/protocol/proto`, made at run time from their descriptors.

`descriptors.bin` is what the server's build makes of the same files, 24 KB. No generated code has to fit the version of
protobuf that is installed, and a pool of their own keeps the messages apart from those of other clients in the process,
which define the Open Inference Protocol, too. `core/protocol/src/grpc/tests.rs` compares the file with the build.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

DESCRIPTORS = Path(__file__).with_name("descriptors.bin")


@cache
def _pool() -> descriptor_pool.DescriptorPool:
    files = descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTORS.read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:  # a file stands behind those that it imports
        pool.AddSerializedFile(file.SerializeToString())
    return pool


@cache
def message(name: str) -> Any:
    """The class of a message, for example `headrace.v1.PredictRequest`."""
    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(name))
