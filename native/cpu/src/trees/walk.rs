//! The hot loops. Eight walks go on at the same time, so that a core works on the others while one waits for memory.
//!
//! Where the lanes are trees, they read one row's bins, `bins[slot]`. Where they are rows, their bins lie together,
//! `bins[slot * LANES + lane]`, so that no lane needs a register for its place in memory.

use super::layout::{LANES, Linked, PERFECT_DEPTH_MAX, Perfect};
use super::number::{Bin, Number};

/// Levels that are walked in a linked tree before asking whether all walks have arrived.
const LEVELS_PER_CHECK: u32 = 3;

/// Adds the leaves that rows reach to their sums, in the order of the trees. `outputs` names the sum of each tree.
pub(super) trait Walk<B, T>: Send + Sync {
    /// One row, eight trees at a time. `bins` has `slots_count` of them.
    fn add_row(&self, bins: &[B], slots_count: usize, outputs: &[usize], sums: &mut [T]);

    /// Groups of eight rows, a tree at a time. `bins` has `slots_count * LANES` for each group, `sums` row-major
    /// `[rows, outputs_count]`, for as many groups as it has room for.
    fn add_rows(&self, bins: &[B], slots_count: usize, outputs: &[usize], outputs_count: usize, sums: &mut [T]);

    /// The memory that nodes and leaves take.
    fn bytes(&self) -> usize;
}

/// Adds the leaves of up to eight trees to one row's sums.
#[inline(always)]
fn add_leaves<T: Number>(outputs: &[usize], leaves: [T; LANES], sums: &mut [T]) {
    if let [sum] = sums {
        for leaf in &leaves[..outputs.len().min(LANES)] {
            *sum = *sum + *leaf;
        }
    } else {
        for (output, leaf) in outputs.iter().zip(leaves) {
            sums[*output] = sums[*output] + leaf;
        }
    }
}

/// Adds one tree's leaves to the sums of eight rows.
#[inline(always)]
fn add_leaves_of_rows<T: Number>(output: usize, outputs_count: usize, leaves: [T; LANES], sums: &mut [T]) {
    for (row, leaf) in leaves.into_iter().enumerate() {
        let sum = &mut sums[row * outputs_count + output];
        *sum = *sum + leaf;
    }
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
            8 => $self.$method::<8>($($argument),*),
            9 => $self.$method::<9>($($argument),*),
            PERFECT_DEPTH_MAX => $self.$method::<PERFECT_DEPTH_MAX>($($argument),*),
            depth => unreachable!("no perfect tree of depth {depth} is built"),
        }
    };
}

impl<B: Bin, T: Number> Walk<B, T> for Perfect<B, T> {
    fn add_row(&self, bins: &[B], slots_count: usize, outputs: &[usize], sums: &mut [T]) {
        with_depth!(self.add_row_deep(bins, slots_count, outputs, sums));
    }

    fn add_rows(&self, bins: &[B], slots_count: usize, outputs: &[usize], outputs_count: usize, sums: &mut [T]) {
        with_depth!(self.add_rows_deep(bins, slots_count, outputs, outputs_count, sums));
    }

    fn bytes(&self) -> usize {
        size_of_val(self.nodes.as_slice()) + size_of_val(self.leaves.as_slice())
    }
}

impl<B: Bin, T: Number> Perfect<B, T> {
    fn add_row_deep<const DEPTH: u32>(&self, bins: &[B], slots_count: usize, outputs: &[usize], sums: &mut [T]) {
        let size = const { 1usize << DEPTH };
        assert!(bins.len() >= slots_count);
        let groups = self.nodes.chunks_exact(LANES * size).zip(self.leaves.chunks_exact(LANES * size));
        for ((nodes, leaves), outputs) in groups.zip(outputs.chunks(LANES)) {
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
            // SAFETY: after all levels each place is in `size..2 * size`.
            let leaf = |lane: usize| unsafe { *leaves.get_unchecked(lane * size + places[lane] - size) };
            add_leaves(outputs, std::array::from_fn(leaf), sums);
        }
    }

    fn add_rows_deep<const DEPTH: u32>(
        &self,
        bins: &[B],
        slots_count: usize,
        outputs: &[usize],
        outputs_count: usize,
        sums: &mut [T],
    ) {
        let size = const { 1usize << DEPTH };
        let trees = self.nodes.chunks_exact(size).zip(self.leaves.chunks_exact(size));
        for ((nodes, leaves), &output) in trees.zip(outputs) {
            let groups = bins.chunks_exact(LANES * slots_count).zip(sums.chunks_exact_mut(LANES * outputs_count));
            for (bins, sums) in groups {
                let mut places = [1usize; LANES];
                for _ in 0..DEPTH {
                    for (lane, place) in places.iter_mut().enumerate() {
                        // SAFETY: as in `add_row_deep`; `bins` has `LANES` for each slot.
                        let goes_right = unsafe {
                            let node = nodes.get_unchecked(*place);
                            node.bin < *bins.get_unchecked(LANES * node.slot.to_usize() + lane)
                        };
                        *place = 2 * *place + usize::from(goes_right);
                    }
                }
                // SAFETY: after all levels each place is in `size..2 * size`.
                let leaf = |lane: usize| unsafe { *leaves.get_unchecked(places[lane] - size) };
                add_leaves_of_rows(output, outputs_count, std::array::from_fn(leaf), sums);
            }
        }
    }
}

impl<C: Bin, B: Bin, T: Number> Walk<B, T> for Linked<C, B, T> {
    fn add_row(&self, bins: &[B], slots_count: usize, outputs: &[usize], sums: &mut [T]) {
        assert!(bins.len() >= slots_count);
        let groups = self.starts.chunks_exact(LANES).zip(self.depths.chunks_exact(LANES));
        for ((starts, depths), outputs) in groups.zip(outputs.chunks(LANES)) {
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
            // SAFETY: as above; `leaves` has the length of `nodes`.
            let leaf = |lane: usize| unsafe { *self.leaves.get_unchecked(places[lane]) };
            add_leaves(outputs, std::array::from_fn(leaf), sums);
        }
    }

    fn add_rows(&self, bins: &[B], slots_count: usize, outputs: &[usize], outputs_count: usize, sums: &mut [T]) {
        for ((&start, &depth), &output) in self.starts.iter().zip(&self.depths).zip(outputs) {
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
                // SAFETY: as above; `leaves` has the length of `nodes`.
                let leaf = |lane: usize| unsafe { *self.leaves.get_unchecked(places[lane]) };
                add_leaves_of_rows(output, outputs_count, std::array::from_fn(leaf), sums);
            }
        }
    }

    fn bytes(&self) -> usize {
        size_of_val(self.nodes.as_slice()) + size_of_val(self.leaves.as_slice())
    }
}

/// Takes `depth` steps in every lane, or fewer when no lane moves any more: a leaf's next step is the leaf.
#[inline(always)]
fn descend(depth: u32, places: &mut [usize; LANES], step: impl Fn(usize, usize) -> usize) {
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
