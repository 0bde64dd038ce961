//! The hot loop: one walk over a tree's edges explains eight rows at up to four points of the rule.

use super::super::number::Bin;
use super::program::{Action, Inner, NOWHERE, Program};
use super::quadrature::Rule;
use crate::vectorized::{Vectorized, vectorized};

/// Rows that go through a tree together.
pub(super) const LANES: usize = 8;

/// A number for each row of a group.
pub(super) type Lanes = [f64; LANES];

/// Points that one walk takes along. A rule of more is spread over several walks: contributions are sums over points.
const POINTS_MAX: usize = 4;

/// An open node.
#[derive(Debug, Clone, Copy)]
struct Frame<const POINTS: usize> {
    /// The product of the factors above it, times the points' weights.
    above: [Lanes; POINTS],
    /// The factor of its left edge.
    factor: [Lanes; POINTS],
    /// The sum that came up from its left child.
    left: [Lanes; POINTS],
    /// How the row's answer differs from the training rows' mean.
    surprise: Lanes,
    /// 1 where the row passes all edges on this feature, down to the child that is walked now.
    passes: Lanes,
    inner: usize,
    /// Its place in `scales`, if an edge above asks the same feature.
    scale: usize,
}

impl<const POINTS: usize> Frame<POINTS> {
    const NEW: Self = Self {
        above: [[0.0; LANES]; POINTS],
        factor: [[0.0; LANES]; POINTS],
        left: [[0.0; LANES]; POINTS],
        surprise: [0.0; LANES],
        passes: [0.0; LANES],
        inner: 0,
        scale: 0,
    };
}

/// What a node takes in the place of `t` and of 1 where an edge above asks the same feature.
#[derive(Debug, Clone, Copy)]
struct Scale<const POINTS: usize> {
    point: [f64; POINTS],
    term: [f64; POINTS],
}

/// The memory of sweeps, kept between trees.
#[derive(Debug, Default)]
struct Memory<const POINTS: usize> {
    frames: Vec<Frame<POINTS>>,
    scales: Vec<Scale<POINTS>>,
}

#[derive(Debug, Default)]
pub(super) struct Sweeper {
    one: Memory<1>,
    two: Memory<2>,
    three: Memory<3>,
    four: Memory<4>,
}

impl Sweeper {
    /// Adds one tree's contributions to the rows' sums. `bins` has `slots_count * LANES` for each group of rows, `sums` has
    /// `columns_count`.
    pub(super) fn add<B: Bin>(
        &mut self,
        program: &Program<B>,
        rule: &Rule,
        bins: &[B],
        slots_count: usize,
        sums: &mut [Lanes],
        columns_count: usize,
    ) {
        let walks = rule.points.len().div_ceil(POINTS_MAX);
        let points_each = rule.points.len().div_ceil(walks);
        for (points, weights) in rule.points.chunks(points_each).zip(rule.weights.chunks(points_each)) {
            macro_rules! sweep {
                ($memory:expr) => {
                    vectorized(Sweep {
                        program,
                        points: points.try_into().expect("the arm's number of points"),
                        weights: weights.try_into().expect("the arm's number of points"),
                        memory: $memory,
                        bins,
                        slots_count,
                        sums,
                        columns_count,
                    })
                };
            }
            match points.len() {
                1 => sweep!(&mut self.one),
                2 => sweep!(&mut self.two),
                3 => sweep!(&mut self.three),
                _ => sweep!(&mut self.four),
            }
        }
    }
}

struct Sweep<'a, B, const POINTS: usize> {
    program: &'a Program<B>,
    points: [f64; POINTS],
    weights: [f64; POINTS],
    memory: &'a mut Memory<POINTS>,
    bins: &'a [B],
    slots_count: usize,
    sums: &'a mut [Lanes],
    columns_count: usize,
}

#[inline(always)]
fn lanes(value: impl Fn(usize) -> f64) -> Lanes {
    let mut lanes = [0.0; LANES];
    for (lane, out) in lanes.iter_mut().enumerate() {
        *out = value(lane);
    }
    lanes
}

