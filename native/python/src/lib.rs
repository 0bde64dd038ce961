//! `headrace._native`: the engine as Python sees it. Private to the package `headrace`; `_native.pyi` describes it to people and type checkers.
//!
//! This crate translates and nothing else: values in, values out, errors to exceptions. Rules: long work runs detached from the interpreter
//! ([`error::detached`]), every handle refuses to work after a fork ([`fork::ForkGuard`]), no panic crosses the boundary.

mod digest;
mod embedded;
mod engine;
mod error;
mod expressions;
mod fork;
mod frame;
mod functions;
mod interrupt;
mod join;
mod keys;
mod local_store;
mod logs;
mod model;
mod model_rows;
mod online_plan;
mod plan;
mod profile;
mod response;
mod runtimes;
mod sequences;
mod serve;
mod sketches;
mod tensor;
mod values;

#[pyo3::pymodule(gil_used = true)]
mod _native {
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::digest::{canonical_json, digest_bytes, digest_file, digest_json, source_digest};
    #[pymodule_export]
    use crate::embedded::{Embedded, EmbeddedAnswer};
    #[pymodule_export]
    use crate::engine::Engine;
    #[pymodule_export]
    use crate::expressions::Expressions;
    #[pymodule_export]
    use crate::fork::skip_inherited_exit_handlers;
    #[pymodule_export]
    use crate::join::{JoinedTable, PointInTimeJoin, RecordRows, complete_join, partition_rows};
    #[pymodule_export]
    use crate::local_store::{LocalStore, StoreSnapshot};
    #[pymodule_export]
    use crate::logs::write_log;
    #[pymodule_export]
    use crate::model::Model;
    #[pymodule_export]
    use crate::online_plan::OnlinePlan;
    #[pymodule_export]
    use crate::plan::Plan;
    #[pymodule_export]
    use crate::profile::Profile;
    #[pymodule_export]
    use crate::serve::serve;
    #[pymodule_export]
    use crate::sketches::{DistinctSketch, QuantileSketch};

    #[pymodule_export]
    #[allow(non_upper_case_globals)]
    const __version__: &str = env!("CARGO_PKG_VERSION");

    #[pymodule_init]
    fn init(_module: &Bound<'_, PyModule>) -> PyResult<()> {
        crate::fork::watch_forks();
        Ok(())
    }
}
