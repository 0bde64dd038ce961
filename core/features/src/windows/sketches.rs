//! Partials that are sketches: their results do not depend on the order of the events, nor on how they were divided among tiles.

use headrace_stats::{DistinctSketch, QuantileSketch, hash_bytes, hash_float, hash_word};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::partial::Scalar;

/// How many distinct values there are: exact up to 512, in 8 bytes each, and 4 KiB from there on.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Distinct {
    sketch: DistinctSketch,
}

impl Distinct {
    pub(super) fn add(&mut self, value: Scalar<'_>) {
        self.sketch.add_hash(match value {
            Scalar::Int(value) => hash_word(value as u64), // by its 64 bits
            Scalar::UInt(value) => hash_word(value),
            Scalar::Float(value) => hash_float(value),
            Scalar::Bytes(value) => hash_bytes(value),
        });
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.sketch.merge(&other.sketch);
    }

    #[allow(clippy::cast_possible_truncation)] // an estimate of registers is far below 2^63
    pub(super) fn count(&self) -> i64 {
        (self.sketch.estimate() + 0.5).floor() as i64
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.sketch.heap_bytes()
    }
}

/// Quantiles: 16 bytes for each bucket that holds something.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Quantiles {
    /// None before the first value: most tiles of most keys are small.
    sketch: Option<Box<QuantileSketch>>,
}

impl Quantiles {
    pub(super) fn add(&mut self, value: Scalar<'_>) {
        let value = value.to_float();
        if !value.is_nan() {
            self.sketch.get_or_insert_default().add(value);
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        if let Some(other) = &other.sketch {
            self.sketch.get_or_insert_default().merge(other);
        }
    }

    pub(super) fn quantile(&self, q: f64) -> Option<f64> {
        self.sketch.as_ref()?.quantile(q)
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.sketch.as_ref().map_or(0, |sketch| size_of::<QuantileSketch>() + sketch.heap_bytes())
    }
}

impl Serialize for Distinct {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.sketch.to_bytes().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Distinct {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = Vec::deserialize(deserializer)?;
        Ok(Self { sketch: DistinctSketch::from_bytes(&bytes).map_err(D::Error::custom)? })
    }
}

impl Serialize for Quantiles {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.sketch.as_ref().map(|sketch| sketch.to_bytes()).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Quantiles {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = Option::<Vec<u8>>::deserialize(deserializer)?;
        let sketch = bytes.map(|bytes| QuantileSketch::from_bytes(&bytes)).transpose().map_err(D::Error::custom)?;
        Ok(Self { sketch: sketch.map(Box::new) })
    }
}
