"""Will a flight arrive more than 15 minutes late? What is known about it one hour before its planned departure."""

from __future__ import annotations

import math
from datetime import timedelta

from headrace import (
    Aggregation,
    Entity,
    FeatureService,
    FeatureView,
    Field,
    FileSource,
    Float64,
    Int64,
    OnDemandFeatureView,
    String,
    Timestamp,
    col,
)

airport = Entity("airport", join_keys=[Field("origin", String)], description="Where a flight departs: EWR, JFK or LGA.")
plane = Entity("plane", join_keys=[Field("tailnum", String)], description="One aircraft, by its tail number.")
carrier = Entity("carrier", join_keys=[Field("carrier", String)], description="An airline, by its two letters.")

# The main runways of all three airports point within some 20 degrees of north-east: one heading keeps this readable.
RUNWAY_HEADING_DEGREES = 40.0

# A flight is reported this long after it has departed and after it has landed, so a delay is not known earlier.
REPORTED_AFTER = timedelta(minutes=15)

weather = FeatureView(
    name="weather",
    entities=[airport],
    schema=[
        Field("temp", Float64),
        Field("dewp", Float64),
        Field("humid", Float64),
        Field("wind_dir", Float64),
        Field("wind_speed", Float64),
        Field("precip", Float64),
        Field("pressure", Float64),
        Field("visib", Float64),
    ],
    source=FileSource("data/weather.parquet", event_ts="time_hour"),
    ttl=timedelta(hours=3),
    description="The hourly weather at the airport.",
)

plane_register = FeatureView(
    name="plane",
    entities=[plane],
    schema=[Field("year_built", Int64), Field("engines", Int64), Field("seats", Int64)],
    source=FileSource("data/planes.parquet"),
    description="What the register says about the aircraft.",
)

carrier_delay = FeatureView(
    name="carrier_delay",
    entities=[carrier],
    schema=[
        Field("carrier_dep_delay", Float64),
        Field("carrier_arr_delay", Float64),
        Field("carrier_air_time", Float64),
        Field("carrier_distance", Float64),
    ],
    source=FileSource(
        "data/finished.parquet",
        event_ts="finished_at",
        available_after=REPORTED_AFTER,
        rename={
            "dep_delay": "carrier_dep_delay",
            "arr_delay": "carrier_arr_delay",
            "air_time": "carrier_air_time",
            "distance": "carrier_distance",
        },
    ),
    description="The last finished flight of the carrier: delays and air time in minutes, distance in miles.",
)

plane_delay = FeatureView(
    name="plane_delay",
    entities=[plane],
    schema=[
        Field("plane_dep_delay", Float64),
        Field("plane_arr_delay", Float64),
        Field("plane_air_time", Float64),
        Field("plane_distance", Float64),
        Field("plane_finished_at", Timestamp),
    ],
    source=FileSource(
        "data/finished.parquet",
        event_ts="finished_at",
        available_after=REPORTED_AFTER,
        rename={
            "dep_delay": "plane_dep_delay",
            "arr_delay": "plane_arr_delay",
            "air_time": "plane_air_time",
            "distance": "plane_distance",
            "finished_at": "plane_finished_at",
        },
    ),
    description="The last finished flight of the aircraft out of New York.",
)

# How late flights have departed over the last hour, six hours, week and month.
WINDOWS = [timedelta(hours=1), timedelta(hours=6), timedelta(days=7), timedelta(days=30)]
departures = FileSource("data/departed.parquet", event_ts="departed_at", available_after=REPORTED_AFTER)

carrier_departures = FeatureView(
    name="carrier_departures",
    entities=[carrier],
    schema=[Field("dep_delay", Float64)],
    source=departures,
    aggregations=[Aggregation("dep_delay", "mean", WINDOWS, name="carrier_departure_delay")],
    description="The mean delay of the carrier's departures from New York, in minutes.",
)

plane_departures = FeatureView(
    name="plane_departures",
    entities=[plane],
    schema=[Field("dep_delay", Float64)],
    source=departures,
    aggregations=[Aggregation("dep_delay", "mean", WINDOWS, name="plane_departure_delay")],
    description="The mean delay of the aircraft's departures from New York, in minutes.",
)

airport_departures = FeatureView(
    name="airport_departures",
    entities=[airport],
    schema=[Field("dep_delay", Float64)],
    source=departures,
    aggregations=[Aggregation("dep_delay", "mean", WINDOWS, name="airport_departure_delay")],
    description="The mean delay of the departures from the airport, in minutes.",
)

hour_angle = (col("planned_departure").dt.hour() + col("planned_departure").dt.minute() / 60) * (2 * math.pi / 24)
weekday_angle = col("planned_departure").dt.day_of_week() * (2 * math.pi / 7)

departure = OnDemandFeatureView(
    name="departure",
    inputs=[
        Field("planned_departure", Timestamp),
        weather[["wind_dir", "wind_speed"]],
        plane_register[["year_built"]],
        plane_delay[["plane_finished_at"]],
    ],
    schema=[
        Field("hour_sin", Float64, hour_angle.sin()),
        Field("hour_cos", Float64, hour_angle.cos()),
        Field("weekday_sin", Float64, weekday_angle.sin()),
        Field("weekday_cos", Float64, weekday_angle.cos()),
        Field(
            "crosswind", Float64, col("wind_speed") * (col("wind_dir") - RUNWAY_HEADING_DEGREES).radians().sin().abs()
        ),
        Field("plane_age_years", Float64, col("planned_departure").dt.year() - col("year_built")),
        Field(
            "plane_idle_hours",
            Float64,
            (col("planned_departure").dt.epoch_seconds() - col("plane_finished_at").dt.epoch_seconds()) / 3600,
        ),
    ],
    description="Computed when a prediction is asked for: the cycle of day and week, the wind across the runway, ages.",
)

departure_risk = FeatureService(
    name="departure_risk",
    features=[
        departure,
        weather,
        plane_register[["engines", "seats"]],
        carrier_delay,
        plane_delay[["plane_dep_delay", "plane_arr_delay", "plane_air_time", "plane_distance"]],
        carrier_departures,
        plane_departures,
        airport_departures,
    ],
    description="Everything that a model of late arrivals takes.",
)
