//! Batched lookups.
//!
//! A lookup is three cache misses one after the other: the index line, the row's first line, the row's other lines. A batch
//! overlaps those of many keys. Keys go in groups through three stages, so that while one group is copied, the first lines of
//! the next group's rows and the index lines of the one after it are on their way. Each stage is a short loop of its own: a
//! prefetch retires only when its address is translated, and only short loops let the processor run several page walks at
//! once (one loop for all stages took 1.36 times numpy's take, three loops take 1.17 times; native/README.md).

use std::ops::Range;
use std::sync::Arc;

use headrace_types::{Error, ErrorCode, FeatureStatus, Result, ScalarType};

use super::index;
use super::key::{KeysRef, Probe};
use super::plan::{GatherPlan, Program, Run, ViewPlan};
use super::prefetch::prefetch;
use super::region::Window;
use super::shard::{Shard, shard_of};
use super::store::RowTable;

/// Keys that go through a stage together.
const GROUP: usize = 16;
/// Rows whose lines are all requested before the current one is copied.
const ROWS_AHEAD: usize = 4;
/// Slots of the pipeline: a power of two that holds three groups.
const RING: usize = 64;
/// Lines of a row that are requested ahead; a longer row is read in order, which the hardware follows by itself.
const LINES_AHEAD_MAX: usize = 64;

pub(super) const PRESENT: u8 = FeatureStatus::Present as u8;
pub(super) const NULL_VALUE: u8 = FeatureStatus::NullValue as u8;
pub(super) const NOT_FOUND: u8 = FeatureStatus::NotFound as u8;
pub(super) const OUTSIDE_MAX_AGE: u8 = FeatureStatus::OutsideMaxAge as u8;

/// A float type that rows can be gathered into.
pub(super) trait Float: Copy {
    const NAN: Self;
    const TYPE: ScalarType;
    fn program(plan: &GatherPlan) -> &Program;
    fn from_f32(value: f32) -> Self;
    fn from_f64(value: f64) -> Self;
    fn from_i64(value: i64) -> Self;
    fn from_u64(value: u64) -> Self;
}

macro_rules! float {
    ($float:ident, $scalar:ident) => {
        #[allow(clippy::cast_lossless)]
        impl Float for $float {
            const NAN: Self = $float::NAN;
            const TYPE: ScalarType = ScalarType::$scalar;
            fn program(plan: &GatherPlan) -> &Program {
                &plan.$float
            }
            fn from_f32(value: f32) -> Self {
                value as $float
            }
            fn from_f64(value: f64) -> Self {
                value as $float
            }
            fn from_i64(value: i64) -> Self {
                value as $float
            }
            fn from_u64(value: u64) -> Self {
                value as $float
            }
        }
    };
}
float!(f32, Float32);
float!(f64, Float64);

impl RowTable {
    /// Looks keys up and writes their features into `out`, row-major `[keys, plan.width()]`; columns that are not the plan's
    /// are left alone. A missing, deleted, expired or null value is NaN. `status`, of the same shape, gets a
    /// [`FeatureStatus`] for each value.
    ///
    /// # Errors
    /// `length_mismatch` for a slice of another length; `type_mismatch` for a feature that is no number.
    pub fn gather_f32(
        &self,
        plan: &GatherPlan,
        keys: KeysRef<'_>,
        now_us: i64,
        out: &mut [f32],
        status: Option<&mut [u8]>,
    ) -> Result<()> {
        self.gather_floats(plan, keys, now_us, out, status)
    }

    /// As [`Self::gather_f32`], in float64.
    ///
    /// # Errors
    /// As [`Self::gather_f32`].
    pub fn gather_f64(
        &self,
        plan: &GatherPlan,
        keys: KeysRef<'_>,
        now_us: i64,
        out: &mut [f64],
        status: Option<&mut [u8]>,
    ) -> Result<()> {
        self.gather_floats(plan, keys, now_us, out, status)
    }

