//! A lookup compiled against a table's layout: which bytes of a row go where.

use std::sync::Arc;

use headrace_types::{DType, Error, ErrorCode, Result, ScalarType};

use super::schema::{Layout, is_var, slot_bytes};

/// One value to look up, and its column in the caller's matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GatherFeature {
    pub view: usize,
    pub field: usize,
    pub position: usize,
}

/// A compiled lookup. It belongs to tables of the layout that it was compiled for.
///
/// Neighbours in a row that are neighbours in the output and need no conversion are one copy: with all of five views of
/// float32 present and fresh, a row of a float32 matrix is a single one.
#[derive(Debug)]
pub struct GatherPlan {
    pub(super) layout: Arc<Layout>,
    pub(super) width: usize,
    /// Sorted by view and field.
    pub(super) features: Vec<Feature>,
    pub(super) views: Vec<ViewPlan>,
    /// Words and bits of the row that are all set when all of the plan's views are present.
    pub(super) live: Vec<(usize, u64)>,
    /// Where the event times of the views with a TTL lie, and the TTLs.
    pub(super) ttls: Vec<(usize, i64)>,
    /// Words and bits that are all clear when none of the plan's features is null.
    pub(super) nulls: Vec<(usize, u64)>,
    pub(super) f32: Program,
    pub(super) f64: Program,
    /// Columns of the matrix that this plan fills, as (first, count).
    pub(super) filled: Vec<(usize, usize)>,
    /// Offsets of the row's cache lines that a lookup reads.
    pub(super) lines: Vec<usize>,
    not_numeric: Option<String>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Feature {
    pub(super) view: usize,
    pub(super) field: usize,
    pub(super) position: usize,
    pub(super) dtype: DType,
    /// Offset of the value in the row.
    pub(super) offset: usize,
    pub(super) null_offset: usize,
    pub(super) null_bit: u64,
}

#[derive(Debug)]
pub(super) struct ViewPlan {
    pub(super) live_offset: usize,
    pub(super) live_bit: u64,
    pub(super) event_ts_offset: usize,
    pub(super) ttl_us: Option<i64>,
    /// The view's part of the plan's features.
    pub(super) features: std::ops::Range<usize>,
    pub(super) filled: Vec<(usize, usize)>,
}

/// The copies that fill a matrix of one float type.
#[derive(Debug)]
pub(super) struct Program {
    /// For rows of which every view is present and fresh.
    pub(super) all: Vec<Run>,
    /// For each view by itself.
    pub(super) by_view: Vec<Vec<Run>>,
    /// Words and bits of the nulls that a copy does not bring over as NaN: those of integers and bools.
    pub(super) patches: Vec<(usize, u64)>,
}

/// Values of one type, adjacent both in the row and in the output.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run {
    pub(super) offset: usize,
    pub(super) position: usize,
    pub(super) count: usize,
    pub(super) scalar: ScalarType,
}

impl GatherPlan {
    /// `ttl_us` has one entry for each view of the table; `width` is the number of columns of the caller's matrix.
    pub(super) fn compile(
        layout: &Arc<Layout>,
        requested: &[GatherFeature],
        ttl_us: &[Option<i64>],
        width: usize,
    ) -> Result<Self> {
        if ttl_us.len() != layout.views.len() {
            return Err(Error::new(
                ErrorCode::LengthMismatch,
                format!("{} ttls were given for {} views", ttl_us.len(), layout.views.len()),
                "give one ttl (or none) for each view of the table",
            ));
        }
        let mut features = requested.iter().map(|f| place(layout, f, width)).collect::<Result<Vec<_>>>()?;
        features.sort_by_key(|feature| (feature.view, feature.field, feature.position));
        let views = view_plans(layout, &features, ttl_us);
        let live = merge_words(views.iter().map(|view| (view.live_offset, view.live_bit)));
        let ttls = views.iter().filter_map(|view| Some((view.event_ts_offset, view.ttl_us?))).collect();
        let nulls = merge_words(features.iter().map(|feature| (feature.null_offset, feature.null_bit)));
        let filled = filled_columns(&features);
        let not_numeric = features.iter().find(|feature| !is_number(feature.dtype)).map(|feature| {
            let view = &layout.schema.views[feature.view];
            format!("feature '{}' of view '{}' is a {}", view.fields[feature.field].name, view.name, feature.dtype)
        });
        let (f32, f64) = if not_numeric.is_none() {
            (Program::new(&features, &views, ScalarType::Float32), Program::new(&features, &views, ScalarType::Float64))
        } else {
            (Program::empty(), Program::empty())
        };
        let mut plan = Self {
            layout: layout.clone(),
            width,
            features,
            views,
            live,
            ttls,
            nulls,
            f32,
            f64,
            filled,
            lines: Vec::new(),
            not_numeric,
        };
        plan.lines = plan.lines_read();
        Ok(plan)
    }

