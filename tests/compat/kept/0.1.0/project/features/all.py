
from datetime import timedelta

from headrace import *

airport = Entity("airport", join_keys=[Field("origin", String)])
flight = Entity("flight", join_keys=[Field("carrier", String), Field("number", Int64)])
weather = FeatureView(
    "weather",
    [airport],
    [Field("temp", Float64), Field("wind_dir", Float32), Field("kinds", List(String)), Field("seen", Timestamp)],
    FileSource("data/weather.parquet", event_ts="time_hour"),
    ttl=timedelta(hours=2),
)
gate = FeatureView(
    "gate",
    [flight],
    [Field("open", Bool), Field("crew", String), Field("seats", Int16), Field("code", Bytes), Field("big", Int64)],
    PushSource(event_ts="at"),
)
departure = OnDemandFeatureView(
    "departure",
    inputs=[Field("planned", Timestamp), weather],
    schema=[Field("hour", Int64, col("planned").dt.hour()), Field("tail", Float64, col("temp") * 2.0)],
)
everything = FeatureService("everything", [weather, gate])
late = FeatureService("late", [weather[["temp"]], departure])
