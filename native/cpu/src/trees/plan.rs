//! Which kernel takes which rows: reckoned from what each costs for this forest on this processor, measured when it is compiled.
//!
//! All kernels give the same bits, so a wrong measurement costs time and nothing else.

use std::time::{Duration, Instant};

use super::layout::LANES;
use super::sweep::{SWEPT_ROWS, SWEPT_ROWS_FEW};

/// A way to evaluate up to [`rows`](Self::rows) rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// One row, without bins.
    Direct,
    /// One row, eight trees at a time.
    Row,
    /// Eight rows, a tree at a time.
    Walk,
    /// A vector of rows, which need not be full.
    SweepFew,
    /// Two vectors of rows.
    SweepMany,
}

impl Way {
    pub(super) const ALL: [Way; 5] = [Way::Direct, Way::Row, Way::Walk, Way::SweepFew, Way::SweepMany];

    pub(super) fn rows(self) -> usize {
        match self {
            Way::Direct | Way::Row => 1,
            Way::Walk => LANES,
            Way::SweepFew => SWEPT_ROWS_FEW,
            Way::SweepMany => SWEPT_ROWS,
        }
    }

    /// Whether it takes fewer rows as well, for the price of all.
    fn takes_fewer(self) -> bool {
        matches!(self, Way::SweepFew | Way::SweepMany)
    }
}

/// Rows from which on a plan repeats itself: as many as the widest way takes.
const PERIOD: usize = SWEPT_ROWS;

/// Time that all measurements of a forest may take together, if one call does not take longer.
const BUDGET: Duration = Duration::from_millis(30);
/// Enough for one way: the shortest of its calls tells what it costs when nothing disturbs it.
const CALLS_MAX: u32 = 40;
const CALLS_MIN: u32 = 3;
const TIME_PER_WAY: Duration = Duration::from_micros(400);

#[derive(Debug)]
pub(super) struct Plan {
    /// For a multiple of `PERIOD` rows.
    bulk: Way,
    /// What comes first for fewer rows, by their number.
    first: [Way; PERIOD],
    row_cost: Duration,
}

impl Plan {
    /// Row by row, without a measurement.
    pub(super) fn of_rows() -> Self {
        Self::of_costs(&[(Way::Row, Duration::from_micros(1))])
    }

    /// Measures each way that there is. `call` evaluates as many rows as the way takes.
    pub(super) fn measured(ways: &[Way], mut call: impl FnMut(Way)) -> Self {
        let begin = Instant::now();
        let mut costs: Vec<(Way, Duration)> = Vec::new();
        for &way in ways {
            let (mut least, mut calls) = (Duration::MAX, 0);
            let way_begin = Instant::now();
            while calls < CALLS_MIN || (calls < CALLS_MAX && way_begin.elapsed() < TIME_PER_WAY) {
                if begin.elapsed() > BUDGET && calls > 0 {
                    break;
                }
                let call_begin = Instant::now();
                call(way);
                // The first call finds nothing in the caches.
                if calls > 0 || begin.elapsed() > BUDGET {
                    least = least.min(call_begin.elapsed());
                }
                calls += 1;
            }
            costs.push((way, least.min(way_begin.elapsed())));
            if begin.elapsed() > BUDGET {
                break;
            }
        }
        Self::of_costs(&costs)
    }

    /// The cheapest sequence of ways for each number of rows. `costs` has one way at least that takes a single row or fewer than its
    /// number.
    fn of_costs(costs: &[(Way, Duration)]) -> Self {
        let mut least = [Duration::ZERO; PERIOD];
        let mut first = [costs[0].0; PERIOD];
        for rows in 1..PERIOD {
            // The widest of equals.
            let possible = costs.iter().rev().filter(|(way, _)| way.rows() <= rows || way.takes_fewer());
            let cost = |&&(way, cost): &&(Way, Duration)| cost + least[rows.saturating_sub(way.rows())];
            let best = possible.min_by_key(cost).expect("some way takes a single row");
            (first[rows], least[rows]) = (best.0, cost(&best));
        }
        let row_cost = |&&(way, cost): &&(Way, Duration)| cost / u32::try_from(way.rows()).expect("few");
        let bulk = costs.iter().min_by_key(row_cost).expect("some way takes a single row");
        Self { bulk: bulk.0, first, row_cost: row_cost(&bulk) }
    }

    pub(super) fn uses(&self, way: Way) -> bool {
        self.bulk == way || self.first[1..].contains(&way)
    }

    /// A row's share of a large batch.
    pub(super) fn row_cost(&self) -> Duration {
        self.row_cost
    }

    /// The ways that take `rows` rows one after the other, and how many each takes.
    pub(super) fn steps(&self, rows: usize) -> impl Iterator<Item = (Way, usize)> + '_ {
        let bulk = rows / PERIOD * PERIOD;
        let mut left = rows - bulk;
        let rest = std::iter::from_fn(move || {
            if left == 0 {
                return None;
            }
            let way = self.first[left];
            let before = left;
            while left > 0 && self.first[left] == way {
                left = left.saturating_sub(way.rows());
            }
            Some((way, before - left))
        });
        (bulk > 0).then_some((self.bulk, bulk)).into_iter().chain(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(costs: &[(Way, u64)]) -> Plan {
        let costs: Vec<_> = costs.iter().map(|&(way, cost)| (way, Duration::from_nanos(cost))).collect();
        Plan::of_costs(&costs)
    }

    fn steps(plan: &Plan, rows: usize) -> Vec<(Way, usize)> {
        plan.steps(rows).collect()
    }

    #[test]
    fn each_number_of_rows_takes_what_is_cheapest() {
        let plan = plan(&[(Way::Row, 10), (Way::Walk, 60), (Way::SweepFew, 150), (Way::SweepMany, 250)]);
        assert_eq!(steps(&plan, 0), []);
        assert_eq!(steps(&plan, 3), [(Way::Row, 3)]);
        assert_eq!(steps(&plan, 8), [(Way::Walk, 8)]);
        assert_eq!(steps(&plan, 30), [(Way::SweepFew, 30)]);
        assert_eq!(steps(&plan, 34), [(Way::SweepFew, 32), (Way::Row, 2)]);
        assert_eq!(steps(&plan, 60), [(Way::SweepMany, 60)]);
        assert_eq!(steps(&plan, 200), [(Way::SweepMany, 192), (Way::Walk, 8)]);
        for rows in 0..300 {
            assert_eq!(plan.steps(rows).map(|(_, rows)| rows).sum::<usize>(), rows);
        }
    }

    #[test]
    fn what_does_not_pay_is_not_used() {
        let plan = plan(&[(Way::Direct, 5), (Way::Row, 10), (Way::SweepFew, 1000), (Way::SweepMany, 2000)]);
        assert_eq!(steps(&plan, 130), [(Way::Direct, 128), (Way::Direct, 2)]);
    }

    #[test]
    fn a_slow_forest_is_not_measured_for_long() {
        let mut calls = 0;
        let plan = Plan::measured(&[Way::Row, Way::Walk, Way::SweepMany], |_| {
            calls += 1;
            std::thread::sleep(BUDGET);
        });
        assert_eq!((calls, steps(&plan, 2)), (1, vec![(Way::Row, 2)]));
    }
}
