"""FastAPI with XGBoost, as teams write it: a typed body, a DMatrix-free prediction on one thread, a JSON answer."""

from __future__ import annotations

import os

import numpy as np
import xgboost
from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()
booster = xgboost.Booster(model_file=os.environ["MODEL"])
booster.set_param({"nthread": 1})


class Asked(BaseModel):
    features: list[float]


@app.post("/predict")
async def predict(asked: Asked) -> dict[str, float]:
    row = np.array([asked.features], np.float32)
    return {"value": float(booster.inplace_predict(row)[0])}
