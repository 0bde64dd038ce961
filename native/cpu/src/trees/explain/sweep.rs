//! The hot loop: one walk over a tree's edges explains a group of rows at up to four points of the rule.

use super::super::number::Bin;
use super::program::{Action, Inner, NOWHERE, Program};
use super::quadrature::Rule;
use crate::vectorized::{Vectorized, vectorized};

/// Rows that go through a tree together, where there are as many. Sixteen take fewer instructions and were slower: frames leave the registers.
pub(super) const LANES: usize = 8;
/// Rows that go through a tree together, of the few that are left.
pub(super) const LANES_FEW: usize = 4;

/// A number for each row of a group.
pub(super) type Lanes<const L: usize> = [f64; L];

/// Points that one walk takes along. A rule of more is spread over several walks: contributions are sums over points.
const POINTS_MAX: usize = 4;

/// An open node.
#[derive(Debug, Clone, Copy)]
struct Frame<const L: usize, const POINTS: usize> {
    /// The product of the factors above it, times the points' weights.
    above: [Lanes<L>; POINTS],
    /// The factor of its left edge.
    factor: [Lanes<L>; POINTS],
    /// The sum that came up from its left child.
    left: [Lanes<L>; POINTS],
    /// How the row's answer differs from the training rows' mean.
    surprise: Lanes<L>,
    /// 1 where the row passes all edges on this feature, down to the child that is walked now.
    passes: Lanes<L>,
    inner: usize,
    /// Its place in `scales`, if an edge above asks the same feature.
    scale: usize,
}

