//! The hot loops. Eight walks go on at the same time, so that a core works on the others while one waits for memory.
//!
//! Where the lanes are trees, they read one row's bins, `bins[slot]`. Where they are rows, their bins lie together,
//! `bins[slot * LANES + lane]`, so that no lane needs a register for its place in memory.

use std::fmt::Debug;

use super::layout::{LANES, Linked, PERFECT_DEPTH_MAX, Perfect};
use super::number::{Bin, Number, Offset};

/// Levels that are walked in a linked tree before asking whether all walks have arrived.
const LEVELS_PER_CHECK: u32 = 3;

/// One row, eight trees at a time: adds the leaves that it reaches to its sums, in the order of the trees.
pub(super) trait WalkRow<B, T>: Debug + Send + Sync {
    /// `bins` has `slots_count` of them.
    fn add_row(&self, bins: &[B], slots_count: usize, sums: &mut [T]);

    /// The memory that nodes and leaves take.
    fn bytes(&self) -> usize;

    fn name(&self) -> &'static str {
        std::any::type_name::<Self>()
    }
}

/// Groups of [`LANES`] rows, a tree at a time.
pub(super) trait WalkRows<B, T>: Debug + Send + Sync {
    /// `bins` has `slots_count * LANES` for each group, `sums` row-major `[rows, outputs_count]`, for as many groups as it has room for.
    fn add_rows(&self, bins: &[B], slots_count: usize, outputs_count: usize, sums: &mut [T]);
}

/// Calls a method with the depth as a constant: the lanes' addresses then are constants, too.
macro_rules! with_depth {
    ($self:ident . $method:ident ( $($argument:expr),* )) => {
        match $self.depth {
            1 => $self.$method::<1>($($argument),*),
            2 => $self.$method::<2>($($argument),*),
            3 => $self.$method::<3>($($argument),*),
            4 => $self.$method::<4>($($argument),*),
            5 => $self.$method::<5>($($argument),*),
            6 => $self.$method::<6>($($argument),*),
            7 => $self.$method::<7>($($argument),*),
            PERFECT_DEPTH_MAX => $self.$method::<PERFECT_DEPTH_MAX>($($argument),*),
            depth => unreachable!("no perfect tree of depth {depth} is built"),
        }
    };
}

impl<S: Offset, B: Bin, T: Number> WalkRow<B, T> for Perfect<S, B, T> {
    fn add_row(&self, bins: &[B], slots_count: usize, sums: &mut [T]) {
        with_depth!(self.add_row_deep(bins, slots_count, sums));
    }

    fn bytes(&self) -> usize {
        size_of_val(self.nodes.as_slice()) + self.leaves.bytes()
    }
}

impl<S: Offset, B: Bin, T: Number> Perfect<S, B, T> {
    fn add_row_deep<const DEPTH: u32>(&self, bins: &[B], slots_count: usize, sums: &mut [T]) {
        let size = const { 1usize << DEPTH };
        assert!(bins.len() >= slots_count);
        for (group, nodes) in self.nodes.chunks_exact(LANES * size).enumerate() {
            let mut places = [1usize; LANES];
            for _ in 0..DEPTH {
                for (lane, place) in places.iter_mut().enumerate() {
                    // SAFETY: after `n` of `DEPTH` levels a place is below `2^(n + 1)`, so it is below `size` here, and
                    // `nodes` has `LANES * size`. Slots are below the quantizer's number of slots (the layout's
                    // invariant), and `bins` has as many (asserted above).
                    let goes_right = unsafe {
                        let node = nodes.get_unchecked(lane * size + *place);
                        node.bin < *bins.get_unchecked(node.slot.to_usize())
                    };
                    *place = 2 * *place + usize::from(goes_right);
                }
            }
            // After all levels each place is in `size..2 * size`.
            let number = |lane: usize| (group * LANES + lane) * size + places[lane] - size;
            self.leaves.add_trees(group * LANES, std::array::from_fn(number), sums);
        }
    }
}

impl<C: Offset, S: Offset, B: Bin, T: Number> WalkRow<B, T> for Linked<C, S, B, T> {
    fn add_row(&self, bins: &[B], slots_count: usize, sums: &mut [T]) {
        assert!(bins.len() >= slots_count);
        let groups = self.starts.chunks_exact(LANES).zip(self.depths.chunks_exact(LANES));
        for (group, (starts, depths)) in groups.enumerate() {
            let mut places: [usize; LANES] = starts.try_into().expect("chunks are exact");
            descend(depths.iter().copied().max().unwrap_or(0), &mut places, |_, place| {
                // SAFETY: a place begins at a tree's start, and a step leads to a node of the tree (the layout's
                // invariant). Slots are below the quantizer's number of slots, and `bins` has as many (asserted above).
                unsafe {
                    let node = self.nodes.get_unchecked(place);
                    let goes_right = node.bin < *bins.get_unchecked(node.slot.to_usize());
                    place + node.step.to_usize() + usize::from(goes_right)
                }
            });
            self.leaves.add_trees(group * LANES, places, sums);
        }
    }

    fn bytes(&self) -> usize {
        size_of_val(self.nodes.as_slice()) + self.leaves.bytes()
    }
}

impl<C: Offset, S: Offset, B: Bin, T: Number> WalkRows<B, T> for Linked<C, S, B, T> {
    fn add_rows(&self, bins: &[B], slots_count: usize, outputs_count: usize, sums: &mut [T]) {
        let trees = self.starts.iter().zip(&self.depths).enumerate();
        for (tree, (&start, &depth)) in trees.take(self.leaves.trees_count()) {
            let groups = bins.chunks_exact(LANES * slots_count).zip(sums.chunks_exact_mut(LANES * outputs_count));
            for (bins, sums) in groups {
                let mut places = [start; LANES];
                descend(depth, &mut places, |lane, place| {
                    // SAFETY: as in `add_row`; `bins` has `LANES` for each slot.
                    unsafe {
                        let node = self.nodes.get_unchecked(place);
                        let goes_right = node.bin < *bins.get_unchecked(LANES * node.slot.to_usize() + lane);
                        place + node.step.to_usize() + usize::from(goes_right)
                    }
                });
                self.leaves.add_rows(tree, places.into_iter(), sums);
            }
        }
    }
}

/// Takes `depth` steps in every lane, or fewer when no lane moves any more: a leaf's next step is the leaf.
#[inline(always)]
pub(super) fn descend(depth: u32, places: &mut [usize; LANES], step: impl Fn(usize, usize) -> usize) {
    let mut level = 0;
    while level < depth {
        for _ in 1..LEVELS_PER_CHECK {
            for (lane, place) in places.iter_mut().enumerate() {
                *place = step(lane, *place);
            }
        }
        let mut moved = 0;
        for (lane, place) in places.iter_mut().enumerate() {
            let next = step(lane, *place);
            moved |= next ^ *place;
            *place = next;
        }
        if moved == 0 {
            return;
        }
        level += LEVELS_PER_CHECK;
    }
}
