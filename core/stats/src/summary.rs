//! What is known about one column.

use headrace_types::{DType, Error, ErrorCode, Result, ScalarType, Value};
use serde_json::{Value as Json, json};

use crate::bytes::{Reader, put_varint};
use crate::numbers::{Number, look};
use crate::quantile::Scratch;
use crate::top::Counts;
use crate::{DistinctSketch, Moments, QuantileSketch, TopValues};

const FORMAT: u8 = 1;
const NAME: &str = "column summary";
/// The parts of the histogram that a summary shows.
pub const HISTOGRAM_BINS: usize = 20;
const QUANTILES: [(&str, f64); 7] =
    [("p01", 0.01), ("p05", 0.05), ("p25", 0.25), ("p50", 0.5), ("p75", 0.75), ("p95", 0.95), ("p99", 0.99)];
const SHOWN_VALUES: usize = 10;

/// Counts, range, mean, variance, quantiles, distinct and frequent values of one column, gathered in one pass; mergeable.
///
/// Of strings, bytes and lists, the numbers (range, mean, quantiles) are of their lengths, in bytes or elements. Of timestamps they are
/// microseconds UTC, of bools 0 and 1. Integers beyond 2^53 are rounded to float64 there, not in what is counted. Infinite values
/// are in the range and the quantiles, not in mean and variance.
#[derive(Debug, Clone, PartialEq)]
pub struct ColumnSummary {
    /// `None` for a type that headrace does not have, of which only rows and nulls are counted.
    dtype: Option<DType>,
    rows: u64,
    nulls: u64,
    nans: u64,
    moments: Moments,
    quantiles: QuantileSketch,
    distinct: DistinctSketch,
    top: TopValues,
}

impl ColumnSummary {
    pub fn new(dtype: Option<DType>) -> Self {
        let is_float = matches!(dtype, Some(DType::Scalar(ScalarType::Float32 | ScalarType::Float64)));
        Self {
            dtype,
            rows: 0,
            nulls: 0,
            nans: 0,
            moments: Moments::default(),
            quantiles: QuantileSketch::new(),
            distinct: DistinctSketch::new(),
            top: TopValues::new(!is_float),
        }
    }

    pub fn dtype(&self) -> Option<DType> {
        self.dtype
    }

