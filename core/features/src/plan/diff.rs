//! What changes between two plans, and what of it would break a service that is in use.

use std::collections::BTreeMap;
use std::fmt;

use headrace_types::{DType, Field};
use serde_json::Value;

use super::{OnDemandViewPlan, Plan, ServicePlan, ViewPlan};

/// The kinds of definitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DefinitionKind {
    /// An entity.
    Entity,
    /// A view of stored features.
    View,
    /// A view of computed features.
    OnDemandView,
    /// A feature service.
    Service,
}

impl DefinitionKind {
    /// The word for it in messages and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            DefinitionKind::Entity => "entity",
            DefinitionKind::View => "view",
            DefinitionKind::OnDemandView => "on_demand_view",
            DefinitionKind::Service => "service",
        }
    }

    /// Its member in a plan's JSON.
    fn member(self) -> &'static str {
        match self {
            DefinitionKind::Entity => "entities",
            DefinitionKind::View => "views",
            DefinitionKind::OnDemandView => "on_demand_views",
            DefinitionKind::Service => "services",
        }
    }
}

impl fmt::Display for DefinitionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A definition that differs between two plans.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefinitionRef {
    /// What it is.
    pub kind: DefinitionKind,
    /// Its name.
    pub name: String,
    /// What is in it, or what of it changed, one line each.
    pub details: Vec<String>,
}

/// A change that takes something away from services of the old plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breaking {
    /// The view that changes.
    pub view: String,
    /// The feature or the request's field; none when the view is removed or its key changes.
    pub field: Option<String>,
    /// What it was: a type, or a list of join keys.
    pub old: String,
    /// What it becomes, or `removed`.
    pub new: String,
    /// The services of the old plan that use it.
    pub services: Vec<String>,
}

/// The difference between two plans.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PlanDiff {
    /// Definitions that are new.
    pub added: Vec<DefinitionRef>,
    /// Definitions that are there before and after, and differ.
    pub changed: Vec<DefinitionRef>,
    /// Definitions that are gone.
    pub removed: Vec<DefinitionRef>,
    /// What of it breaks services of the old plan.
    pub breaking: Vec<Breaking>,
}

impl PlanDiff {
    /// Compares two plans; `old` is none before the first apply.
    pub fn between(old: Option<&Plan>, new: &Plan) -> Self {
        let mut diff = Self::default();
        let parsed = |plan: &Plan| serde_json::from_str::<Value>(plan.canonical_json()).unwrap_or_default();
        let (old_json, new_json) = (old.map(parsed).unwrap_or_default(), parsed(new));
        let kinds =
            [DefinitionKind::Entity, DefinitionKind::View, DefinitionKind::OnDemandView, DefinitionKind::Service];
        for kind in kinds {
            diff.compare_kind(kind, &old_json[kind.member()], &new_json[kind.member()]);
        }
        if let Some(old) = old {
            diff.breaking = breaking(old, new);
        }
        diff
    }

    /// Whether the plans have the same definitions.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty()
    }

    fn compare_kind(&mut self, kind: DefinitionKind, old: &Value, new: &Value) {
        let nothing = serde_json::Map::new();
        let (old, new) = (old.as_object().unwrap_or(&nothing), new.as_object().unwrap_or(&nothing));
        let reference = |name: &String, details| DefinitionRef { kind, name: name.clone(), details };
        for (name, definition) in new {
            match old.get(name) {
                None => self.added.push(reference(name, contents(kind, definition))),
                Some(before) if before != definition => {
                    self.changed.push(reference(name, changes(kind, before, definition)));
                }
                Some(_) => {}
            }
        }
        for name in old.keys().filter(|name| !new.contains_key(*name)) {
            self.removed.push(reference(name, Vec::new()));
        }
    }
}

/// The named parts of a definition, each with its text: fields with types, features, inputs.
fn parts(kind: DefinitionKind, definition: &Value) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = |member: &str| definition[member].as_array().cloned().unwrap_or_default();
    let mut parts = BTreeMap::new();
    match kind {
        DefinitionKind::Entity => {
            for key in list("join_keys") {
                parts.insert(format!("join key '{}'", text(&key["name"])), text(&key["dtype"]));
            }
        }
        DefinitionKind::View | DefinitionKind::OnDemandView => {
            for field in list("fields") {
                let expression = field.get("expr").map(|expr| format!(" = {expr}")).unwrap_or_default();
                parts.insert(format!("field '{}'", text(&field["name"])), text(&field["dtype"]) + &expression);
            }
            for feature in list("aggregations") {
                parts.insert(format!("aggregation '{}'", text(&feature["name"])), feature.to_string());
            }
            for input in list("inputs") {
                let from = format!("{} from {}", text(&input["dtype"]), text(&input["from"]));
                parts.insert(format!("input '{}'", text(&input["name"])), from);
            }
        }
        DefinitionKind::Service => {
            for feature in list("features") {
                let origin = format!("{}.{}", text(&feature["view"]), text(&feature["feature"]));
                parts.insert(format!("feature '{}'", text(&feature["name"])), origin);
            }
        }
    }
    parts
}

fn contents(kind: DefinitionKind, definition: &Value) -> Vec<String> {
    parts(kind, definition).into_iter().map(|(name, text)| format!("{name}: {text}")).collect()
}