    fn gather_floats<T: Float>(
        &self,
        plan: &GatherPlan,
        keys: KeysRef<'_>,
        now_us: i64,
        out: &mut [T],
        mut status: Option<&mut [u8]>,
    ) -> Result<()> {
        self.check_plan(plan)?;
        plan.check_numeric()?;
        keys.check()?;
        let width = plan.width;
        check_len("out", out.len(), keys.len(), width)?;
        if let Some(status) = &status {
            check_len("status", status.len(), keys.len(), width)?;
        }
        self.for_each_key(plan, keys, |row, shard, proposed, probe| {
            let out = &mut out[row * width..(row + 1) * width];
            let mut status = status.as_deref_mut().map(|status| &mut status[row * width..(row + 1) * width]);
            let Some(probe) = probe else {
                fill_missing(&plan.filled, out, status, NOT_FOUND);
                return;
            };
            shard.read(|index| match self.row(index, proposed, &probe) {
                Some(window) => read_row(plan, window, now_us, out, status.as_deref_mut()),
                None => fill_missing(&plan.filled, out, status.as_deref_mut(), NOT_FOUND),
            });
        });
        Ok(())
    }

    pub(super) fn check_plan(&self, plan: &GatherPlan) -> Result<()> {
        if Arc::ptr_eq(&self.layout, &plan.layout) || self.layout == plan.layout {
            return Ok(());
        }
        Err(Error::new(
            ErrorCode::InvalidArgument,
            "the lookup was compiled for a table with other views or fields",
            "compile it again from this table",
        ))
    }

    /// The row of a key: the proposed one when it is that, or what a search finds. To be called within [`Shard::read`].
    #[inline(always)]
    pub(super) fn row(&self, index: index::IndexRef, proposed: usize, probe: &Probe<'_>) -> Option<Window<'_>> {
        let row_bytes = self.layout.row_bytes;
        index::row_with_key(&self.region, proposed, row_bytes, probe)
            .or_else(|| index::find(&self.region, index, row_bytes, probe).map(|(_, window)| window))
    }

    /// Runs the pipeline: `visit(row, shard, proposed row offset, probe)` for each key in order; no probe for a null key.
    #[inline(always)]
    pub(super) fn for_each_key<'k>(
        &self,
        plan: &GatherPlan,
        keys: KeysRef<'k>,
        mut visit: impl FnMut(usize, &Shard, usize, Option<Probe<'k>>),
    ) {
        let count = keys.len();
        let mut pipeline = Pipeline { table: self, plan, hashes: [0; RING], rows: [usize::MAX; RING] };
        pipeline.request_index(keys, 0..count.min(2 * GROUP));
        pipeline.request_first_lines(0..count.min(GROUP));
        (0..count.min(ROWS_AHEAD)).for_each(|i| pipeline.request_row(i));
        for start in (0..count).step_by(GROUP) {
            let group = |n: usize| (start + n * GROUP).min(count);
            pipeline.request_index(keys, group(2)..group(3));
            pipeline.request_first_lines(group(1)..group(2));
            for i in start..group(1) {
                if i + ROWS_AHEAD < group(2) {
                    pipeline.request_row(i + ROWS_AHEAD);
                }
                let shard = &self.shards[shard_of(pipeline.hashes[i % RING])];
                visit(i, shard, pipeline.rows[i % RING], keys.probe(i, self.seed));
            }
        }
    }
}

/// The keys between the first stage and the last, each at its number modulo [`RING`].
struct Pipeline<'a> {
    table: &'a RowTable,
    plan: &'a GatherPlan,
    hashes: [u64; RING],
    /// Offsets of the rows that the index proposes; `usize::MAX` for none.
    rows: [usize; RING],
}

