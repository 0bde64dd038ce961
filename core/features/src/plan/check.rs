//! What each definition must satisfy on its own and towards the definitions that it names.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use headrace_expr::{ProgramBuilder, did_you_mean};
use headrace_types::{DType, Error, ErrorCode, Field, Result, ScalarType};
use serde_json::Value;

use super::json::{self, EntityJson, OnDemandJson, Source, ViewJson};
use super::{EntityPlan, OnDemandInput, OnDemandViewPlan, ViewPlan, unknown_view};
use crate::windows::WindowPlan;

/// The longest name of a definition or a field, in bytes.
pub const NAME_BYTES_MAX: usize = 128;
/// The largest number of entities of a view.
pub const ENTITIES_PER_VIEW_MAX: usize = 16;
/// The largest number of join keys of an entity or a view.
pub const JOIN_KEYS_MAX: usize = 16;
/// The largest number of fields or inputs of a view.
pub const FIELDS_PER_VIEW_MAX: usize = 8_192;
/// The largest number of features of a service.
pub const FEATURES_PER_SERVICE_MAX: usize = 32_768;
/// In an input's `from`: the request. No view may have this name.
pub const REQUEST: &str = "request";

pub(super) fn invalid(message: impl Into<String>, hint: impl Into<String>) -> Error {
    Error::new(ErrorCode::InvalidDefinition, message, hint)
}

fn clash(message: impl Into<String>) -> Error {
    Error::new(ErrorCode::NameClash, message, "rename one of them")
}

/// A letter or underscore, then letters, digits and underscores; no two underscores in a row, which join a view's name to a feature's.
pub(super) fn check_name(what: &str, name: &str) -> Result<()> {
    let mut characters = name.chars();
    let starts = characters.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    let goes_on = characters.all(|c| c.is_ascii_alphanumeric() || c == '_');
    if starts && goes_on && name.len() <= NAME_BYTES_MAX && !name.contains("__") {
        return Ok(());
    }
    Err(invalid(
        format!("{name:?} is not a name for {what}"),
        format!("use a letter, then letters, digits and single underscores, up to {NAME_BYTES_MAX} characters"),
    ))
}

/// The project's name is a label only, so it may have hyphens.
pub(super) fn project_name(name: &str) -> Result<()> {
    check_name("a project", &name.replace('-', "_").replace("__", "_")).map_err(|_| {
        invalid(format!("{name:?} is not a name for a project"), "use a letter, then letters, digits, _ and -")
    })
}

pub(super) fn check_limit(what: &str, count: usize, limit: usize) -> Result<()> {
    if count <= limit {
        return Ok(());
    }
    Err(Error::new(
        ErrorCode::TooLarge,
        format!("it has {count} {what}, the limit is {limit}"),
        "divide the definition",
    ))
}

fn check_fields<'a>(what: &str, fields: impl Iterator<Item = &'a Field>) -> Result<()> {
    let mut seen = HashSet::new();
    for field in fields {
        check_name("a field", &field.name)?;
        if !seen.insert(&field.name) {
            return Err(clash(format!("two {what} are named '{}'", field.name)));
        }
    }
    Ok(())
}

pub(super) fn entities(definitions: BTreeMap<String, Value>) -> Result<BTreeMap<String, EntityPlan>> {
    let mut entities: BTreeMap<String, EntityPlan> = BTreeMap::new();
    let mut key_owners: HashMap<String, (DType, String)> = HashMap::new();
    for (name, value) in definitions {
        let entity = entity(&name, value).map_err(|error| error.within(format!("entity '{name}'")))?;
        for key in &entity.join_keys {
            let (dtype, owner) = key_owners.entry(key.name.clone()).or_insert_with(|| (key.dtype, name.clone()));
            if *dtype != key.dtype {
                return Err(invalid(
                    format!(
                        "join key '{}' is {dtype} in entity '{owner}' and {} in entity '{name}'",
                        key.name, key.dtype
                    ),
                    "give one of the keys another name, or both the same type",
                ));
            }
        }
        entities.insert(name, entity);
    }
    Ok(entities)
}

fn entity(name: &str, value: Value) -> Result<EntityPlan> {
    check_name("an entity", name)?;
    let EntityJson { join_keys, description, tags, owner } = json::definition(value)?;
    if join_keys.is_empty() {
        return Err(invalid("it has no join keys", "list at least one; a view without a key has no entities instead"));
    }
    check_limit("join keys", join_keys.len(), JOIN_KEYS_MAX)?;
    check_fields("join keys", join_keys.iter())?;
    for key in &join_keys {
        if matches!(key.dtype, DType::List(_) | DType::Scalar(ScalarType::Float32 | ScalarType::Float64)) {
            return Err(invalid(
                format!("join key '{}' is {}", key.name, key.dtype),
                "a key is a string, bytes, integer, bool or timestamp",
            ));
        }
    }
    Ok(EntityPlan { name: name.into(), join_keys, description, tags, owner })
}

