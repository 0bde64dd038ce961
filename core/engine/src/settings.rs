//! Settings of traces and logs by Triton's names. Those of logs take effect ([`Settings::log_levels`]); those of traces are kept, checked and
//! answered: nothing is traced to a file, so no level but OFF is taken.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use headrace_types::{Error, ErrorCode, Result};
use serde_json::{Map, Value, json};

use crate::request::shortened;

/// Settings of traces that are one number, and what they are when nobody has set them.
const TRACE_NUMBERS: [(&str, i64); 3] = [("trace_rate", 1000), ("trace_count", -1), ("log_frequency", 0)];

/// The settings of one engine, shared by the transports before it.
#[derive(Debug, Default)]
pub struct Settings(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    /// Of every model that has none of its own.
    trace: BTreeMap<&'static str, i64>,
    by_model: BTreeMap<String, BTreeMap<&'static str, i64>>,
    log: LogSettings,
}

#[derive(Debug, Clone)]
struct LogSettings {
    info: bool,
    warning: bool,
    error: bool,
    verbose_level: u32,
    format: &'static str,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { info: true, warning: true, error: true, verbose_level: 0, format: LOG_FORMATS[0] }
    }
}

/// Which levels of the log are on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogLevels {
    pub info: bool,
    pub warning: bool,
    pub error: bool,
    /// Above 0 every request is logged.
    pub verbose_level: u32,
}

const LOG_FORMATS: [&str; 2] = ["default", "ISO8601"];

impl Settings {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The settings of traces: of a model, or what a model has that has none of its own.
    pub fn trace(&self, model: Option<&str>) -> Value {
        let kept = self.kept();
        let own = model.and_then(|model| kept.by_model.get(model));
        let mut settings = json!({"trace_file": "", "trace_level": ["OFF"], "trace_mode": "triton"});
        for (name, default) in TRACE_NUMBERS {
            let value = own.and_then(|own| own.get(name)).or_else(|| kept.trace.get(name)).unwrap_or(&default);
            settings[name] = value.to_string().into();
        }
        settings
    }

    /// Changes settings of traces. Null takes a setting back: a model's to that of all models, that of all models to what it was at first.
    ///
    /// # Errors
    /// `unsupported` for a level, `read_only` for a file, `invalid_argument`; nothing has changed then.
    pub fn change_trace(&self, model: Option<&str>, changes: &Map<String, Value>) -> Result<()> {
        let mut numbers = Vec::new();
        for (name, value) in changes {
            match (name.as_str(), value) {
                ("trace_file" | "trace_level" | "trace_mode", Value::Null) => {}
                ("trace_level", value) => check_level(value)?,
                ("trace_file", _) => return Err(read_only(name, "traces are not written to a file")),
                ("trace_mode", value) if value == "triton" => {}
                _ => numbers.push(trace_number(name, value)?),
            }
        }
        let mut kept = self.kept();
        let settings = match model {
            Some(model) => kept.by_model.entry(model.to_owned()).or_default(),
            None => &mut kept.trace,
        };
        for (name, number) in numbers {
            match number {
                Some(number) => settings.insert(name, number),
                None => settings.remove(name),
            };
        }
        Ok(())
    }

    pub fn log_levels(&self) -> LogLevels {
        let kept = self.kept();
        let LogSettings { info, warning, error, verbose_level, .. } = kept.log;
        LogLevels { info, warning, error, verbose_level }
    }

    pub fn log(&self) -> Value {
        let log = self.kept().log.clone();
        json!({
            "log_file": "", "log_info": log.info, "log_warning": log.warning, "log_error": log.error,
            "log_verbose_level": log.verbose_level, "log_format": log.format,
        })
    }

    /// Changes settings of logs.
    ///
    /// # Errors
    /// `read_only` for the file, `invalid_argument`; nothing has changed then.
    pub fn change_log(&self, changes: &Map<String, Value>) -> Result<()> {
        let mut kept = self.kept();
        let mut log = kept.log.clone();
        for (name, value) in changes {
            match name.as_str() {
                "log_info" => log.info = flag(name, value)?,
                "log_warning" => log.warning = flag(name, value)?,
                "log_error" => log.error = flag(name, value)?,
                "log_verbose_level" => {
                    let level = value.as_u64().and_then(|level| u32::try_from(level).ok());
                    log.verbose_level = level.ok_or_else(|| misfit(name, "a whole number, not negative"))?;
                }
                "log_format" => {
                    let format = LOG_FORMATS.into_iter().find(|format| value == format);
                    log.format = format.ok_or_else(|| misfit(name, "\"default\" or \"ISO8601\""))?;
                }
                "log_file" => return Err(read_only(name, "the log goes where the process writes its errors")),
                _ => return Err(unknown(name)),
            }
        }
        kept.log = log;
        Ok(())
    }
}

