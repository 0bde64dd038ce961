//! The hot loops. Eight walks go on at the same time, so that a core works on the others while one waits for memory.

use super::layout::{LANES, Linked, LinkedNode, Perfect, PerfectNode};
use super::number::{Bin, Number};

/// Levels that are walked in a linked tree before asking whether all walks have arrived.
const LEVELS_PER_CHECK: u32 = 3;

/// How trees are walked, whatever their layout. `bins` holds rows of bins `stride` apart.
pub(super) trait Walk<B, T>: Send + Sync + std::fmt::Debug {
    /// The leaves that one row reaches in the trees from `tree_first` on.
    fn trees_of_row(&self, tree_first: usize, bins: &[B], slots_count: usize) -> [T; LANES];

    /// The leaves that the rows from the first of `bins` on reach in one tree.
    fn rows_of_tree(&self, tree: usize, bins: &[B], stride: usize, slots_count: usize) -> [T; LANES];

    /// The bytes that one walk of all trees may touch.
    fn bytes(&self) -> usize;
}

impl<B: Bin, T: Number> Walk<B, T> for Perfect<B, T> {
    #[inline]
    fn trees_of_row(&self, tree_first: usize, bins: &[B], slots_count: usize) -> [T; LANES] {
        let size = 1usize << self.depth;
        let nodes = &self.nodes[tree_first * size..][..LANES * size];
        let leaves = &self.leaves[tree_first * size..][..LANES * size];
        assert!(bins.len() >= slots_count);
        let mut places = [1usize; LANES];
        for _ in 0..self.depth {
            for (lane, place) in places.iter_mut().enumerate() {
                // SAFETY: after `n` of `depth` levels a place is below `2^(n + 1)`, so it is below `size` here; `nodes`
                // has `LANES * size`.
                let node = unsafe { *nodes.get_unchecked(lane * size + *place) };
                *place = 2 * *place + usize::from(goes_right(node, bins));
            }
        }
        // SAFETY: after all levels each place is in `size..2 * size`.
        std::array::from_fn(|lane| unsafe { *leaves.get_unchecked(lane * size + places[lane] - size) })
    }

    #[inline]
    fn rows_of_tree(&self, tree: usize, bins: &[B], stride: usize, slots_count: usize) -> [T; LANES] {
        let size = 1usize << self.depth;
        let nodes = &self.nodes[tree * size..][..size];
        let leaves = &self.leaves[tree * size..][..size];
        assert!(bins.len() >= (LANES - 1) * stride + slots_count);
        let mut places = [1usize; LANES];
        for _ in 0..self.depth {
            for (lane, place) in places.iter_mut().enumerate() {
                // SAFETY: after `n` of `depth` levels a place is below `2^(n + 1)`, so it is below `size` here.
                let node = unsafe { *nodes.get_unchecked(*place) };
                // SAFETY: `bins` holds `LANES` rows (asserted above).
                let bins = unsafe { bins.get_unchecked(lane * stride..) };
                *place = 2 * *place + usize::from(goes_right(node, bins));
            }
        }
        // SAFETY: after all levels each place is in `size..2 * size`.
        std::array::from_fn(|lane| unsafe { *leaves.get_unchecked(places[lane] - size) })
    }

    fn bytes(&self) -> usize {
        size_of_val(self.nodes.as_slice()) + size_of_val(self.leaves.as_slice())
    }
}

#[inline(always)]
fn goes_right<B: Bin>(node: PerfectNode<B>, bins: &[B]) -> bool {
    // SAFETY: the layout's slots are below the quantizer's number of slots, and the callers assert that `bins` has as
    // many.
    node.bin < unsafe { *bins.get_unchecked(node.slot.to_usize()) }
}

impl<C: Bin, B: Bin, T: Number> Walk<B, T> for Linked<C, B, T> {
    #[inline]
    fn trees_of_row(&self, tree_first: usize, bins: &[B], slots_count: usize) -> [T; LANES] {
        let starts: &[usize; LANES] = self.starts[tree_first..][..LANES].try_into().expect("the slice has that length");
        let depth = self.depths[tree_first..][..LANES].iter().copied().max().unwrap_or(0);
        assert!(bins.len() >= slots_count);
        let mut places = *starts;
        descend(depth, &mut places, |lane, place| {
            // SAFETY: a place begins at its tree's start, and `left` and its neighbour are inside the tree (the
            // layout's invariant).
            let node = unsafe { *self.nodes.get_unchecked(place) };
            starts[lane] + next(node, bins)
        });
        // SAFETY: as above; `leaves` has the length of `nodes`.
        std::array::from_fn(|lane| unsafe { *self.leaves.get_unchecked(places[lane]) })
    }

    #[inline]
    fn rows_of_tree(&self, tree: usize, bins: &[B], stride: usize, slots_count: usize) -> [T; LANES] {
        let nodes = &self.nodes[self.starts[tree]..self.starts[tree + 1]];
        let leaves = &self.leaves[self.starts[tree]..self.starts[tree + 1]];
        assert!(bins.len() >= (LANES - 1) * stride + slots_count);
        let mut places = [0usize; LANES];
        descend(self.depths[tree], &mut places, |lane, place| {
            // SAFETY: a place begins at the root, and `left` and its neighbour are inside the tree (the layout's
            // invariant).
            let node = unsafe { *nodes.get_unchecked(place) };
            // SAFETY: `bins` holds `LANES` rows (asserted above).
            next(node, unsafe { bins.get_unchecked(lane * stride..) })
        });
        // SAFETY: as above; `leaves` has the length of `nodes`.
        std::array::from_fn(|lane| unsafe { *leaves.get_unchecked(places[lane]) })
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
        for _ in 1..LEVELS_PER_CHECK.min(depth - level) {
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

#[inline(always)]
fn next<C: Bin, B: Bin>(node: LinkedNode<C, B>, bins: &[B]) -> usize {
    // SAFETY: the layout's slots are below the quantizer's number of slots, and the callers assert that `bins` has as
    // many.
    node.left.to_usize() + usize::from(node.bin < unsafe { *bins.get_unchecked(node.slot.to_usize()) })
}