impl<const L: usize, const POINTS: usize> Frame<L, POINTS> {
    const NEW: Self = Self {
        above: [[0.0; L]; POINTS],
        factor: [[0.0; L]; POINTS],
        left: [[0.0; L]; POINTS],
        surprise: [0.0; L],
        passes: [0.0; L],
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
struct Memory<const L: usize, const POINTS: usize> {
    frames: Vec<Frame<L, POINTS>>,
    scales: Vec<Scale<POINTS>>,
}

#[derive(Debug, Default)]
pub(super) struct Sweeper<const L: usize> {
    one: Memory<L, 1>,
    two: Memory<L, 2>,
    three: Memory<L, 3>,
    four: Memory<L, 4>,
}

impl<const L: usize> Sweeper<L> {
    /// Adds one tree's contributions to the rows' sums. `bins` has `slots_count * L` for each group of rows, `sums` has
    /// `columns_count`.
    pub(super) fn add<B: Bin>(
        &mut self,
        program: &Program<B>,
        rule: &Rule,
        bins: &[B],
        slots_count: usize,
        sums: &mut [Lanes<L>],
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

struct Sweep<'a, B, const L: usize, const POINTS: usize> {
    program: &'a Program<B>,
    points: [f64; POINTS],
    weights: [f64; POINTS],
    memory: &'a mut Memory<L, POINTS>,
    bins: &'a [B],
    slots_count: usize,
    sums: &'a mut [Lanes<L>],
    columns_count: usize,
}

#[inline(always)]
fn lanes<const L: usize>(value: impl Fn(usize) -> f64) -> Lanes<L> {
    let mut lanes = [0.0; L];
    for (lane, out) in lanes.iter_mut().enumerate() {
        *out = value(lane);
    }
    lanes
}

/// 1 where a row goes left.
#[inline(always)]
fn goes_left<B: Bin, const L: usize>(bins: &[B], inner: &Inner<B>) -> Lanes<L> {
    let bins: &[B; L] = bins[inner.slot as usize * L..][..L].try_into().expect("a slice of L");
    lanes(|lane| f64::from(u8::from(bins[lane] <= inner.bin)))
}

#[inline(always)]
fn add<const L: usize>(sums: &mut [Lanes<L>], column: usize, value: &Lanes<L>) {
    for (sum, value) in sums[column].iter_mut().zip(value) {
        *sum += value;
    }
}

impl<B: Bin, const L: usize, const POINTS: usize> Vectorized for Sweep<'_, B, L, POINTS> {
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
        let groups = bins.chunks_exact(L * slots_count).zip(sums.chunks_exact_mut(columns_count));
        for (bins, sums) in groups {
            frames[0].above = weights.map(|weight| [weight; L]);
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

/// Where a walk stands in its program's lists.
#[derive(Default)]
struct Next {
    inner: usize,
    leaf: usize,
    scale: usize,
}

impl Next {
    #[inline(always)]
    fn inner<'a, B>(&mut self, program: &'a Program<B>) -> &'a Inner<B> {
        let inner = &program.inner[self.inner];
        self.inner += 1;
        inner
    }

    #[inline(always)]
    fn leaf<B>(&mut self, program: &Program<B>) -> f64 {
        let leaf = program.leaves[self.leaf];
        self.leaf += 1;
        leaf
    }

    #[inline(always)]
    fn scale(&mut self) -> usize {
        self.scale += 1;
        self.scale - 1
    }
}

/// Calls a method with whether an edge above asks the node's feature as a constant: each form is a straight line.
macro_rules! with_same_feature {
    ($inner:expr, $self:ident . $method:ident ( $($argument:expr),* )) => {
        if $inner.same_feature_at == NOWHERE {
            $self.$method::<L, false>($($argument),*)
        } else {
            $self.$method::<L, true>($($argument),*)
        }
    };
}

impl<B: Bin, const POINTS: usize> Walk<'_, B, POINTS> {
    /// One group of rows.
    #[inline(always)]
    fn run<const L: usize>(&self, frames: &mut [Frame<L, POINTS>], bins: &[B], sums: &mut [Lanes<L>]) {
        let (mut next, mut level) = (Next::default(), 0);
        let mut value = [[0.0; L]; POINTS];
        for &action in &self.program.actions {
            match action {
                Action::Leaves => {
                    let inner = next.inner(self.program);
                    with_same_feature!(inner, self.leaves(inner, &mut next, &frames[..=level], bins, &mut value, sums));
                }
                Action::OpenLeft => {
                    let inner = next.inner(self.program);
                    with_same_feature!(inner, self.open(inner, &mut next, frames, level, bins));
                    level += 1;
                }
                Action::OpenRight => {
                    let inner = next.inner(self.program);
                    with_same_feature!(inner, self.open(inner, &mut next, frames, level, bins));
                    self.turn(frames, level);
                    level += 1;
                }
                Action::Turn => {
                    frames[level - 1].left = value;
                    self.turn(frames, level - 1);
                }
                Action::Close => {
                    level -= 1;
                    let frame = &frames[level];
                    let inner = &self.program.inner[frame.inner];
                    value = with_same_feature!(inner, self.close(inner, frame, &frame.left, &value, sums));
                }
                Action::CloseWithRightLeaf => {
                    level -= 1;
                    let frame = &frames[level];
                    let inner = &self.program.inner[frame.inner];
                    let leaf = [[next.leaf(self.program); L]; POINTS];
                    value = with_same_feature!(inner, self.close(inner, frame, &value, &leaf, sums));
                }
                Action::CloseWithLeftLeaf => {
                    level -= 1;
                    let frame = &frames[level];
                    let inner = &self.program.inner[frame.inner];
                    let leaf = [[next.leaf(self.program); L]; POINTS];
                    value = with_same_feature!(inner, self.close(inner, frame, &leaf, &value, sums));
                }
            }
        }
    }

    /// Explains a node of two leaves, and leaves its sum in `value`.
    #[inline(always)]
    fn leaves<const L: usize, const SAME: bool>(
        &self,
        inner: &Inner<B>,
        next: &mut Next,
        frames: &[Frame<L, POINTS>],
        bins: &[B],
        value: &mut [Lanes<L>; POINTS],
        sums: &mut [Lanes<L>],
    ) {
        let (left, right) = (next.leaf(self.program), next.leaf(self.program));
        let gap = left - right;
        let mean = right + inner.left_share * gap;
        let goes_left = goes_left::<B, L>(bins, inner);
        let mut change: Lanes<L> = lanes(|lane| (goes_left[lane] - inner.left_share) * gap);
        let mut points = &self.points;
        let mut terms = &[1.0; POINTS];
        if SAME {
            let both = &frames[inner.same_feature_at as usize].passes;
            change = lanes(|lane| both[lane] * change[lane]);
            let scale = &self.scales[next.scale()];
            (points, terms) = (&scale.point, &scale.term);
        }
        let above = &frames[frames.len() - 1].above;
        let mut sum: Lanes<L> = if SAME { lanes(|lane| above[0][lane] * terms[0]) } else { above[0] };
        for point in 1..POINTS {
            sum = if SAME {
                lanes(|lane| sum[lane] + above[point][lane] * terms[point])
            } else {
                lanes(|lane| sum[lane] + above[point][lane])
            };
        }
        for (value, point) in value.iter_mut().zip(points) {
            *value = lanes(|lane| mean + point * change[lane]);
        }
        add(sums, self.program.first_column + inner.column as usize, &lanes(|lane| change[lane] * sum[lane]));
    }

    /// Opens the node at `level` for its left child.
    #[inline(always)]
    fn open<const L: usize, const SAME: bool>(
        &self,
        inner: &Inner<B>,
        next: &mut Next,
        frames: &mut [Frame<L, POINTS>],
        level: usize,
        bins: &[B],
    ) {
        let goes_left = goes_left::<B, L>(bins, inner);
        let (opened, deeper) = frames.split_at_mut(level + 1);
        let (before, opened) = opened.split_at_mut(level);
        let (frame, below) = (&mut opened[0], &mut deeper[0]);
        let mut points = &self.points;
        frame.inner = next.inner - 1;
        frame.surprise = lanes(|lane| goes_left[lane] - inner.left_share);
        frame.passes = goes_left;
        if SAME {
            let both = &before[inner.same_feature_at as usize].passes;
            frame.surprise = lanes(|lane| both[lane] * frame.surprise[lane]);
            frame.passes = lanes(|lane| both[lane] * goes_left[lane]);
            frame.scale = next.scale();
            points = &self.scales[frame.scale].point;
        }
        for (point, t) in points.iter().enumerate() {
            let factor: Lanes<L> = lanes(|lane| inner.left_share + t * frame.surprise[lane]);
            frame.factor[point] = factor;
            below.above[point] = lanes(|lane| frame.above[point][lane] * factor[lane]);
        }
    }

    /// Goes on from the left child of the node at `level` to its right one.
    #[inline(always)]
    fn turn<const L: usize>(&self, frames: &mut [Frame<L, POINTS>], level: usize) {
        let (opened, deeper) = frames.split_at_mut(level + 1);
        let (before, opened) = opened.split_at_mut(level);
        let (frame, below) = (&mut opened[0], &mut deeper[0]);
        let same_feature_at = self.program.inner[frame.inner].same_feature_at;
        if same_feature_at == NOWHERE {
            frame.passes = lanes(|lane| 1.0 - frame.passes[lane]);
        } else {
            let both = &before[same_feature_at as usize].passes;
            frame.passes = lanes(|lane| both[lane] - frame.passes[lane]);
        }
        for (above, below) in frame.above.iter().zip(&mut below.above) {
            *below = lanes(|lane| above[lane] - below[lane]);
        }
    }

    /// Adds the contribution of a node whose children are done, and returns its sum.
    #[inline(always)]
    fn close<const L: usize, const SAME: bool>(
        &self,
        inner: &Inner<B>,
        frame: &Frame<L, POINTS>,
        left: &[Lanes<L>; POINTS],
        right: &[Lanes<L>; POINTS],
        sums: &mut [Lanes<L>],
    ) -> [Lanes<L>; POINTS] {
        let terms = if SAME { &self.scales[frame.scale].term } else { &[1.0; POINTS] };
        let mut value = [[0.0; L]; POINTS];
        let mut sum = [0.0; L];
        for point in 0..POINTS {
            let gap: Lanes<L> = lanes(|lane| left[point][lane] - right[point][lane]);
            value[point] = lanes(|lane| right[point][lane] + frame.factor[point][lane] * gap[lane]);
            let mut term: Lanes<L> = lanes(|lane| frame.above[point][lane] * gap[lane]);
            if SAME {
                term = lanes(|lane| term[lane] * terms[point]);
            }
            sum = if point == 0 { term } else { lanes(|lane| sum[lane] + term[lane]) };
        }
        add(sums, self.program.first_column + inner.column as usize, &lanes(|lane| frame.surprise[lane] * sum[lane]));
        value
    }
}
