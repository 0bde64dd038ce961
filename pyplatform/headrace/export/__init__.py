"""From a trained model to what a model version needs: the file, its description, and golden rows.

```python
from headrace.export import export_xgboost

exported = export_xgboost(booster, "model.ubj", golden=rows)
exported.format, exported.task, exported.labels  # for the manifest
exported.golden  # rows with the margins and scores that the library gave them
```

The file is the training library's own native form, or safetensors where it has none (scikit-learn); never a pickle. An
exported model predicts as the library's `predict` does by default: early stopping's best iteration is honoured where
the library honours it. The training libraries are imported by the function that needs them, and only then.
"""

from headrace.export.catboost import export_catboost
from headrace.export.exported import ExportedModel, GoldenRows
from headrace.export.lightgbm import export_lightgbm
from headrace.export.numba_function import export_numba_function
from headrace.export.onnx import export_onnx
from headrace.export.onnx_tensors import export_onnx_tensors
from headrace.export.python_class import export_python_class
from headrace.export.sklearn import export_sklearn
from headrace.export.xgboost import export_xgboost

__all__ = [
    "ExportedModel",
    "GoldenRows",
    "export_catboost",
    "export_lightgbm",
    "export_numba_function",
    "export_onnx",
    "export_onnx_tensors",
    "export_python_class",
    "export_sklearn",
    "export_xgboost",
]
