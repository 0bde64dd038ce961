//! `Plan`: the compiled definitions of a project.

use std::sync::Arc;

use headrace_expr::FunctionCode;
use headrace_features::{DefinitionRef, FeatureFrom, PlanDiff};
use headrace_types::Field;
use pyo3::prelude::*;
use serde_json::{Value, json};

use crate::error::{Outcome, detached, guarded};
use crate::functions::{CompiledFunction, PythonFunction};

/// A checked plan. It is immutable, and other handles keep it alive.
#[pyclass(frozen, module = "headrace._native")]
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) inner: Arc<headrace_features::Plan>,
}

#[pymethods]
impl Plan {
    /// Reads, checks and compiles a plan.
    #[staticmethod]
    fn from_json(py: Python<'_>, text: &str) -> Outcome<Self> {
        let plan = detached(py, || headrace_features::Plan::from_json(text))?;
        Ok(Self { inner: Arc::new(plan) })
    }

    #[getter]
    fn digest(&self) -> &str {
        self.inner.digest()
    }

    #[getter]
    fn json(&self) -> &str {
        self.inner.canonical_json()
    }

    #[getter]
    fn project(&self) -> &str {
        self.inner.project()
    }

    /// What changes from `old` (or from nothing) to this plan, as JSON.
    #[pyo3(signature = (old=None))]
    fn diff(&self, old: Option<&Plan>) -> Outcome<String> {
        let diff = guarded(|| Ok(PlanDiff::between(old.map(|plan| &*plan.inner), &self.inner)))?;
        let refs = |list: &[DefinitionRef]| -> Value {
            list.iter().map(|d| json!({"kind": d.kind.name(), "name": d.name, "details": d.details})).collect()
        };
        let breaking: Value = diff
            .breaking
            .iter()
            .map(|b| json!({"view": b.view, "field": b.field, "old": b.old, "new": b.new, "services": b.services}))
            .collect();
        Ok(json!({
            "added": refs(&diff.added),
            "changed": refs(&diff.changed),
            "removed": refs(&diff.removed),
            "breaking": breaking,
        })
        .to_string())
    }

    /// The names of the feature services.
    fn services(&self) -> Vec<String> {
        self.inner.services().keys().cloned().collect()
    }

    /// What a service asks for and gives, as JSON.
    fn service(&self, name: &str) -> Outcome<String> {
        let service = guarded(|| self.inner.service(name))?;
        let features: Value = service
            .features
            .iter()
            .map(|f| {
                let is_stored = matches!(f.from, FeatureFrom::Stored(_));
                json!({
                    "name": f.name, "view": f.view, "feature": f.feature, "dtype": f.dtype.to_string(), "stored": is_stored,
                })
            })
            .collect();
        let stored: Value =
            service.stored.iter().map(|read| json!({"view": read.view, "feature": read.field})).collect();
        Ok(json!({
            "name": service.name,
            "join_keys": fields_json(&service.join_keys),
            "request_fields": fields_json(&service.request_fields),
            "features": features,
            "views": service.views(),
            "stored": stored,
        })
        .to_string())
    }

    /// The digests of the functions that services call and whose code this process has not brought yet.
    fn unbound_functions(&self) -> Vec<&str> {
        let unbound = self.inner.functions().filter(|function| !function.is_bound());
        let mut digests: Vec<&str> = unbound.map(|function| function.spec.digest.as_str()).collect();
        digests.sort_unstable();
        digests.dedup();
        digests
    }

    /// Gives a compiled function its code: the address of a native function, and the object that keeps it in place. The address must
    /// be that of a function of the form that `headrace.functions` compiles to; nothing can check it here.
    fn bind_compiled(&self, digest: &str, address: usize, owner: Py<PyAny>) -> Outcome<()> {
        self.bind(digest, &FunctionCode::Scalar(Arc::new(CompiledFunction::new(address, owner)?)))
    }

    /// Gives a Python function its code: a callable of lists, one for each argument, that returns a sequence.
    fn bind_python(&self, digest: &str, function: Py<PyAny>) -> Outcome<()> {
        for bound in self.inner.functions().filter(|bound| bound.spec.digest == digest) {
            Python::attach(|py| {
                let code = PythonFunction::new(&bound.spec, function.clone_ref(py));
                bound.bind(FunctionCode::Batch(Arc::new(code)))
            })?;
        }
        Ok(())
    }

    /// The online tables as JSON: their join keys and views.
    fn tables(&self) -> String {
        let tables = self.inner.tables().iter();
        let tables: Value =
            tables.map(|t| json!({"name": t.name, "join_keys": fields_json(&t.join_keys), "views": t.views})).collect();
        tables.to_string()
    }

    fn __repr__(&self) -> String {
        format!("Plan(project='{}', digest='{}')", self.inner.project(), self.inner.digest())
    }
}

impl Plan {
    fn bind(&self, digest: &str, code: &FunctionCode) -> Outcome<()> {
        for function in self.inner.functions().filter(|function| function.spec.digest == digest) {
            function.bind(code.clone())?;
        }
        Ok(())
    }
}

fn fields_json(fields: &[Field]) -> Value {
    fields.iter().map(|field| json!({"name": field.name, "dtype": field.dtype.to_string()})).collect()
}