impl Pipeline<'_> {
    #[inline(always)]
    fn request_index(&mut self, keys: KeysRef<'_>, range: Range<usize>) {
        for i in range {
            let hash = keys.probe(i, self.table.seed).map_or(0, |probe| probe.hash);
            self.hashes[i % RING] = hash;
            index::prefetch_line(&self.table.region, self.table.shards[shard_of(hash)].index(), hash);
        }
    }

    /// The first and the last line: between them they have both pages of a row that crosses into a second one.
    #[inline(always)]
    fn request_first_lines(&mut self, range: Range<usize>) {
        let last = self.plan.lines[self.plan.lines.len() - 1];
        for i in range {
            let hash = self.hashes[i % RING];
            let row = index::propose(&self.table.region, self.table.shards[shard_of(hash)].index(), hash);
            let row = row.unwrap_or(usize::MAX);
            self.rows[i % RING] = row;
            prefetch(self.table.region.hint_address(row));
            prefetch(self.table.region.hint_address(row.wrapping_add(last)));
        }
    }

    #[inline(always)]
    fn request_row(&self, i: usize) {
        let row = self.rows[i % RING];
        for &line in self.plan.lines.iter().take(LINES_AHEAD_MAX) {
            prefetch(self.table.region.hint_address(row.wrapping_add(line)));
        }
    }
}

fn check_len(name: &str, len: usize, keys: usize, width: usize) -> Result<()> {
    if keys.checked_mul(width) == Some(len) {
        return Ok(());
    }
    Err(Error::new(
        ErrorCode::LengthMismatch,
        format!("'{name}' has {len} values for {keys} keys of {width} features"),
        format!("give a contiguous buffer of shape [{keys}, {width}]"),
    ))
}

fn fill_missing<T: Float>(filled: &[(usize, usize)], out: &mut [T], status: Option<&mut [u8]>, why: u8) {
    for &(first, count) in filled {
        out[first..first + count].fill(T::NAN);
    }
    if let Some(status) = status {
        for &(first, count) in filled {
            status[first..first + count].fill(why);
        }
    }
}

#[inline(always)]
fn word(window: Window<'_>, offset: usize) -> u64 {
    // SAFETY: offsets in a plan are those of its layout, which `check_plan` has found to be the table's: aligned and within a row.
    unsafe { window.load(offset) }
}

/// Why a view's values cannot be used at `now_us`; `None` when they can.
#[inline(always)]
pub(super) fn unusable(view: &ViewPlan, window: Window<'_>, now_us: i64) -> Option<u8> {
    if word(window, view.live_offset) & view.live_bit == 0 {
        return Some(NOT_FOUND);
    }
    let ttl_us = view.ttl_us?;
    let event_ts = word(window, view.event_ts_offset) as i64;
    (event_ts < now_us.saturating_sub(ttl_us)).then_some(OUTSIDE_MAX_AGE)
}

#[inline(always)]
fn read_row<T: Float>(plan: &GatherPlan, window: Window<'_>, now_us: i64, out: &mut [T], status: Option<&mut [u8]>) {
    let program = T::program(plan);
    let live = plan.live.iter().all(|&(offset, bits)| word(window, offset) & bits == bits);
    let fresh = plan.ttls.iter().all(|&(at, ttl_us)| word(window, at) as i64 >= now_us.saturating_sub(ttl_us));
    if !(live && fresh) {
        read_row_by_view(plan, window, now_us, out, status);
        return;
    }
    for run in &program.all {
        read_run(window, run, out);
    }
    if program.patches.iter().any(|&(offset, bits)| word(window, offset) & bits != 0) {
        patch_nulls(plan, 0..plan.features.len(), window, out);
    }
    if let Some(status) = status {
        if plan.nulls.iter().all(|&(offset, bits)| word(window, offset) & bits == 0) {
            for &(first, count) in &plan.filled {
                status[first..first + count].fill(PRESENT);
            }
        } else {
            mark_nulls(plan, 0..plan.features.len(), window, status);
        }
    }
}