    /// Columns of the matrix that a gather writes to.
    pub fn width(&self) -> usize {
        self.width
    }

    /// # Errors
    /// `type_mismatch` naming a feature that is no number: it can be read as a column only.
    pub(super) fn check_numeric(&self) -> Result<()> {
        match &self.not_numeric {
            None => Ok(()),
            Some(what) => Err(Error::new(
                ErrorCode::TypeMismatch,
                format!("{what}, and a matrix of floats was asked for"),
                "read the features as columns, or leave this one out of the service",
            )),
        }
    }

    fn lines_read(&self) -> Vec<usize> {
        let words = self.live.iter().chain(&self.nulls).map(|&(offset, _)| (offset, 8));
        let times = self.ttls.iter().map(|&(offset, _)| (offset, 8));
        let values = self.features.iter().map(|feature| (feature.offset, slot_bytes(feature.dtype)));
        let mut lines: Vec<usize> = std::iter::once((0, 16))
            .chain(words)
            .chain(times)
            .chain(values)
            .flat_map(|(offset, len)| [offset / 64 * 64, (offset + len - 1) / 64 * 64])
            .collect();
        lines.sort_unstable();
        lines.dedup();
        lines
    }
}

impl Program {
    fn empty() -> Self {
        Self { all: Vec::new(), by_view: Vec::new(), patches: Vec::new() }
    }

    fn new(features: &[Feature], views: &[ViewPlan], target: ScalarType) -> Self {
        let is_float =
            |feature: &&Feature| matches!(feature.dtype.element(), ScalarType::Float32 | ScalarType::Float64);
        let patches = features.iter().filter(|feature| !is_float(feature));
        debug_assert!(matches!(target, ScalarType::Float32 | ScalarType::Float64));
        Self {
            all: coalesce(features),
            by_view: views.iter().map(|view| coalesce(&features[view.features.clone()])).collect(),
            patches: merge_words(patches.map(|feature| (feature.null_offset, feature.null_bit))),
        }
    }
}

fn is_number(dtype: DType) -> bool {
    !dtype.is_list() && dtype.element().is_numeric()
}

fn place(layout: &Layout, feature: &GatherFeature, width: usize) -> Result<Feature> {
    let view = layout.views.get(feature.view);
    let field = view.and_then(|view| view.fields.get(feature.field).map(|field| (view, field)));
    let Some((view, field)) = field.filter(|_| feature.position < width) else {
        return Err(Error::new(
            ErrorCode::InvalidArgument,
            format!("{feature:?} is not in the table, or not within {width} columns"),
            "compile the lookup from the plan that the table was made from",
        ));
    };
    let null = view.null_bit(feature.field);
    Ok(Feature {
        view: feature.view,
        field: feature.field,
        position: feature.position,
        dtype: field.dtype,
        offset: view.values_offset + field.offset,
        null_offset: null.offset,
        null_bit: null.mask,
    })
}

fn view_plans(layout: &Layout, features: &[Feature], ttl_us: &[Option<i64>]) -> Vec<ViewPlan> {
    let mut plans = Vec::new();
    let mut start = 0;
    for group in features.chunk_by(|a, b| a.view == b.view) {
        let view = group[0].view;
        plans.push(ViewPlan {
            live_offset: layout.views[view].live.offset,
            live_bit: layout.views[view].live.mask,
            event_ts_offset: layout.event_ts_offset + 8 * view,
            ttl_us: ttl_us[view],
            features: start..start + group.len(),
            filled: filled_columns(group),
        });
        start += group.len();
    }
    plans
}