pub(super) fn views(
    definitions: BTreeMap<String, Value>,
    entities: &BTreeMap<String, EntityPlan>,
) -> Result<BTreeMap<String, ViewPlan>> {
    definitions
        .into_iter()
        .map(|(name, value)| {
            let view = view(&name, value, entities).map_err(|error| error.within(format!("view '{name}'")))?;
            Ok((name, view))
        })
        .collect()
}

fn view(name: &str, value: Value, known: &BTreeMap<String, EntityPlan>) -> Result<ViewPlan> {
    check_view_name(name)?;
    let ViewJson { entities, fields, aggregations, ttl_us, online, source, description, tags, owner } =
        json::definition(value)?;
    check_limit("entities", entities.len(), ENTITIES_PER_VIEW_MAX)?;
    let mut join_keys = Vec::new();
    for entity in &entities {
        let Some(entity) = known.get(entity) else {
            return Err(Error::new(
                ErrorCode::UnknownEntity,
                format!("there is no entity '{entity}'"),
                did_you_mean(entity, "entities", known.keys().map(String::as_str)),
            ));
        };
        join_keys.extend(entity.join_keys.iter().cloned());
    }
    check_limit("join keys", join_keys.len(), JOIN_KEYS_MAX)?;
    check_limit("fields", fields.len(), FIELDS_PER_VIEW_MAX)?;
    if fields.is_empty() {
        return Err(invalid("it has no fields", "list at least one feature"));
    }
    check_fields("columns", join_keys.iter().chain(&fields))?;
    check_source(&source)?;
    match ttl_us {
        Some(_) if source.event_ts.is_none() => {
            return Err(invalid(
                "it has a ttl, and its rows have no event time",
                "name the source's event_ts, or leave the ttl out",
            ));
        }
        Some(ttl_us) if ttl_us <= 0 => {
            return Err(invalid(
                format!("its ttl is {ttl_us} us"),
                "give a positive ttl, or none to keep rows for ever",
            ));
        }
        _ => {}
    }
    let (fields, windows) = windows(fields, &aggregations, ttl_us, &source)?;
    check_fields("columns", join_keys.iter().chain(&fields))?;
    Ok(ViewPlan {
        name: name.into(),
        entities,
        join_keys,
        fields,
        windows,
        ttl_us,
        online,
        source,
        table: 0,
        view_index: 0,
        description,
        tags,
        owner,
    })
}

/// The features of a view, and what they are aggregated from if they are aggregates.
fn windows(
    fields: Vec<Field>,
    aggregations: &[Value],
    ttl_us: Option<i64>,
    source: &Source,
) -> Result<(Vec<Field>, Option<Arc<WindowPlan>>)> {
    if aggregations.is_empty() {
        return Ok((fields, None));
    }
    check_limit("aggregations", aggregations.len(), FIELDS_PER_VIEW_MAX)?;
    if ttl_us.is_some() {
        return Err(invalid("it has aggregations and a ttl", "leave the ttl out: the windows say what is too old"));
    }
    if source.event_ts.is_none() {
        return Err(invalid("it has aggregations, and its rows have no event time", "name the source's event_ts"));
    }
    let (windows, features) = WindowPlan::compile(fields, aggregations)?;
    Ok((features, Some(Arc::new(windows))))
}

/// A view's name may end in `@v2` or a later version: it is a view of its own beside the first, which has the plain name.
fn check_view_name(name: &str) -> Result<()> {
    let (base, version) = name.split_once("@v").map_or((name, None), |(base, version)| (base, Some(version)));
    check_name("a view", base)?;
    let is_version = |text: &str| !text.starts_with('0') && text.parse::<u32>().is_ok_and(|number| number >= 2);
    if version.is_some_and(|text| text.starts_with('+') || !is_version(text)) {
        return Err(invalid(
            format!("{name:?} is not a name for a view"),
            "write @v2 or a later version behind the name; the first version has the plain name",
        ));
    }
    if base == REQUEST {
        return Err(invalid("a view cannot be named 'request', which stands for the request's fields", "rename it"));
    }
    Ok(())
}

