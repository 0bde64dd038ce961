"""Ask a headrace server from Python, over HTTP or gRPC, blocking or with asyncio.

```python
with headrace.Client("http://127.0.0.1:8000") as client:
    answer = client.predict("departure_risk", entities={"origin": ["JFK"]}, timeout=0.2)
    print(answer.predictions[0].label)
```

What both transports and both clients share is a `Call`: a request that is made anew for each attempt, and a function
that reads its answer. `http_calls` and `grpc_calls` make them, `http_transport` and `grpc_transport` carry them,
`attempts` decides what is tried again. The compiled engine is not used here.
"""

from __future__ import annotations

from headrace.client.asynchronous import AsyncClient
from headrace.client.attempts import Retries
from headrace.client.options import Tls
from headrace.client.results import (
    Deployment,
    Explanation,
    Features,
    FieldInfo,
    ModelMetadata,
    Prediction,
    Predictions,
    ServerMetadata,
    TensorInfo,
    Tensors,
    WriteCounts,
)
from headrace.client.synchronous import Client

__all__ = [
    "AsyncClient",
    "Client",
    "Deployment",
    "Explanation",
    "Features",
    "FieldInfo",
    "ModelMetadata",
    "Prediction",
    "Predictions",
    "Retries",
    "ServerMetadata",
    "TensorInfo",
    "Tensors",
    "Tls",
    "WriteCounts",
]