/// The clients send a level as a text or as a list of them.
fn check_level(value: &Value) -> Result<()> {
    let levels = match value {
        Value::Array(levels) => levels.as_slice(),
        one => std::slice::from_ref(one),
    };
    for level in levels {
        match level.as_str() {
            Some("OFF") => {}
            Some(name @ ("TIMESTAMPS" | "TENSORS" | "MIN" | "MAX")) => {
                return Err(Error::new(
                    ErrorCode::Unsupported,
                    format!("the trace level {name} is not served: nothing is traced to a file"),
                    "leave it OFF; latencies by phase are in /v2/models/stats and on the metrics port",
                ));
            }
            _ => return Err(misfit("trace_level", "\"OFF\", \"TIMESTAMPS\" or \"TENSORS\"")),
        }
    }
    Ok(())
}

fn trace_number(name: &str, value: &Value) -> Result<(&'static str, Option<i64>)> {
    let (known, _) = TRACE_NUMBERS.into_iter().find(|(known, _)| *known == name).ok_or_else(|| unknown(name))?;
    let number = match value {
        Value::Null => None,
        Value::String(text) => text.parse().ok(),
        // The clients' form of lists: one text.
        Value::Array(texts) if texts.len() == 1 => texts[0].as_str().and_then(|text| text.parse().ok()),
        other => other.as_i64(),
    };
    let least = if known == "trace_count" { -1 } else { 0 };
    match number {
        Some(number) if number < least => Err(misfit(name, "not so small")),
        None if !value.is_null() => Err(misfit(name, "a whole number")),
        number => Ok((known, number)),
    }
}

fn flag(name: &str, value: &Value) -> Result<bool> {
    value.as_bool().ok_or_else(|| misfit(name, "true or false"))
}

fn misfit(name: &str, expected: &str) -> Error {
    Error::new(ErrorCode::InvalidArgument, format!("the setting {name} must be {expected}"), "correct it")
}

fn unknown(name: &str) -> Error {
    Error::new(
        ErrorCode::InvalidArgument,
        format!("there is no setting '{}'", shortened(name)),
        "GET the settings for their names",
    )
}

fn read_only(name: &str, why: &str) -> Error {
    Error::new(ErrorCode::ReadOnly, format!("the setting {name} cannot be changed: {why}"), "leave it out")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn changes(value: &Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn a_model_has_the_settings_of_all_until_it_gets_its_own() {
        let settings = Settings::default();
        settings.change_trace(None, &changes(&json!({"trace_rate": "5", "trace_level": ["OFF"]}))).unwrap();
        settings.change_trace(Some("m"), &changes(&json!({"trace_count": 9}))).unwrap();
        let of_model = settings.trace(Some("m"));
        assert_eq!((&of_model["trace_rate"], &of_model["trace_count"]), (&json!("5"), &json!("9")));
        assert_eq!(settings.trace(None)["trace_count"], "-1");
        settings.change_trace(Some("m"), &changes(&json!({"trace_count": null}))).unwrap();
        assert_eq!(settings.trace(Some("m"))["trace_count"], "-1");
    }

    #[test]
    fn what_is_wrong_changes_nothing() {
        let settings = Settings::default();
        for (change, code) in [
            (json!({"trace_rate": "5", "trace_level": ["TIMESTAMPS"]}), ErrorCode::Unsupported),
            (json!({"trace_rate": "5", "trace_file": "x"}), ErrorCode::ReadOnly),
            (json!({"trace_rate": "x"}), ErrorCode::InvalidArgument),
            (json!({"trace_count": -2}), ErrorCode::InvalidArgument),
            (json!({"trace_nothing": 1}), ErrorCode::InvalidArgument),
        ] {
            assert_eq!(settings.change_trace(None, &changes(&change)).unwrap_err().code, code, "{change}");
        }
        assert_eq!(settings.trace(None)["trace_rate"], "1000");
        for change in [
            json!({"log_info": false, "log_verbose_level": -1}),
            json!({"log_info": 0}),
            json!({"log_format": "x"}),
            json!({"log_file": "x"}),
            json!({"log_warnings": true}),
        ] {
            assert!(settings.change_log(&changes(&change)).is_err(), "{change}");
        }
        settings.change_log(&changes(&json!({"log_verbose_level": 2, "log_format": "ISO8601"}))).unwrap();
        let log = settings.log();
        assert_eq!((&log["log_info"], &log["log_verbose_level"]), (&json!(true), &json!(2)));
    }
}
