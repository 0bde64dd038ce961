//! The checks of every online store, run on the one in this process; and stores that must not pass them.
#![allow(clippy::unwrap_used)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use headrace_features::conformance::check_online_store;
use headrace_features::{ApplyCounts, LocalStore, OnlineStore, Plan, StoreOptions, TablePlan, TableReader};
use headrace_types::Result;

const OPTIONS: StoreOptions = StoreOptions { bytes_max: 64 << 20, huge_pages: false };

#[test]
fn the_local_store_does_what_a_store_must() {
    check_online_store(&|plan| Arc::new(LocalStore::create(plan, OPTIONS).unwrap()));
}

/// A store with a fault.
#[derive(Debug)]
struct Faulty {
    inner: LocalStore,
    /// Knows what the counts would be.
    whole: LocalStore,
    fault: Fault,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    /// Some batches are acknowledged and lost.
    LosesBatches,
    /// Counts are of another kind.
    MiscountsStale,
    /// What is no batch is taken for an empty one.
    TakesAnything,
    /// Rows never expire.
    ForgetsTtl,
}

impl OnlineStore for Faulty {
    fn apply(&self, batch: &[u8]) -> Result<ApplyCounts> {
        match self.fault {
            Fault::LosesBatches => {
                let counts = self.whole.apply(batch)?;
                if !batch.len().is_multiple_of(5) {
                    self.inner.apply(batch)?;
                }
                Ok(counts)
            }
            Fault::TakesAnything => Ok(self.inner.apply(batch).unwrap_or_default()),
            Fault::MiscountsStale => {
                let counts = self.inner.apply(batch)?;
                Ok(ApplyCounts { stale: 0, skipped: counts.stale, ..counts })
            }
            _ => self.inner.apply(batch),
        }
    }

    fn table_reader(
        &self,
        table: &TablePlan,
        features: &[headrace_cpu::GatherFeature],
        ttl_us: &[Option<i64>],
        width: usize,
    ) -> Result<Box<dyn TableReader>> {
        let never = vec![None; ttl_us.len()];
        let ttl_us = if self.fault == Fault::ForgetsTtl { &never } else { ttl_us };
        self.inner.table_reader(table, features, ttl_us, width)
    }
}

#[test]
fn a_store_with_a_fault_is_found_out() {
    for fault in [Fault::LosesBatches, Fault::MiscountsStale, Fault::TakesAnything, Fault::ForgetsTtl] {
        let make = |plan: &Plan| -> Arc<dyn OnlineStore> {
            let new = || LocalStore::create(plan, OPTIONS).unwrap();
            Arc::new(Faulty { inner: new(), whole: new(), fault })
        };
        let passed = catch_unwind(AssertUnwindSafe(|| check_online_store(&make)));
        assert!(passed.is_err(), "{fault:?} passes");
    }
}