fn changes(kind: DefinitionKind, old: &Value, new: &Value) -> Vec<String> {
    const LISTED: [&str; 5] = ["fields", "aggregations", "inputs", "features", "join_keys"];
    let (old_parts, new_parts) = (parts(kind, old), parts(kind, new));
    let mut lines = Vec::new();
    for (name, text) in &new_parts {
        match old_parts.get(name) {
            None => lines.push(format!("{name} added: {text}")),
            Some(before) if before != text => lines.push(format!("{name}: {before} -> {text}")),
            Some(_) => {}
        }
    }
    lines.extend(old_parts.keys().filter(|name| !new_parts.contains_key(*name)).map(|name| format!("{name} removed")));
    if lines.is_empty() {
        // The same parts in another order.
        lines.extend(
            LISTED.iter().filter(|member| old[**member] != new[**member]).map(|member| format!("{member} reordered")),
        );
    }
    let nothing = serde_json::Map::new();
    let (old, new) = (old.as_object().unwrap_or(&nothing), new.as_object().unwrap_or(&nothing));
    for (member, value) in new.iter().filter(|(member, _)| !LISTED.contains(&member.as_str())) {
        let before = old.get(member).unwrap_or(&Value::Null);
        if before != value {
            lines.push(format!("{member}: {before} -> {value}"));
        }
    }
    lines
}

fn breaking(old: &Plan, new: &Plan) -> Vec<Breaking> {
    let mut found = Vec::new();
    for view in old.views.values() {
        stored_view(view, old, new, &mut found);
    }
    for view in old.on_demand_views.values() {
        on_demand_view(view, old, new, &mut found);
    }
    found.retain(|breaking| !breaking.services.is_empty());
    found
}

fn stored_view(view: &ViewPlan, old: &Plan, new: &Plan, found: &mut Vec<Breaking>) {
    let users = |field: Option<&str>| {
        services(old, |service| {
            service.stored.iter().any(|f| f.view == view.name && field.is_none_or(|field| f.field == field))
        })
    };
    let keys = |keys: &[Field]| keys.iter().map(|k| format!("{}: {}", k.name, k.dtype)).collect::<Vec<_>>().join(", ");

    if !has_view(new, &view.name) {
        found.push(removed(view.name.clone(), None, format!("view of {} features", view.fields.len()), users(None)));
        return;
    }
    match new.views.get(&view.name) {
        Some(after) if after.join_keys != view.join_keys => found.push(Breaking {
            view: view.name.clone(),
            field: None,
            old: format!("keys ({})", keys(&view.join_keys)),
            new: format!("keys ({})", keys(&after.join_keys)),
            services: users(None),
        }),
        Some(_) => {}
        None => found.push(Breaking {
            view: view.name.clone(),
            field: None,
            old: "stored view".into(),
            new: "on-demand view".into(),
            services: users(None),
        }),
    }
    for field in &view.fields {
        changed_field(&view.name, field, new.feature_dtype(&view.name, &field.name), users(Some(&field.name)), found);
    }
}

fn on_demand_view(view: &OnDemandViewPlan, old: &Plan, new: &Plan, found: &mut Vec<Breaking>) {
    let users = |field: Option<&str>| {
        services(old, |service| {
            service.features.iter().any(|f| f.view == view.name && field.is_none_or(|field| f.feature == field))
        })
    };
    if !has_view(new, &view.name) {
        let what = format!("view of {} features", view.fields.len());
        found.push(removed(view.name.clone(), None, what, users(None)));
        return;
    }
    for (field, _) in &view.fields {
        changed_field(&view.name, field, new.feature_dtype(&view.name, &field.name), users(Some(&field.name)), found);
    }
    let Some(after) = new.on_demand_views.get(&view.name) else {
        found.push(Breaking {
            view: view.name.clone(),
            field: None,
            old: "on-demand view".into(),
            new: "stored view".into(),
            services: users(None),
        });
        return;
    };
    // Callers do not send what is now asked for, or send it with another type.
    for input in after.inputs.iter().filter(|input| input.view.is_none()) {
        let before = view.inputs.iter().find(|known| known.view.is_none() && known.field.name == input.field.name);
        if before.is_none_or(|before| before.field.dtype != input.field.dtype) {
            found.push(Breaking {
                view: view.name.clone(),
                field: Some(input.field.name.clone()),
                old: before.map_or("not in the request".into(), |before| before.field.dtype.to_string()),
                new: format!("{} in the request", input.field.dtype),
                services: users(None),
            });
        }
    }
}

fn has_view(plan: &Plan, name: &str) -> bool {
    plan.views.contains_key(name) || plan.on_demand_views.contains_key(name)
}

fn changed_field(view: &str, field: &Field, after: Option<DType>, users: Vec<String>, found: &mut Vec<Breaking>) {
    match after {
        None => found.push(removed(view.into(), Some(field.name.clone()), field.dtype.to_string(), users)),
        Some(dtype) if dtype != field.dtype => found.push(Breaking {
            view: view.into(),
            field: Some(field.name.clone()),
            old: field.dtype.to_string(),
            new: dtype.to_string(),
            services: users,
        }),
        Some(_) => {}
    }
}

fn removed(view: String, field: Option<String>, old: String, services: Vec<String>) -> Breaking {
    Breaking { view, field, old, new: "removed".into(), services }
}

fn services(plan: &Plan, uses: impl Fn(&ServicePlan) -> bool) -> Vec<String> {
    plan.services.values().filter(|service| uses(service)).map(|service| service.name.clone()).collect()
}