    /// Rows, nulls included.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    pub fn nulls(&self) -> u64 {
        self.nulls
    }

    pub fn nans(&self) -> u64 {
        self.nans
    }

    pub fn moments(&self) -> &Moments {
        &self.moments
    }

    pub fn quantiles(&self) -> &QuantileSketch {
        &self.quantiles
    }

    pub fn distinct(&self) -> &DistinctSketch {
        &self.distinct
    }

    pub fn top(&self) -> &TopValues {
        &self.top
    }

    pub(crate) fn add_rows(&mut self, rows: usize, nulls: usize) {
        self.rows = self.rows.saturating_add(rows as u64);
        self.nulls = self.nulls.saturating_add(nulls as u64);
    }

    /// Adds the values that are not null, as numbers.
    pub(crate) fn add_numbers<T: Number>(&mut self, numbers: &[T], scratch: &mut Scratch) {
        let seen = look(numbers);
        self.nans = self.nans.saturating_add(self.quantiles.add_numbers(numbers, &seen, scratch));
        self.moments.merge(&Moments::of_seen(numbers, &seen));
    }

    /// Adds the hashes of values that are not null, at most [`PART_VALUES`](crate::top::PART_VALUES) of them; `value_at` gives a
    /// value to show by its place among them.
    pub(crate) fn add_hashes(&mut self, hashes: &[u64], value_at: impl Fn(usize) -> Value, counts: &mut Counts) {
        let distinct = self.top.add(hashes, value_at, counts);
        self.distinct.add_hashes(distinct.unwrap_or(hashes));
    }

    /// Adds what another summary has seen.
    ///
    /// # Errors
    /// `type_mismatch` when the columns are of different types.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        if self.dtype != other.dtype {
            let name = |dtype: Option<DType>| dtype.map_or("another type".to_owned(), |dtype| dtype.to_string());
            return Err(Error::new(
                ErrorCode::TypeMismatch,
                format!("a summary of {} cannot take over one of {}", name(self.dtype), name(other.dtype)),
                "merge summaries of one type",
            ));
        }
        self.rows = self.rows.saturating_add(other.rows);
        self.nulls = self.nulls.saturating_add(other.nulls);
        self.nans = self.nans.saturating_add(other.nans);
        self.moments.merge(&other.moments);
        self.quantiles.merge(&other.quantiles);
        self.distinct.merge(&other.distinct);
        self.top.merge(&other.top);
        Ok(())
    }

    /// What the numbers of the summary are: `value`, `time_us`, `bytes` or `elements`.
    fn measures(&self) -> &'static str {
        match self.dtype {
            Some(DType::List(_)) => "elements",
            Some(DType::Scalar(ScalarType::String | ScalarType::Bytes)) => "bytes",
            Some(DType::Scalar(ScalarType::Timestamp)) => "time_us",
            _ => "value",
        }
    }

    /// For people and programs: counts, `min`, `max`, `mean`, `std`, `quantiles`, `distinct`, the most frequent values, `histogram`.
    /// Of times there are no quantiles and no histogram: 1/128 of the time since 1970 is months.
    /// Infinite numbers are the strings `inf` and `-inf`; what is not known is null.
    pub fn to_json(&self) -> Json {
        let optional = |value: Option<f64>| value.map_or(Json::Null, number);
        let has_values = self.moments.count > 0;
        let is_time = self.measures() == "time_us";
        let quantile = |q: f64| optional(self.quantiles.quantile(q).filter(|_| !is_time));
        let quantiles: serde_json::Map<String, Json> =
            QUANTILES.iter().map(|(name, q)| ((*name).to_owned(), quantile(*q))).collect();
        let top = self.top.values().map(|values| {
            let listed = values.into_iter().take(SHOWN_VALUES);
            listed.map(|(value, count)| json!({"value": shown(value), "count": count})).collect::<Vec<_>>()
        });
        let is_list = matches!(self.dtype, Some(DType::List(_)) | None);
        json!({
            "dtype": self.dtype.map(|dtype| dtype.to_string()),
            "measures": self.measures(),
            "rows": self.rows,
            "nulls": self.nulls,
            "nans": self.nans,
            "min": optional(self.quantiles.min()),
            "max": optional(self.quantiles.max()),
            "mean": optional(has_values.then_some(self.moments.mean)),
            "std": optional(self.moments.variance().map(f64::sqrt)),
            "quantiles": quantiles,
            "distinct": if is_list { Json::Null } else { json!(self.distinct.estimate().round() as u64) },
            "distinct_is_exact": self.distinct.is_exact(),
            "top": if is_list { None } else { top },
            "top_error_max": self.top.error_max(),
            "histogram": if is_time { Json::Null } else { self.histogram() },
        })
    }

    fn histogram(&self) -> Json {
        let Some((low, high)) = self.quantiles.finite_range() else { return Json::Null };
        let counts = self.quantiles.histogram(low, high, HISTOGRAM_BINS);
        json!({"low": number(low), "high": number(high), "counts": counts})
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.extend([FORMAT, self.dtype.map_or(0, DType::code)]);
        [self.rows, self.nulls, self.nans, self.moments.count].iter().for_each(|count| put_varint(out, *count));
        out.extend(self.moments.mean.to_le_bytes());
        out.extend(self.moments.m2.to_le_bytes());
        for part in [self.quantiles.to_bytes(), self.distinct.to_bytes()] {
            put_varint(out, part.len() as u64);
            out.extend(part);
        }
        self.top.write(out);
    }

    /// The summary as bytes: format 1, the type's number, counts as varints, mean and m2, the sketches with their lengths, the frequent
    /// values.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }

    /// Reads what [`Self::to_bytes`] wrote.
    ///
    /// # Errors
    /// `corrupt_store` or `newer_format`.
    pub fn from_bytes(data: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(NAME, data, FORMAT)?;
        let dtype = match reader.take(1)?[0] {
            0 => None,
            code => Some(DType::from_code(code).ok_or_else(|| reader.corrupt("its type is unknown"))?),
        };
        let (rows, nulls, nans) = (reader.varint()?, reader.varint()?, reader.varint()?);
        let moments = Moments {
            count: reader.varint()?,
            mean: f64::from_bits(reader.word()?),
            m2: f64::from_bits(reader.word()?),
        };
        let length = reader.varint()?;
        let quantiles = QuantileSketch::from_bytes(reader.take(usize::try_from(length).unwrap_or(usize::MAX))?)?;
        let length = reader.varint()?;
        let distinct = DistinctSketch::from_bytes(reader.take(usize::try_from(length).unwrap_or(usize::MAX))?)?;
        let top = TopValues::read(&mut reader)?;
        reader.finish()?;
        Ok(Self { dtype, rows, nulls, nans, moments, quantiles, distinct, top })
    }
}

fn number(value: f64) -> Json {
    match serde_json::Number::from_f64(value) {
        Some(number) => Json::Number(number),
        None if value.is_nan() => Json::Null,
        None => json!(if value > 0.0 { "inf" } else { "-inf" }),
    }
}

fn shown(value: &Value) -> Json {
    match value {
        Value::Bool(value) => json!(value),
        Value::Int(value) => json!(value),
        Value::UInt(value) => json!(value),
        Value::Float32(value) => shown(&Value::Float64(f64::from(*value))),
        Value::Float64(value) if value.is_nan() => json!("nan"),
        Value::Float64(value) => number(*value),
        Value::Timestamp(value) => json!(value),
        Value::String(value) => json!(value),
        Value::Bytes(value) => json!(value.iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
        Value::List(_) | Value::Null => Json::Null,
    }
}