/// 1 where a row goes left.
#[inline(always)]
fn goes_left<B: Bin>(bins: &[B], inner: &Inner<B>) -> Lanes {
    let bins: &[B; LANES] = bins[inner.slot as usize * LANES..][..LANES].try_into().expect("a slice of LANES");
    lanes(|lane| f64::from(u8::from(bins[lane] <= inner.bin)))
}

#[inline(always)]
fn add(sums: &mut [Lanes], column: u32, value: &Lanes) {
    for (sum, value) in sums[column as usize].iter_mut().zip(value) {
        *sum += value;
    }
}

impl<B: Bin, const POINTS: usize> Vectorized for Sweep<'_, B, POINTS> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { program, points, weights, memory, bins, slots_count, sums, columns_count } = self;
        let Memory { frames, scales } = memory;
        if frames.len() <= program.levels {
            frames.resize(program.levels + 1, Frame::NEW);
        }
        fill_scales(program, &points, scales);
        let walk = Walk { program, points, scales };
        let groups = bins.chunks_exact(LANES * slots_count).zip(sums.chunks_exact_mut(columns_count));
        for (bins, sums) in groups {
            frames[0].above = weights.map(|weight| [weight; LANES]);
            walk.run(frames, bins, sums);
        }
    }
}

#[inline(always)]
fn fill_scales<B, const POINTS: usize>(program: &Program<B>, points: &[f64; POINTS], scales: &mut Vec<Scale<POINTS>>) {
    scales.clear();
    scales.extend(program.shares_above.iter().map(|&share| {
        let shrunk = points.map(|t| 1.0 / (share * (1.0 - t) + t));
        let mut point = *points;
        point.iter_mut().zip(&shrunk).for_each(|(point, shrunk)| *point *= shrunk);
        Scale { point, term: shrunk.map(|shrunk| share * shrunk * shrunk) }
    }));
}

struct Walk<'a, B, const POINTS: usize> {
    program: &'a Program<B>,
    points: [f64; POINTS],
    scales: &'a [Scale<POINTS>],
}