fn merge_words(words: impl Iterator<Item = (usize, u64)>) -> Vec<(usize, u64)> {
    let mut merged: Vec<(usize, u64)> = Vec::new();
    for (offset, bits) in words {
        match merged.iter_mut().find(|(other, _)| *other == offset) {
            Some((_, all)) => *all |= bits,
            None => merged.push((offset, bits)),
        }
    }
    merged
}

fn filled_columns(features: &[Feature]) -> Vec<(usize, usize)> {
    let mut positions: Vec<usize> = features.iter().map(|feature| feature.position).collect();
    positions.sort_unstable();
    positions.dedup();
    let runs = positions.chunk_by(|a, b| a + 1 == *b);
    runs.map(|run| (run[0], run.len())).collect()
}

fn coalesce(features: &[Feature]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for feature in features {
        debug_assert!(!is_var(feature.dtype));
        let scalar = feature.dtype.element();
        let width = slot_bytes(feature.dtype);
        match runs.last_mut() {
            Some(run)
                if run.scalar == scalar
                    && run.offset + run.count * width == feature.offset
                    && run.position + run.count == feature.position =>
            {
                run.count += 1;
            }
            _ => runs.push(Run { offset: feature.offset, position: feature.position, count: 1, scalar }),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use headrace_types::Field;

    use super::super::schema::{TableSchema, ViewSchema};
    use super::*;

    fn layout(dtypes: &[&[DType]]) -> Arc<Layout> {
        let view = |(v, dtypes): (usize, &&[DType])| ViewSchema {
            name: format!("v{v}"),
            fields: dtypes.iter().enumerate().map(|(f, &dtype)| Field::new(format!("f{f}"), dtype)).collect(),
        };
        let schema = TableSchema {
            keys: vec![Field::new("id", DType::INT64)],
            views: dtypes.iter().enumerate().map(view).collect(),
        };
        Arc::new(Layout::new(schema).unwrap())
    }

    fn all_of(layout: &Layout) -> Vec<GatherFeature> {
        let pairs = layout.views.iter().enumerate().flat_map(|(v, view)| (0..view.fields.len()).map(move |f| (v, f)));
        pairs.enumerate().map(|(position, (view, field))| GatherFeature { view, field, position }).collect()
    }

    #[test]
    fn views_of_one_type_are_one_copy() {
        let view = [DType::FLOAT32; 50];
        let layout = layout(&[&view[..]; 5]);
        let plan = GatherPlan::compile(&layout, &all_of(&layout), &[None; 5], 250).unwrap();
        assert_eq!(plan.f32.all.len(), 1);
        assert_eq!(plan.f32.all[0].count, 250);
        assert_eq!(plan.f32.by_view.len(), 5);
        assert!(plan.f32.patches.is_empty());
    }

    #[test]
    fn a_change_of_type_or_of_order_ends_a_copy() {
        let layout = layout(&[&[DType::FLOAT32, DType::FLOAT32, DType::INT64, DType::FLOAT32]]);
        let plan = GatherPlan::compile(&layout, &all_of(&layout), &[None], 4).unwrap();
        assert_eq!(plan.f32.all.iter().map(|run| run.count).collect::<Vec<_>>(), [2, 1, 1]);
        assert_eq!(plan.f32.patches, vec![(layout.views[0].nulls_at / 8, 0b100)]);
        let swapped = [(0, 1), (1, 0)].map(|(field, position)| GatherFeature { view: 0, field, position });
        let plan = GatherPlan::compile(&layout, &swapped, &[None], 4).unwrap();
        assert_eq!(plan.f32.all.len(), 2);
    }

    #[test]
    fn a_feature_outside_the_table_is_refused_and_a_string_only_for_floats() {
        let layout = layout(&[&[DType::STRING]]);
        let outside = GatherFeature { view: 0, field: 1, position: 0 };
        assert!(GatherPlan::compile(&layout, &[outside], &[None], 1).is_err());
        let plan = GatherPlan::compile(&layout, &all_of(&layout), &[None], 1).unwrap();
        assert_eq!(plan.check_numeric().unwrap_err().code, ErrorCode::TypeMismatch);
    }
}