#[cold]
#[inline(never)]
fn read_row_by_view<T: Float>(
    plan: &GatherPlan,
    window: Window<'_>,
    now_us: i64,
    out: &mut [T],
    mut status: Option<&mut [u8]>,
) {
    let program = T::program(plan);
    for (view, runs) in plan.views.iter().zip(&program.by_view) {
        if let Some(why) = unusable(view, window, now_us) {
            fill_missing(&view.filled, out, status.as_deref_mut(), why);
            continue;
        }
        for run in runs {
            read_run(window, run, out);
        }
        patch_nulls(plan, view.features.clone(), window, out);
        if let Some(status) = status.as_deref_mut() {
            mark_nulls(plan, view.features.clone(), window, status);
        }
    }
}

#[inline(never)]
fn patch_nulls<T: Float>(plan: &GatherPlan, features: Range<usize>, window: Window<'_>, out: &mut [T]) {
    for feature in &plan.features[features] {
        if word(window, feature.null_offset) & feature.null_bit != 0 {
            out[feature.position] = T::NAN;
        }
    }
}

#[inline(never)]
fn mark_nulls(plan: &GatherPlan, features: Range<usize>, window: Window<'_>, status: &mut [u8]) {
    for feature in &plan.features[features] {
        let is_null = word(window, feature.null_offset) & feature.null_bit != 0;
        status[feature.position] = if is_null { NULL_VALUE } else { PRESENT };
    }
}

#[inline(always)]
fn read_run<T: Float>(window: Window<'_>, run: &Run, out: &mut [T]) {
    let out = &mut out[run.position..run.position + run.count];
    if run.scalar == T::TYPE {
        let destination = out.as_mut_ptr().cast::<u8>();
        // SAFETY: a run lies within a row of the layout, which `check_plan` has found to be the table's; `out` is as long as
        // the run, and any bytes are a float.
        unsafe { window.copy_out(run.offset, destination, size_of_val(out)) };
    } else {
        convert_run(window, run, out);
    }
}

/// Copies a run in pieces to the stack, where it is converted undisturbed.
#[inline(never)]
fn convert_run<T: Float>(window: Window<'_>, run: &Run, out: &mut [T]) {
    const PIECE: usize = 64;
    let width = run.scalar.width_bytes().unwrap_or(8);
    let mut bytes = [0u8; PIECE * 8];
    for (i, out) in out.chunks_mut(PIECE).enumerate() {
        let bytes = &mut bytes[..out.len() * width];
        // SAFETY: this piece of the run lies within a row of the table's layout; `bytes` is as long as the piece.
        unsafe { window.copy_out(run.offset + i * PIECE * width, bytes.as_mut_ptr(), bytes.len()) };
        convert(run.scalar, bytes, out);
    }
}

fn convert<T: Float>(scalar: ScalarType, bytes: &[u8], out: &mut [T]) {
    macro_rules! each {
        ($type:ty, $value:ident => $convert:expr) => {
            for (out, chunk) in out.iter_mut().zip(bytes.chunks_exact(size_of::<$type>())) {
                let mut raw = [0; size_of::<$type>()];
                raw.copy_from_slice(chunk);
                let $value = <$type>::from_le_bytes(raw);
                *out = $convert;
            }
        };
    }
    match scalar {
        ScalarType::Bool => each!(u8, v => T::from_u64(u64::from(v != 0))),
        ScalarType::Int8 => each!(i8, v => T::from_i64(v.into())),
        ScalarType::Int16 => each!(i16, v => T::from_i64(v.into())),
        ScalarType::Int32 => each!(i32, v => T::from_i64(v.into())),
        ScalarType::Int64 | ScalarType::Timestamp => each!(i64, v => T::from_i64(v)),
        ScalarType::UInt8 => each!(u8, v => T::from_u64(v.into())),
        ScalarType::UInt16 => each!(u16, v => T::from_u64(v.into())),
        ScalarType::UInt32 => each!(u32, v => T::from_u64(v.into())),
        ScalarType::UInt64 => each!(u64, v => T::from_u64(v)),
        ScalarType::Float32 => each!(f32, v => T::from_f32(v)),
        ScalarType::Float64 => each!(f64, v => T::from_f64(v)),
        // A plan for floats has neither, by `check_numeric`.
        ScalarType::String | ScalarType::Bytes => {}
    }
}