impl<B: Bin, const POINTS: usize> Walk<'_, B, POINTS> {
    /// One group of rows.
    #[inline(always)]
    fn run(&self, frames: &mut [Frame<POINTS>], bins: &[B], sums: &mut [Lanes]) {
        let (mut next_inner, mut next_leaf, mut next_scale, mut level) = (0, 0, 0, 0);
        let mut value = [[0.0; LANES]; POINTS];
        let leaves = &self.program.leaves;
        for &action in &self.program.actions {
            match action {
                Action::Leaves => {
                    let inner = &self.program.inner[next_inner];
                    let (left, right) = (leaves[next_leaf], leaves[next_leaf + 1]);
                    next_leaf += 2;
                    let surprise = self.surprise(frames, bins, inner).0;
                    let scale = (inner.same_feature_at != NOWHERE).then(|| &self.scales[next_scale]);
                    next_scale += usize::from(scale.is_some());
                    let points = scale.map_or(&self.points, |scale| &scale.point);
                    let above = &frames[level].above;
                    let gap = left - right;
                    let mut sum = [0.0; LANES];
                    for (point, t) in points.iter().enumerate() {
                        let factor = lanes(|lane| inner.left_share + t * surprise[lane]);
                        value[point] = lanes(|lane| right + factor[lane] * gap);
                        match scale {
                            None => sum = lanes(|lane| sum[lane] + above[point][lane]),
                            Some(scale) => sum = lanes(|lane| sum[lane] + above[point][lane] * scale.term[point]),
                        }
                    }
                    add(sums, inner.column, &lanes(|lane| surprise[lane] * gap * sum[lane]));
                    next_inner += 1;
                }
                Action::OpenLeft | Action::OpenRight => {
                    let inner = &self.program.inner[next_inner];
                    let (surprise, passes, both) = self.surprise(frames, bins, inner);
                    let (opened, deeper) = frames.split_at_mut(level + 1);
                    let (frame, below) = (&mut opened[level], &mut deeper[0]);
                    frame.inner = next_inner;
                    frame.surprise = surprise;
                    let mut points = &self.points;
                    if inner.same_feature_at != NOWHERE {
                        frame.scale = next_scale;
                        points = &self.scales[next_scale].point;
                        next_scale += 1;
                    }
                    for (point, t) in points.iter().enumerate() {
                        let factor = lanes(|lane| inner.left_share + t * surprise[lane]);
                        frame.factor[point] = factor;
                        let left = lanes(|lane| frame.above[point][lane] * factor[lane]);
                        below.above[point] = if action == Action::OpenLeft {
                            left
                        } else {
                            lanes(|lane| frame.above[point][lane] - left[lane])
                        };
                    }
                    frame.passes =
                        if action == Action::OpenLeft { passes } else { lanes(|lane| both[lane] - passes[lane]) };
                    next_inner += 1;
                    level += 1;
                }
                Action::Turn => {
                    let (opened, deeper) = frames.split_at_mut(level);
                    let same_feature_at = self.program.inner[opened[level - 1].inner].same_feature_at;
                    let both =
                        if same_feature_at == NOWHERE { [1.0; LANES] } else { opened[same_feature_at as usize].passes };
                    let (frame, below) = (&mut opened[level - 1], &mut deeper[0]);
                    frame.left = value;
                    frame.passes = lanes(|lane| both[lane] - frame.passes[lane]);
                    for point in 0..POINTS {
                        below.above[point] = lanes(|lane| frame.above[point][lane] - below.above[point][lane]);
                    }
                }
                Action::Close => {
                    level -= 1;
                    let frame = &frames[level];
                    value = self.close(frame, &frame.left, &value, sums);
                }
                Action::CloseWithRightLeaf => {
                    level -= 1;
                    value = self.close(&frames[level], &value, &[[leaves[next_leaf]; LANES]; POINTS], sums);
                    next_leaf += 1;
                }
                Action::CloseWithLeftLeaf => {
                    level -= 1;
                    value = self.close(&frames[level], &[[leaves[next_leaf]; LANES]; POINTS], &value, sums);
                    next_leaf += 1;
                }
            }
        }
    }

    /// How the rows' answers differ from the training rows' mean; 1 where they pass all edges on the feature if they go left, and if
    /// they go either way.
    #[inline(always)]
    fn surprise(&self, frames: &[Frame<POINTS>], bins: &[B], inner: &Inner<B>) -> (Lanes, Lanes, Lanes) {
        let left = goes_left(bins, inner);
        if inner.same_feature_at == NOWHERE {
            return (lanes(|lane| left[lane] - inner.left_share), left, [1.0; LANES]);
        }
        let both = frames[inner.same_feature_at as usize].passes;
        let surprise = lanes(|lane| both[lane] * (left[lane] - inner.left_share));
        (surprise, lanes(|lane| both[lane] * left[lane]), both)
    }

    /// Adds the contribution of a node whose children are done, and returns its sum.
    #[inline(always)]
    fn close(
        &self,
        frame: &Frame<POINTS>,
        left: &[Lanes; POINTS],
        right: &[Lanes; POINTS],
        sums: &mut [Lanes],
    ) -> [Lanes; POINTS] {
        let inner = &self.program.inner[frame.inner];
        let scale = (inner.same_feature_at != NOWHERE).then(|| &self.scales[frame.scale]);
        let mut value = [[0.0; LANES]; POINTS];
        let mut sum = [0.0; LANES];
        for point in 0..POINTS {
            let gap = lanes(|lane| left[point][lane] - right[point][lane]);
            value[point] = lanes(|lane| right[point][lane] + frame.factor[point][lane] * gap[lane]);
            match scale {
                None => sum = lanes(|lane| sum[lane] + frame.above[point][lane] * gap[lane]),
                Some(scale) => {
                    sum = lanes(|lane| sum[lane] + frame.above[point][lane] * gap[lane] * scale.term[point]);
                }
            }
        }
        add(sums, inner.column, &lanes(|lane| frame.surprise[lane] * sum[lane]));
        value
    }
}