fn check_source(source: &Source) -> Result<()> {
    match source.kind.as_str() {
        "file" => {
            if source.path.as_deref().is_none_or(str::is_empty) {
                return Err(invalid("its file source has no path", "name a file, a folder or a glob"));
            }
            const FORMATS: [&str; 4] = ["parquet", "csv", "jsonl", "delta"];
            if let Some(format) = source.format.as_deref().filter(|format| !FORMATS.contains(format)) {
                return Err(invalid(
                    format!("its file source has the format '{format}'"),
                    "use parquet, csv, jsonl or delta",
                ));
            }
        }
        "push" => {
            if source.path.is_some() || source.format.is_some() {
                return Err(invalid(
                    "its push source has a path or a format",
                    "leave them out, or make it a file source",
                ));
            }
        }
        kind => return Err(invalid(format!("there is no source of kind '{kind}'"), "use file or push")),
    }
    if source.event_ts.is_none() && (source.created_ts.is_some() || source.available_after_us.is_some()) {
        return Err(invalid(
            "its source has created_ts or available_after and no event_ts",
            "name the column of the event time",
        ));
    }
    if source.available_after_us.is_some_and(|us| us < 0) {
        return Err(invalid("its source has a negative available_after", "give a delay that is not negative"));
    }
    Ok(())
}

pub(super) fn on_demand_views(
    definitions: BTreeMap<String, Value>,
    views: &BTreeMap<String, ViewPlan>,
) -> Result<BTreeMap<String, OnDemandViewPlan>> {
    definitions
        .into_iter()
        .map(|(name, value)| {
            if views.contains_key(&name) {
                return Err(clash(format!("a feature view and an on-demand view are both named '{name}'")));
            }
            let view = on_demand_view(&name, value, views).map_err(|error| error.within(format!("view '{name}'")))?;
            Ok((name, view))
        })
        .collect()
}

fn on_demand_view(name: &str, value: Value, views: &BTreeMap<String, ViewPlan>) -> Result<OnDemandViewPlan> {
    check_view_name(name)?;
    let OnDemandJson { inputs, fields, description, tags, owner } = json::definition(value)?;
    check_limit("inputs", inputs.len(), FIELDS_PER_VIEW_MAX)?;
    check_limit("fields", fields.len(), FIELDS_PER_VIEW_MAX)?;
    if fields.is_empty() {
        return Err(invalid("it has no fields", "list at least one feature with its expression"));
    }
    let inputs: Vec<OnDemandInput> = inputs
        .into_iter()
        .map(|input| OnDemandInput {
            field: Field::new(input.name, input.dtype),
            view: (input.from != REQUEST).then_some(input.from),
        })
        .collect();
    check_fields("inputs", inputs.iter().map(|input| &input.field))?;
    for input in &inputs {
        check_input(input, views)?;
    }
    let fields: Vec<(Field, Value)> =
        fields.into_iter().map(|field| (Field::new(field.name, field.dtype), field.expr)).collect();
    check_fields("features", fields.iter().map(|(field, _)| field))?;

    // Compiled here for its errors: a view must be right even when no service uses it yet.
    let columns: HashMap<&str, usize> =
        inputs.iter().enumerate().map(|(index, input)| (input.field.name.as_str(), index)).collect();
    let mut builder = ProgramBuilder::new(inputs.iter().map(|input| input.field.clone()).collect());
    for (field, expr) in &fields {
        builder.output(field.clone(), expr, &columns)?;
    }
    Ok(OnDemandViewPlan { name: name.into(), inputs, fields, description, tags, owner })
}

fn check_input(input: &OnDemandInput, views: &BTreeMap<String, ViewPlan>) -> Result<()> {
    let Some(view_name) = &input.view else { return Ok(()) };
    let OnDemandInput { field, .. } = input;
    let place = format!("input '{}'", field.name);
    let Some(view) = views.get(view_name) else {
        return Err(unknown_view(view_name, views.keys()).within(place));
    };
    let Some(stored) = view.fields.iter().find(|stored| stored.name == field.name) else {
        return Err(unknown_feature(view_name, &field.name, view.fields.iter()).within(place));
    };
    if stored.dtype != field.dtype {
        return Err(Error::new(
            ErrorCode::TypeMismatch,
            format!("{place} is {}, and '{}' of view '{view_name}' is {}", field.dtype, field.name, stored.dtype),
            "give the input the type of the feature, and cast it in the expression",
        ));
    }
    Ok(())
}

pub(super) fn unknown_feature<'a>(view: &str, feature: &str, known: impl Iterator<Item = &'a Field>) -> Error {
    Error::new(
        ErrorCode::UnknownFeature,
        format!("view '{view}' has no feature '{feature}'"),
        did_you_mean(feature, "features", known.map(|field| field.name.as_str())),
    )
}
